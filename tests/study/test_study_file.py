"""Studies as files: what they describe, and what is wrong with them."""

from __future__ import annotations

import dataclasses

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate

from dense_kd.study import StudyError, read_study
from dense_kd.study.cells import TEACHER, Cell, method_class
from dense_kd.study.study_file import find_study
from helpers.small_study import CONTENT, dsi_from

OURS = sorted(path.stem for path in find_study("shapes").parent.glob("*.yaml"))


def test_a_block_has_the_cells_of_one_pair_and_seed_and_their_teacher(study_file):
    study = read_study(study_file())
    assert [(block.pair, block.seed) for block in study.blocks] == [("fcos", 1), ("fcos", 2)]
    first = study.blocks[0]
    assert [cell.name for cell in first.cells] == ["fcos/none/1", "fcos/kd/1", "fcos/pgd/1"]
    alone, kd, pgd = first.cells
    assert alone.teacher is None and alone.diagnostics == 0
    assert kd.teacher == pgd.teacher == first.teacher and kd.diagnostics == 1
    assert (first.teacher.method, first.teacher.config) == (TEACHER, "quickstart/teacher")
    assert kd.overrides == first.teacher.overrides == tuple(CONTENT["overrides"])


def test_methods_of_a_pair_without_a_teacher_have_networks_of_their_own(study_file):
    methods = {"none": None, "dsi": {"methods": dsi_from(None)}}
    pair = {"student": "quickstart/student", "methods": methods}
    (block,) = read_study(study_file(pairs={"fcos": pair}, seeds=[1])).blocks
    alone, dsi = block.cells
    assert block.teacher is None and dsi.teacher is None and dsi.diagnostics == 1
    assert Cell.of_json(dsi.as_json(), "here") == dsi
    model = dsi.lazy_config().model
    assert model.teacher is None and [*dict(instantiate(model).kd.named_methods())] == ["dsi"]
    assert model.methods.dsi.teacher.pixel_std[0] == 64.0
    assert dsi.bare_config().model == alone.lazy_config().model


def test_a_cell_is_the_same_when_it_was_written_and_read(study_file):
    for cell in read_study(study_file()).cells():
        assert Cell.of_json(cell.as_json(), "here") == cell


def test_the_config_of_a_cell_has_its_seed_for_weights_and_images_and_its_method(study_file):
    alone, kd, pgd = read_study(study_file()).blocks[1].cells
    for cell in (alone, kd):
        cfg = cell.lazy_config("teacher.pth")
        assert cfg.train.seed == cfg.dataloader.train.seed == 2
        assert cfg.dataloader.test.dataset.names == "study_one"
    assert cfg.model.methods.kd.cls_weight == 1.0 and cfg.model.teacher.weights == "teacher.pth"
    assert "balance" not in kd.lazy_config().model.methods
    balanced = dataclasses.replace(kd, balance={"target": 0.2})
    assert balanced.lazy_config().model.methods.balance == {"target": 0.2}
    assert pgd.lazy_config().model.init_student and not cfg.model.init_student
    assert kd.bare_config().model == alone.lazy_config().model


@pytest.mark.parametrize(
    "entries, message",
    [
        ({"seed": 1}, "seed is no entry; did you mean seeds"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"seeds": 3}, "seeds is 3; expected a list of integers"),
        ({"diagnostics": -1}, "diagnostics is -1"),
        ({"evaluate": "shapes_val"}, "evaluate is 'shapes_val'; expected a list"),
        ({"pairs": {"a/b": {}}}, "a/b.* expected a name of letters"),
        ({"pairs": {"fcos": {"teacher": "a", "methods": {}}}}, "student is missing"),
    ],
)
def test_a_mistake_is_named_with_its_place(study_file, entries, message):
    with pytest.raises(StudyError, match=f"small.yaml: .*{message}"):
        read_study(study_file(**entries))


@pytest.mark.parametrize(
    "method, message",
    [
        ({"method": {"KD": {}}}, "methods.kd.method is no entry; did you mean methods"),
        ({"methods": ["KD"]}, "methods.kd.methods is"),
        ({"init_student": True}, "expected a method beside it"),
        ({"balance": {}}, "methods.kd.balance is .* expected a method beside it"),
        ({"methods": {"KD": {}}, "balance": 0.1}, "expected {option of Balance: value}"),
        ({"methods": {"KD": 3}}, "class of dense_kd.methods: options"),
    ],
)
def test_a_mistake_in_a_method_is_named(study_file, method, message):
    pair = {**CONTENT["pairs"]["fcos"], "methods": {"kd": method}}
    with pytest.raises(StudyError, match=message):
        read_study(study_file(pairs={"fcos": pair}))


