# Everything runs in .venv, which is made from nothing on first use.

PYTHON ?= python3
SEEDS ?= 1
SEED ?= 1
CASES ?= 2000
KILLS ?= 10

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install -q --progress-bar off

# A worker for each core, each with one thread: threads of several workers would wait for each other.
# glibc keeps what tensors leave, up to 1 GiB a worker: giving it back each time costs a tenth more.
# What is compiled is kept for the next time, whatever is the habit of this machine.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=268435456 \
	MALLOC_TRIM_THRESHOLD_=1073741824 $(BIN)/python -m pytest -n auto --maxprocesses 8

# Pinned together: a newer torch needs a newer torchvision, and is not what the tests ran with.
TORCH := torch==2.12.1 torchvision==0.27.1

.DEFAULT_GOAL := help
.PHONY: help env test tests-alone test-quick test-kill test-matrix fuzz lint demo bench-quick bench-pages \
	evidence evidence-check docs docs-pages gpu-check wheel clean

help:  ## Show this help.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' \
		| awk -F'|' '{printf "%-19s%s\n", $$1, $$2}'

env: $(READY)  ## Make .venv with torch, detectron2 and this package.

$(READY): setup.py Makefile tools/install_detectron2.py tools/detectron2_fixes.py
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
		sys.exit(sys.version_info < (3, 10) and f"$(TORCH) needs Python 3.10 or newer, \
	$(PYTHON) is {v}; name another one: make PYTHON=python3.11 ...")'
	@echo "[1/5] making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "[2/5] installing setuptools and wheel"
	@$(INSTALL) 'setuptools>=62.3,<81' wheel
	@echo "[3/5] installing $(TORCH) (large, takes minutes)"
	@$(INSTALL) $(TORCH)
	@echo "[4/5] installing detectron2"
	@$(BIN)/python tools/install_detectron2.py
	@echo "[5/5] installing dense_kd and what its tests need"
	@$(INSTALL) --no-build-isolation -e '.[test]'
	@touch $@

test: $(READY)  ## Run the tests and, beside them, the linter.
	@$(MAKE) --no-print-directory -j2 lint tests-alone

tests-alone: $(READY)
	@echo "running the tests"
	@$(PYTEST) --dist worksteal

test-quick: $(READY)  ## Run the first case of each test that is not slow.
	@$(PYTEST) --dist worksteal -q --quick

# Elsewhere each time; what fails names its seed, for DENSE_KD_KILL_SEED.
test-kill: $(READY)  ## Kill trainings at random points, and compare how they end (KILLS=10 of each).
	@DENSE_KD_KILLS=$(KILLS) DENSE_KD_KILL_SEED=$${DENSE_KD_KILL_SEED:-$$(date +%s)} \
		$(PYTEST) tests/engine/state/test_killed_runs.py

# Not in CI: three environments of their own (5 GB each) and all tests six times.
test-matrix:  ## Run the tests with old and new versions (DETECTRON2=folder of main, ONLY=cells).
	@$(PYTHON) tools/test_matrix.py $(if $(DETECTRON2),--detectron2 '$(DETECTRON2)') \
		$(if $(ONLY),--only $(ONLY))

fuzz: $(READY)  ## Read 2,000 damaged and hostile files of every kind (SEED=1).
	@cd tests && OMP_NUM_THREADS=1 ../$(BIN)/python -m fuzz --cases $(CASES) --seed $(SEED)

lint: $(READY)  ## Run the linter and the type checker.
	@echo "linting"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/mypy

demo: $(READY)  ## Train and compare on generated shapes (SEEDS=1).
	$(BIN)/python tools/demo.py --seeds $(SEEDS)

# The ratios of GFL, R101 to R50, on small images; nothing depends on what they are.
bench-quick: $(READY)  ## Print what the main methods cost (under three minutes).
	$(BIN)/python -m dense_kd benchmark --size 192 256 --rounds 3 --warmup 1 --what times,kernels \
		$(foreach method,bckd crosskd ld pgd tid pkd,$(method)/gfl_r101_r50_1x)

bench-pages: $(READY)  ## Write the tables of docs/performance.md from benchmarks/results.
	$(BIN)/python tools/performance_pages.py

evidence: $(READY)  ## Write docs/evidence/results.md and its figures from the results of studies.
	$(BIN)/python tools/evidence.py

evidence-check: $(READY)  ## Fail unless they are what the results give.
	@$(BIN)/python tools/evidence.py --check

docs-pages: $(READY)  ## Write the tables of docs/ from signatures, docstrings, configs and results.
	$(BIN)/python tools/docs_pages.py

# Not in CI. No -q: warnings that are not printed are not counted. NO_MKDOCS_2_WARNING: of the theme.
docs: $(READY)  ## Build the documentation into build/docs, to be opened from there.
	@$(BIN)/python -c 'import material, mkdocstrings' 2>/dev/null \
		|| $(INSTALL) --no-build-isolation -e '.[docs]'
	@PYTHONPATH=tools NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo build/docs/index.html

gpu-check: $(READY)  ## Compare a GPU with the CPU, and measure there; says so where there is none.
	$(BIN)/python benchmarks/gpu_check.py

wheel: $(READY)  ## Build a wheel into dist/.
	@rm -rf build
	@$(PIP) wheel -q --no-deps --no-build-isolation -w dist .
	@ls dist/*.whl

clean:  ## Remove .venv, .matrix, build outputs and caches (not datasets/ or output/).
	rm -rf $(VENV) .matrix build dist projects/*.egg-info *.egg-info .pytest_cache .ruff_cache \
		.mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
