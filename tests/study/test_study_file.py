"""Studies as files: what they describe, and what is wrong with them."""

from __future__ import annotations

import dataclasses

import pytest
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from omegaconf import OmegaConf

from dense_kd.engine import load_config
from dense_kd.recipes import known_teacher
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
        ({"seeds": [1, -1]}, "seeds is .* expected a list of integers, 0 or more"),
        (
            {
                "pairs": {
                    "a": {
                        "student": "s",
                        "methods": {"none": None},
                        "teacher": {"config": "t", "seed": -1},
                    }
                }
            },
            "teacher.seed is -1",
        ),
        ({"evaluate": ["one", "two", "one"]}, "one or more datasets, each once"),
        ({"evaluate": []}, "one or more datasets"),
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


@pytest.fixture
def own_configs(tmp_path, monkeypatch):
    """Configs beside a study, one of which has the name of a config of the project."""
    monkeypatch.chdir(tmp_path)
    for name, iterations in (("my_configs/student_v1.2", 21), ("quickstart/student", 22)):
        file = tmp_path / f"{name}.py"
        file.parent.mkdir()
        file.write_text(
            "from dense_kd import get_config\n"
            "cfg = get_config('quickstart/student.py')\n"
            "model, dataloader, train = cfg.model, cfg.dataloader, cfg.train\n"
            "optimizer, lr_multiplier = cfg.optimizer, cfg.lr_multiplier\n"
            f"train.max_iter = {iterations}\n"
        )


@pytest.mark.parametrize(
    "config, iterations",
    [
        ("my_configs/student_v1.2", 21),
        ("my_configs/student_v1.2.py", 21),
        ("quickstart/student", 22),
    ],
)
def test_a_config_is_the_file_that_other_commands_take_for_it(own_configs, config, iterations):
    assert load_config(config).train.max_iter == iterations
    student = Cell("small", "fcos", "none", 1, config, ("shapes_val",))
    assert student.lazy_config().train.max_iter == iterations
    teacher = dataclasses.replace(student, method=TEACHER)
    taught = dataclasses.replace(student, method="kd", teacher=teacher, methods={"KD": {}})
    assert taught.lazy_config().train.max_iter == iterations


def test_a_teacher_is_put_beside_a_student_as_run_configs_put_it(study_file):
    (_, kd, _) = read_study(study_file()).blocks[0].cells
    ours, expected = kd.lazy_config("a.pth").model.teacher, known_teacher("quickstart/teacher.py")
    expected.model, expected.weights = ours.model, "a.pth"
    assert [*ours.items()] == [*expected.items()]


@pytest.mark.parametrize(
    "override, instead",
    [
        ("train.seed=7", "seeds"),
        ("dataloader.train.seed=7", "seeds"),
        ("+train.diagnostics.period=5", "diagnostics"),
        ("train.diagnostics={period: 5}", "diagnostics"),
        ("train.output_dir=here", "--output"),
        ("dataloader.test.dataset.names=shapes_tune", "evaluate"),
    ],
)
def test_an_override_of_what_the_study_sets_is_refused_with_what_sets_it(
    study_file, override, instead
):
    pair = CONTENT["pairs"]["fcos"]
    for entries in (
        {"overrides": [override]},
        {"pairs": {"fcos": {**pair, "student": {**STUDENT, "overrides": [override]}}}},
        {"pairs": {"fcos": {**pair, "methods": {"none": {"overrides": [override]}}}}},
    ):
        with pytest.raises(StudyError, match=f"overrides is .*; expected .*{instead}"):
            read_study(study_file(**entries))


def test_nothing_that_a_cell_sets_is_left_to_an_override(study_file):
    """All entries in which a cell's config differs from the one it is of can be no overrides."""
    (_, cell, _) = read_study(study_file(overrides=[])).blocks[1].cells
    before, after = (
        OmegaConf.to_container(cfg, resolve=False)
        for cfg in (load_config(cell.config), cell.bare_config())
    )
    changed = set(differing(before, after))
    assert {"train.seed", "dataloader.test.dataset.names"} <= changed
    for entry in changed - {"train.log_period"}:  # a divisor of what it was
        with pytest.raises(StudyError, match="which sets"):
            read_study(study_file(overrides=[f"{entry}=1"]))


def differing(before, after, place=""):
    for key in {*before, *after}:
        ours, theirs = before.get(key), after.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from differing(ours, theirs, f"{place}{key}.")
        elif ours != theirs:
            yield f"{place}{key}"


STUDENT = {"config": "quickstart/student"}
