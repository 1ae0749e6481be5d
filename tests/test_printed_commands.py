"""Every command that README, CONTRIBUTING and docs/ print is run by a test, or part of one.

Each command of ``dense-kd`` is run with examples of its own (cli/test_examples.py). So of a line
of its it is enough that its arguments are taken, its config exists and its overrides reach
something.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dense_kd import cli
from dense_kd.config import find_config
from dense_kd.engine import load_config
from dense_kd.errors import DenseKDError

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = ("make", "dense-kd", "python", "pip", "export", "torchrun")

RUN_BY = {
    "dense-kd distill photos": "pipeline/test_layouts.py::test_the_readmes_commands_lead",
    "dense-kd predict output/distill/": "pipeline/test_layouts.py::test_the_readmes_commands_lead",
    "dense-kd export output/": (
        "export/test_folder.py::test_an_onnx_folder_detects_without_torch_what_the_predictor_detects"
    ),
    "python examples/plain_loop.py": (
        "examples/test_examples.py::test_a_plain_loop_ends_with_a_student_alone"
    ),
    "python examples/own_dataset.py": (
        "examples/test_examples.py::test_images_of_ones_own_are_learnt_by_a_teacher_and_distilled_on"
    ),
    "python examples/own_method.py": (
        "examples/test_examples.py::test_a_run_with_a_class_of_ones_own_trains_and_evaluates"
    ),
    "python examples/own_detector.py": (
        "examples/test_examples.py::test_a_run_with_a_class_of_ones_own_trains_and_evaluates"
    ),
    "python detect.py street.jpg": (
        "export/test_folder.py::test_an_onnx_folder_detects_without_torch_what_the_predictor_detects"
    ),
    "dense-kd list": "test_printed_commands.py::test_commands_that_need_nothing_run",
    "dense-kd check bckd/": "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_eval",
    "dense-kd train bccd/bckd_gfl_lite2_r18 train.quantization_aware": (
        "engine/test_quantization_aware.py::test_it_trains_saves_the_plain_student_and_goes_on"
    ),
    "dense-kd train bckd/": "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_eval",
    "dense-kd train CONFIG model.teacher.cache": (
        "engine/test_cached_runs.py::test_a_run_with_a_cache_has_the_losses_of_one_without"
    ),
    "dense-kd eval gfl/": "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_eval",
    "dense-kd report output/": "cli/test_report.py::test_seeds_are_one_row_and_titles_are_given",
    "dense-kd maps quickstart/": "cli/test_maps.py::test_what_needs_objects_is_left_out_with_the_r",
    "dense-kd replay ": "cli/test_replay.py::test_a_step_fails_as_it_did_to_the_last_digit",
    "dense-kd maps bccd/": "cli/test_maps.py::test_it_writes_figures_and_arrays_of_the_last",
    "dense-kd eval bccd/": "cli/test_eval.py::test_numbers_and_errors_of_an_evaluation",
    "dense-kd errors datasets/": "cli/test_errors.py::test_it_prints_tables_and_writes_numbers",
    "dense-kd data bccd": "data/test_bccd.py::test_it_is_fetched_once_and_registered",
    "export DETECTRON2_DATASETS=": "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained",
    "python tools/lazyconfig_train_net.py --config-file distill.py": (
        "tools/test_coco_recipe.py::test_the_readmes_ten_lines"
    ),
    "python tools/lazyconfig_train_net.py --num-gpus 8 --config-file configs/bckd/": (
        "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_evaluated"
    ),
    "python tools/install_detectron2.py": (
        "tools/test_install_detectron2.py::test_the_installer_keeps_an_importable_detectron2"
    ),
    "dense-kd diagnose": "cli/test_diagnose.py::test_it_prints_tables_and_writes_numbers_and_a",
    "python benchmarks/balance.py": (
        "benchmark/test_balance.py::test_cells_are_trained_once_and_the_hand_set_weight_stays"
    ),
    "python benchmarks/bccd.py": (
        "data/test_bccd_benchmark.py::test_a_config_is_trained_once_and_its_metrics"
    ),
    "python benchmarks/unlabelled.py": (
        "data/test_unlabelled_benchmark.py::test_both_arms_of_every_seed_are_run"
    ),
    "dense-kd benchmark": "benchmark/test_measuring.py::test_every_part_of_every_config_is_measu",
    "make bench-quick": "benchmark/test_measuring.py::test_every_part_of_every_config_is_measured",
    "make bench-pages": "benchmark/test_measuring.py::test_pages_are_written_with_the_newest_fol",
    "make evidence": "study/test_results.py::test_the_check_names_what_is_not_what_the_results",
    "make gpu-check": "benchmark/test_gpu_check.py::test_checks_and_costs_are_written",
    "pip install .": "test_wheel.py::test_the_wheel_installs_the_console_script",
    "make demo": "demo/test_demo.py::test_the_summary_holds_every_detector",
    "make fuzz": "fuzz/test_fuzz.py::test_no_file_is_read_in_silence",
    "make test-kill": "engine/state/test_killed_runs.py::test_a_run_that_is_killed_ends_bit",
    "make test-matrix": "tools/test_test_matrix.py::test_pytest_runs_and_is_counted",
}
"""{beginning of a command: beginning of the test that runs it, smaller}."""

RUNS_THE_TESTS = {"make env && . .venv/bin/activate", "make env", "make test", "make test-quick"}
RUN_BY_HAND = {"make help", "make docs", "pip install 'dense_kd[efficientnet-lite]'"}

COMMANDS = sorted(
    {
        re.split(r"\s+#|\s*;", line)[0].strip()
        for page in PAGES
        for line in re.findall(r"^    (\S.*)$", page.read_text("utf-8"), flags=re.MULTILINE)
        if line.split()[0] in PROGRAMS
    }
)

IN_SENTENCES = {
    command
    for page in PAGES
    for command in re.findall(r"`(dense-kd [a-z]+ [^`\n|]+)`", page.read_text("utf-8"))
    if not re.search(r"--help|\[|\.\.\.", command)
}
OF_OURS = sorted(
    IN_SENTENCES | {c for c in COMMANDS if c.startswith("dense-kd ") or " -m dense_kd " in c}
)


def test_there_are_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_run_by_a_test(command):
    if command in RUNS_THE_TESTS | RUN_BY_HAND:
        return
    tests = {test for beginning, test in RUN_BY.items() if command.startswith(beginning)}
    if not tests and command in OF_OURS:
        return
    assert len(tests) == 1, f"{command!r} is run by {tests or 'no test'}: see RUN_BY"
    file, _, name = tests.pop().partition("::")
    assert f"\ndef {name}" in (ROOT / "tests" / file).read_text("utf-8")


@pytest.mark.parametrize("command", OF_OURS)
def test_a_command_line_is_one_that_is_taken(command):
    name, *words = shlex.split(re.sub(r"^torchrun .* dense_kd ", "dense-kd ", command))[1:]
    an_option = command in IN_SENTENCES and words[0].startswith("--")  # of a line that is known
    cli.parse_args(name, [*words, "DATA"] if an_option else words)
    configs = [word for word in words if re.fullmatch(r"(?!output/|runs/)[a-z_]+/\w+", word)]
    for config in configs:
        assert find_config(config), config
    overrides = [word for word in words if re.match(r"[a-z_.]+\.\w+=", word)]
    if overrides and configs:
        load_config(str(find_config(configs[0])), overrides)


def test_a_line_with_a_mistake_is_found():
    for line in (
        "dense-kd train bckd/gfl_r101_r50_2x",
        "dense-kd train quickstart/distill --gpus 2",
        "dense-kd train quickstart/distill model.methods.bckd.weight=1",
        "dense-kd teach quickstart/distill",
    ):
        with pytest.raises((AssertionError, SystemExit, DenseKDError, ImportError)):
            test_a_command_line_is_one_that_is_taken(line)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_a_target_of_make_exists(command):
    target = command.split()[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)


def test_no_entry_is_of_a_command_that_is_not_printed():
    for beginning in (*RUN_BY, *RUNS_THE_TESTS, *RUN_BY_HAND):
        assert any(command.startswith(beginning) for command in COMMANDS), beginning


def test_commands_that_need_nothing_run(capsys):
    for command in (c for c in COMMANDS if c.startswith("dense-kd list methods")):
        assert cli.main(shlex.split(command)[1:]) == 0
        assert "BCKD" in capsys.readouterr().out
