"""Results of cells: which can be compared, and the page that is written from them."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import xml.etree.ElementTree as ET

import pytest

from dense_kd.study import StudyError, read_study
from dense_kd.study.evidence import headline, write_evidence
from dense_kd.study.results import (
    check_block,
    check_here,
    keep,
    keep_failure,
    read_cell,
    read_folder,
    read_study_folder,
    read_teachers,
    surroundings,
)
from helpers.scripts import load_tool
from helpers.small_study import CONTENT, result_of


@pytest.fixture
def study(study_file):
    return read_study(study_file())


def results_of(block, **entries):
    return {
        cell.name: result_of(cell, 20.0 + place, **entries)
        for place, cell in enumerate(block.cells)
    }


def test_cells_of_one_block_can_be_compared(study):
    check_block(results_of(study.blocks[0]))
    check_block({})


@pytest.mark.parametrize(
    "what, entries",
    [
        ("code", {"code": "4567"}),
        ("versions", {"versions": {"torch": "2.1"}}),
        ("cpu", {"machine": {"cpu": "another", "gpu": None}}),
        ("threads", {"threads": 2}),
        ("images", {"seen": "others"}),
        ("teacher", {"teacher": "another"}),
        ("initial weights", {"initial": {"all": "z", "backbone": "b"}}),
        ("initial backbone", {"initial": {"all": "a", "backbone": "z"}}),
    ],
)
def test_a_cell_that_differs_in_more_than_its_method_is_refused(study, what, entries):
    results = results_of(study.blocks[0])
    cells = {cell.name: cell for cell in study.blocks[0].cells}
    two = {**results, "fcos/kd/1": result_of(cells["fcos/kd/1"], 21.0, **entries)}
    with pytest.raises(StudyError, match=f"are of one block, but differ in {what}"):
        check_block(two)


def test_a_block_that_was_begun_elsewhere_is_refused_before_a_cell_is_trained(study):
    results = results_of(study.blocks[0])
    here = surroundings(results["fcos/none/1"])
    check_here(results, here, "7eac4e20")
    check_here({}, {})
    with pytest.raises(StudyError, match="fcos/none/1 and a cell that is trained here.*in cpu"):
        check_here(results, {**here, "cpu": "another"})
    with pytest.raises(StudyError, match="differ in teacher: '7eac4e20' and 'another'"):
        check_here(results, here, "another")


def test_a_cell_that_inherits_or_is_trained_longer_may_differ_in_that(study):
    results = results_of(study.blocks[0])
    results["fcos/none/1"] |= {"iterations": 3, "seen": "more"}
    assert results["fcos/pgd/1"]["initial"]["all"] != results["fcos/kd/1"]["initial"]["all"]
    check_block(results)


def test_results_are_kept_by_name_and_teachers_by_their_weights(study, tmp_path):
    block = study.blocks[0]
    for result in results_of(block).values():
        keep(tmp_path, result)
    keep(tmp_path, result_of(block.teacher, 40.0))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("fcos-kd-1.json", "fcos-none-1.json", "fcos-pgd-1.json", "fcos-teacher-7eac4e20.json")
    ]
    assert read_folder(tmp_path) == results_of(block)
    keep(tmp_path, result_of(block.teacher, 40.0, date="later"))  # of the block that it was for
    teachers = read_teachers(tmp_path)
    assert [(each["weights"], each["date"] == "later") for each in teachers] == [
        ("7eac4e20", False)
    ]


def test_a_file_that_is_no_result_or_has_another_name_is_refused(study, tmp_path):
    file = keep(tmp_path, result_of(study.blocks[0].cells[0], 20.0))
    file.rename(tmp_path / "fcos-kd-1.json")
    with pytest.raises(StudyError, match="result of fcos/none/1; expected fcos-none-1.json"):
        read_folder(tmp_path)
    content = json.loads((tmp_path / "fcos-kd-1.json").read_text())
    for wrong, message in (({"format": 9}, "the format 9"), ({"cell": 1}, "is 1; expected a cell")):
        file.write_text(json.dumps({**content, **wrong}))
        with pytest.raises(StudyError, match=message):
            read_cell(file)
    file.write_text("{")
    with pytest.raises(StudyError, match="is no result of a study's cell: format, cell"):
        read_cell(file)


@pytest.fixture
def evidence(study_file, tmp_path, monkeypatch):
    """A page of five cells of six: KD gains exactly 2 twice, PGD has one seed."""
    name = study_file()
    monkeypatch.setattr("dense_kd.study.evidence.page.read_study", lambda folder: read_study(name))
    folder = tmp_path / "results" / "small"
    study = read_study(name)
    keep(folder, result_of(study.blocks[0].teacher, 40.0))
    for block, aps in zip(study.blocks, ((20.0, 22.0, 19.0), (21.0, 23.5))):
        slow = 1 if block.seed == 1 else 3  # another machine
        for cell, ap in zip(block.cells, aps):
            seconds = slow * (60.0 if cell.teacher is None else 90.0)
            keep(folder, result_of(cell, ap, cpu_seconds=seconds))
    write_evidence(tmp_path / "results", tmp_path / "page")
    return tmp_path


def row(page, name):
    line = re.search(rf"^\| {name} \|.*$", page, flags=re.MULTILINE)[0]
    return [cell.strip() for cell in line.strip("|").split("|")]


def change_ap(file, ap):
    content = json.loads(file.read_text())
    content["metrics"]["pooled"]["AP"] = ap
    file.write_text(json.dumps(content))


def test_the_page_has_means_paired_differences_and_intervals(evidence):
    page = (evidence / "page" / "results.md").read_text()
    assert (
        "5 of 6 cells (0123456789; a processor, threads: 1; dense_kd 0.1.0, torch 2.12.1)" in page
    )
    assert "AP of the teacher: 40.0." in page
    assert row(page, "none") == ["none", "1, 2", "20.5", "40.5", "", "", "", "", "1.00"]
    # 2 and 2.5: mean 2.25, s = 0.3536, t = 12.706
    interval = "+2.2 (-0.9 to +5.4)"
    assert row(page, "kd") == [
        "kd",
        "1, 2",
        "22.8",
        "42.8",
        interval,
        "not shown",
        "",
        "0.25",
        "1.50",
    ]
    assert row(page, "pgd")[:6] == ["pgd", "1", "19.0", "39.0", "-1.0", "not shown"]
    assert row(page, "pgd")[-1] == "1.50"  # as in its own block, whose machine was the quick one
    assert "Methods with an interval: 1." in page and "0.0 of them" in page
    assert row(page, r"none \(itself\)")[2] == "8.0"  # points of errors of place
    assert "![Gains of fcos](images/small_fcos_gains.svg)" in page


ABOUT = {"date": "2026-12-01T12:00:00+00:00", "commit": None, "machine": {"cpu": "a processor"}}


def test_a_training_that_failed_is_on_the_page_by_its_seed(evidence, study):
    results = evidence / "results" / "small"
    keep_failure(results, study.blocks[1].cells[2], "losses are not finite", ABOUT)
    keep_failure(results, study.blocks[0].teacher, "losses are not finite", ABOUT)
    write_evidence(evidence / "results", evidence / "page")
    page = (evidence / "page" / "results.md").read_text()
    assert row(page, "pgd")[:3] == ["pgd", "1; failed: seed 2", "19.0"]
    assert "torch 2.12.1), and 2 trainings that failed." in page
    assert "The training of the teacher failed." in page
    keep(results, result_of(study.blocks[1].cells[2], 20.0))
    write_evidence(evidence / "results", evidence / "page")
    assert row((evidence / "page" / "results.md").read_text(), "pgd")[1] == "1, 2"


def test_a_study_whose_first_training_failed_is_on_the_page(tmp_path, study, monkeypatch):
    monkeypatch.setattr("dense_kd.study.evidence.page.read_study", lambda folder: study)
    failure = keep_failure(tmp_path / "small", study.blocks[0].cells[0], "no memory", ABOUT)
    write_evidence(tmp_path, tmp_path / "page")
    page = (tmp_path / "page" / "results.md").read_text()
    assert row(page, "none")[1] == "failed: seed 1" and row(page, "kd")[1] == "missing"
    failure.write_text("{}")
    with pytest.raises(StudyError, match="fcos-none-1.json is no failure of a cell: format"):
        write_evidence(tmp_path, tmp_path / "page")


def test_a_student_that_found_nothing_is_named_where_it_cannot_be_counted(evidence, study):
    nothing = dict.fromkeys(("per_class", "error_types", "calibration"))
    zero = {"pooled": {"AP": 0.0, "AP50": 0.0}}
    collapsed = result_of(study.blocks[0].cells[2], 0.0, **nothing, metrics=zero)
    keep(evidence / "results" / "small", collapsed)
    write_evidence(evidence / "results", evidence / "page")
    page = (evidence / "page" / "results.md").read_text()
    assert row(page, "pgd")[2] == "0.0"
    assert "Without these seeds, which found nothing in any image: pgd (seed 1)." in page


def test_methods_with_an_interval_are_those_that_share_two_seeds_with_the_student_alone(
    evidence, study
):
    keep(evidence / "results" / "small", result_of(study.blocks[1].cells[2], 20.0))
    (evidence / "results" / "small" / "fcos-none-2.json").unlink()
    write_evidence(evidence / "results", evidence / "page")
    page = (evidence / "page" / "results.md").read_text()
    assert row(page, "kd")[1] == "1, 2" and "Methods with an interval" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overrides": ["train.max_iter=300"]}, "of a cell with other overrides than small"),
        ({"methods": {"KD": {"cls_weight": 50.0}}}, "of a cell with other methods than small"),
        ({"study": "mine"}, "of a cell with other study than small"),
        ({"seed": 9}, "of fcos/kd/9, which is no cell of small; keep the file in another folder"),
        ({"pair": "gfl"}, "of gfl/kd/1, which is no cell"),
    ],
)
def test_the_page_has_results_of_cells_of_its_study_alone(evidence, study, change, message):
    results = evidence / "results" / "small"
    before = (evidence / "page" / "results.md").read_text()
    result = result_of(study.blocks[0].cells[1], 50.0)
    (results / "fcos-kd-1.json").unlink()
    keep(results, {**result, "cell": {**result["cell"], **change}})
    with pytest.raises(StudyError, match=message):
        write_evidence(evidence / "results", evidence / "page")
    assert (evidence / "page" / "results.md").read_text() == before


@pytest.mark.parametrize("failed", [False, True])
def test_a_teacher_of_another_recipe_is_not_one_of_the_study(study, tmp_path, failed):
    teacher = dataclasses.replace(study.blocks[0].teacher, overrides=())
    if failed:
        keep_failure(tmp_path, teacher, "no memory", ABOUT)
    else:
        keep(tmp_path, result_of(teacher, 40.0))
    with pytest.raises(StudyError, match="fcos-teacher-.*json is of a cell with other overrides"):
        read_study_folder(study, tmp_path)


def test_without_any_result_the_page_says_so(tmp_path):
    write_evidence(tmp_path / "nothing", tmp_path)
    assert (tmp_path / "results.md").read_text().endswith("No cell has been trained yet.\n")


def test_the_projects_page_is_what_its_results_give(capsys):
    assert load_tool("evidence").main(["--check"]) == 0, capsys.readouterr().out


def test_a_cell_that_was_not_trained_is_missing(evidence):
    for file in (evidence / "results" / "small").glob("fcos-pgd-*"):
        file.unlink()
    write_evidence(evidence / "results", evidence / "page")
    page = (evidence / "page" / "results.md").read_text()
    assert row(page, "pgd")[:3] == ["pgd", "missing", ""]


def test_a_clear_difference_is_bold(evidence):
    change_ap(evidence / "results" / "small" / "fcos-kd-2.json", 23.0)  # 2 and 2
    write_evidence(evidence / "results", evidence / "page")
    page = (evidence / "page" / "results.md").read_text()
    assert row(page, "kd")[4:6] == ["**+2.0 (+2.0 to +2.0)**", "gain"]


def test_the_headline_has_the_pairs_with_an_interval_and_says_which_seeds_are_missing(evidence):
    text = headline(evidence / "results")
    assert row(text, "student alone") == ["student alone", "20.5"]
    assert row(text, "seeds") == ["seeds", "1, 2"] and row(text, "teacher") == ["teacher", "40.0"]
    assert row(text, "best of all")[1] == "`kd` 22.8, +2.2 (-0.9 to +5.4)"
    assert "PGD" not in text  # of one seed
    (evidence / "results" / "small" / "fcos-none-2.json").unlink()
    assert headline(evidence / "results") == "No pair has two seeds yet."


def test_the_headline_leaves_out_a_pair_whose_teacher_is_no_detector(evidence):
    (file,) = (evidence / "results" / "small").glob("fcos-teacher-*.json")
    file.unlink()
    assert headline(evidence / "results") == "No pair has two seeds yet."


def test_balanced_weights_are_compared_with_the_same_method_as_published(
    study_file, tmp_path, monkeypatch
):
    pair = copy.deepcopy(CONTENT["pairs"]["fcos"])
    kd = pair["methods"]["kd"]
    pair["methods"] |= {"kd_set": {**kd, "balance": {}}, "other_set": {**pair["methods"]["pgd"]}}
    study = read_study(study_file(pairs={"fcos": pair}))
    monkeypatch.setattr("dense_kd.study.evidence.page.read_study", lambda folder: study)
    balanced = {"balance_shares": {"kd": 0.16}, "factors": {"kd": 0.031}}
    for block in study.blocks:
        for cell in block.cells:
            set_itself = cell.method == "kd_set"
            result = result_of(cell, 23.0 if set_itself else 22.0, **balanced if set_itself else {})
            keep(tmp_path / "results" / "small", result)
    write_evidence(tmp_path / "results", tmp_path / "page")
    table = (tmp_path / "page" / "results.md").read_text().split("Weights that set themselves")[1]
    assert row(table, "kd_set") == [
        *("kd_set", "1, 2", "22.0", "23.0", "**+1.0 (+1.0 to +1.0)**", "gain", "0.16", "0.031")
    ]
    assert "other_set" not in table
    (tmp_path / "results" / "small" / "fcos-kd_set-2.json").unlink()
    change_ap(tmp_path / "results" / "small" / "fcos-kd-2.json", 50.0)  # of no seed that both have
    write_evidence(tmp_path / "results", tmp_path / "page")
    table = (tmp_path / "page" / "results.md").read_text().split("Weights that set themselves")[1]
    assert row(table, "kd_set")[:5] == ["kd_set", "1", "22.0", "23.0", "+1.0"]


def test_the_check_names_what_is_not_what_the_results_give(evidence):
    results, page = evidence / "results", evidence / "page"
    assert write_evidence(results, page, check=True) == []
    figure = page / "images" / "small_fcos_gains.svg"
    figure.write_text(figure.read_text().replace("kd", "ld"))
    other = page / "images" / "gone_fcos_gains.svg"
    other.write_text("<svg/>")
    assert write_evidence(results, page, check=True) == [figure, other] and other.exists()
    assert write_evidence(results, page) == [figure, other] and not other.exists()
    assert write_evidence(results, page, check=True) == []


def test_figures_are_whole_and_have_what_they_show(evidence):
    figures = {file.stem: file for file in (evidence / "page" / "images").iterdir()}
    names = ("gains", "time", "curves", "shares")
    assert set(figures) == {f"small_fcos_{name}" for name in names}
    for name in names:
        root = ET.parse(figures[f"small_fcos_{name}"]).getroot()
        texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "kd" in texts and ("none" in texts) == (name in ("time", "curves"))