def test_a_study_that_does_not_exist_is_an_error_with_those_that_do():
    with pytest.raises(StudyError, match="no study 'shape'.*shapes"):
        read_study("shape")


def test_a_method_or_a_config_that_does_not_exist_is_named(study_file):
    with pytest.raises(StudyError, match="no method 'CrossKd'; did you mean CrossKD"):
        method_class("CrossKd", "here")
    pair = {**CONTENT["pairs"]["fcos"], "student": "quickstart/pupil"}
    (cell, *_) = read_study(study_file(pairs={"fcos": pair})).cells()
    with pytest.raises(StudyError, match="fcos/none/1: there is no config 'quickstart/pupil'"):
        cell.lazy_config()


def test_cells_are_chosen_by_pair_method_and_seed(study_file):
    study = read_study(study_file())

    def names(*only):
        return [cell.name for block in study.chosen(only) for cell in block.cells]

    assert names() == [cell.name for cell in study.cells()]
    assert names("*/kd/*") == ["fcos/kd/1", "fcos/kd/2"]
    assert names("fcos/*/2", "fcos/kd/1") == ["fcos/kd/1", *(f"fcos/{m}/2" for m in ALL)]
    with pytest.raises(StudyError, match="--only fcos/bckd/1: no cell of small.*fcos/kd/1"):
        study.chosen(["*/kd/*", "fcos/bckd/1"])


ALL = tuple(CONTENT["pairs"]["fcos"]["methods"])


def test_tuning_is_the_same_for_all_and_on_other_images_and_seeds_than_the_study():
    tuning, study = read_study("quickstart_tune"), read_study("quickstart")
    assert not {*tuning.evaluate} & {*study.evaluate} and not {*tuning.seeds} & {*study.seeds}
    for block, of_study in zip(tuning.blocks, study.blocks):
        cells = {cell.method: cell for cell in block.cells}
        tried = {
            name for name in cells if name.endswith(("_by_8", "_by_2", "_times_2", "_times_8"))
        }
        tuned = {name.rpartition("_")[0].rpartition("_")[0] for name in tried} - {"lr"}
        assert len(cells) == 5 + 5 * len(tuned)
        of_study_too = set()
        for cell in of_study.cells:
            name, balanced, _ = cell.method.partition("_balanced_")
            if balanced:
                given = cells[f"{name}_times_1"].methods
                for kind, options in cell.methods.items():
                    assert options.items() <= given[kind].items()
                of_study_too.add(name)
        assert tuned == of_study_too


def test_targets_are_tried_on_other_images_and_seeds_and_else_as_in_the_study():
    targets, study = read_study("quickstart_targets"), read_study("quickstart")
    assert not {*targets.evaluate} & {*study.evaluate} and not {*targets.seeds} & {*study.seeds}
    published = {cell.method: cell for cell in study.cells() if cell.pair == "fcos"}
    tried: dict[str, list[float]] = {}
    for cell in targets.cells():
        name, _, target = cell.method.rpartition("_")
        if cell.method != "none":
            assert cell.balance == {"target": int(target) / 100}
            assert cell.methods == published[name].methods
            tried.setdefault(name, []).append(int(target))
    assert len({tuple(values) for values in tried.values()}) == 1


@pytest.mark.parametrize("name", ["quickstart", "bccd"])
def test_the_name_of_a_balanced_cell_has_its_target(name):
    for cell in read_study(name).cells():
        method, balanced, percent = cell.method.partition("_balanced_")
        assert cell.balance == ({"target": int(percent) / 100} if balanced else None)


def test_a_file_that_is_no_cell_is_refused():
    for content in (
        None,
        [],
        {"study": "a"},
        {**Cell("", "", "", 1, "", ()).as_json(), "seed": "1"},
    ):
        with pytest.raises(StudyError, match=r"a\.json is"):
            Cell.of_json(content, "a.json")


@pytest.mark.parametrize("name", OURS)
def test_the_studies_of_the_project_have_configs_and_methods_that_exist(name):
    study = read_study(name)
    seen = set()
    for block in study.blocks[: len(study.pair_titles)]:
        assert block.cells[0].method == "none"
        for cell in block.cells:
            cell.lazy_config()
            for kind, options in cell.methods.items():
                instantiate(L(method_class(kind, cell.name))(**options))
            seen.add(cell.method)
    assert len(seen) > 1
