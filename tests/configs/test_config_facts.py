"""What configs say of papers, and whether they are what they say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from helpers.configs import FULL_RUNS, ROOT, load
from helpers.paper_rows import BASELINES, ROWS, SWEEPS, Row


def docstring(config: str) -> str:
    """In one line."""
    text = ast.get_docstring(ast.parse((ROOT / f"{config}.py").read_text()))
    return " ".join(text.split())


def cited_tables(text: str, paper: str) -> set[int]:
    """Numbers of the tables of ``paper`` in a text: "BCKD, Table 1", "CrossKD's Tables 1 and 3"."""
    found = re.findall(rf"\b{paper}(?:'s|,)? \(?Tables? (\d(?:(?:, | and )\d\b(?!\.))*)", text)
    return {int(number) for numbers in found for number in re.findall(r"\d", numbers)}


def ids(row: Row) -> str:
    return f"{row.paper} {row.table} {row.config}"


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_a_config_cites_the_table_that_it_is_in_and_its_ap(row: Row):
    text = docstring(row.config)
    assert row.table in cited_tables(text, row.paper), text
    pair = f"{row.before} -> {row.after}"
    assert pair in text or {str(row.before), str(row.after)} <= set(re.findall(r"\d\d\.\d", text))


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_a_row_has_its_teacher_and_options(row: Row):
    cfg = load(f"{row.config}.py")
    config, weights = row.teacher
    assert cfg.model.teacher.weights == weights
    assert cfg.model.teacher.model == load(config).model
    found = OmegaConf.to_container(cfg.model.methods)
    del found["_target_"]
    for options in found.values():
        del options["_target_"]
        for name, value in options.items():
            if isinstance(value, (list, tuple)):
                options[name] = [list(x) if isinstance(x, (list, tuple)) else x for x in value]
    assert found == row.methods


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_a_row_is_in_the_recipe_of_its_student(row: Row):
    cfg = load(f"{row.config}.py")
    assert cfg.dataloader.train.total_batch_size == 16
    clips = {"fcos", "mgd", "fgd"} & {*row.methods, *row.config.split("/")[1].split("_")}
    assert (cfg.train.clip_grad is not None) == bool(clips)
    assert cfg.model.get("init_student", False) == bool({"mgd", "fgd"} & set(row.methods))


def test_a_row_is_in_the_folder_of_its_methods():
    for row in ROWS:
        assert row.config.split("/")[0].split("_") == list(row.methods), row


@pytest.mark.parametrize("config", BASELINES)
def test_a_detector_alone_names_its_ap_in_the_papers(config: str):
    assert f"{BASELINES[config]} AP" in docstring(config) or (
        f"{BASELINES[config]} in the papers" in docstring(config)
    )


@pytest.mark.parametrize("config", SWEEPS)
def test_a_sweep_is_an_override_that_the_docstring_names(config: str):
    table, override, values = SWEEPS[config]
    text = docstring(config)
    numbers = ", ".join(f"{value:g}" for value in values).rsplit(", ", 1)
    results = ", ".join(map(str, values.values())).rsplit(", ", 1)
    assert f"Table {table} has {override}={' and '.join(numbers)}: {' and '.join(results)}" in text
    weight = OmegaConf.select(load(f"{config}.py"), override)
    assert values[weight] == max(values.values())


SOURCES = r"\(zoo: |zoo, |Tables? \d|README|PGD|PKD's own|by its authors|in the papers?\b"


@pytest.mark.parametrize("name", FULL_RUNS)
def test_a_docstring_names_an_ap_and_where_it_is_from_or_that_there_is_none(name: str):
    text = docstring(name.removesuffix(".py"))
    known = re.search(r"\d\d\.\d", text) and re.search(r"\bm?AP\b", text)
    assert re.search(r"\bno AP\b", text) or (known and re.search(SOURCES, text)), text


@pytest.mark.parametrize("name", [name for name in FULL_RUNS if "ld/" in name])
def test_where_the_split_of_a_batch_matters_to_ld_its_config_says_so(name: str):
    options = load(name).model.methods.ld
    sums = options.get("main_weight", 0.25) + options.get("vlr_weight", 0.0625) > 0
    text = docstring(name.removesuffix(".py"))
    assert bool(re.search(r"images (per|of a) process", text)) == sums


def test_bckds_mobilenet_is_that_of_its_code():
    backbone = load("bckd/gfl_r101_mobilenetv2_1x.py").model.student.backbone
    bottom_up = backbone.bottom_up
    assert backbone.top_block.in_channels == 256 and bottom_up.last_conv is False  # 320 channels
    assert bottom_up.negative_slope == 0.1
    assert (bottom_up.norm, bottom_up.freeze_at) == ("BN", 0)


def test_the_swin_teacher_is_in_the_recipe_of_the_r50():
    swin, r50 = (load(f"retinanet/mmdet_{name}_1x.py") for name in ("swin_t", "r50"))
    for part in ("optimizer", "lr_multiplier", "dataloader"):
        assert swin[part] == r50[part]
    assert swin.optimizer._target_ in ("torch.optim.SGD", "torch.optim.sgd.SGD") or (
        swin.optimizer._target_.__name__ == "SGD"
    )


LAST_TABLE = {"BCKD": 6, "CrossKD": 8, "PGD": 7, "TID": 5}


def test_no_table_is_cited_that_a_paper_does_not_have():
    package = ROOT.parent / "projects" / "dense_kd"
    cited = 0
    for path in (*ROOT.rglob("*.py"), *package.rglob("*.py")):
        text = " ".join(path.read_text().split())
        for paper, last in LAST_TABLE.items():
            tables = cited_tables(text, paper)
            cited += len(tables)
            assert tables <= set(range(1, last + 1)), (path, paper, tables)
    assert cited > 50


def parts(path: Path) -> list[str]:
    """The configs of student and teacher, as the source of a distillation names them."""
    source = path.read_text()
    base = re.search(r"^from (\.+)([\w.]+) import .*\bmodel\b", source, re.MULTILINE)
    if "get_config(" in source or base is None:
        return re.findall(r"(?:get_config|known_teacher)\(\"(.*?)\"\)", source)
    folder = path.parents[len(base[1]) - 1]
    return parts(folder / f"{base[2].replace('.', '/')}.py")


PAIRS = {name: parts(ROOT / name) for name in FULL_RUNS}
DISTILLATIONS = {name: pair for name, pair in PAIRS.items() if pair}
ROLES = re.compile(r"\b(student|teacher) of (?:\w+'s Table \d|[A-Z]\w+)(?:(?:, | and )[A-Z]\w+)*")


@pytest.mark.parametrize("name", [name for name in FULL_RUNS if name not in DISTILLATIONS])
def test_a_student_or_teacher_of_a_paper_is_that_in_a_config_of_it(name: str):
    for said in ROLES.finditer(docstring(name.removesuffix(".py"))):
        papers = re.findall(r"[A-Z]\w*[A-Z]\w*", said[0])
        assert papers, said[0]
        for paper in papers:
            users = [
                user
                for user, (student, teacher) in DISTILLATIONS.items()
                if name == (teacher if said[1] == "teacher" else student)
            ]
            texts = [f"{user.upper()} {docstring(user.removesuffix('.py'))}" for user in users]
            assert any(paper.upper() in text for text in texts), (said[0], paper, users)
