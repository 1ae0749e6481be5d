"""``dense-kd report``, from folders to a page."""

import pytest

from dense_kd.cli import main
from helpers.html_pages import Page
from helpers.run_folders import config_of, records, write_run


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        write_run(tmp_path / f"alone/seed{seed}", config_of(seed), records(ap=10.0 + seed))
        config = config_of(seed, optimizer={"lr": 1})
        write_run(tmp_path / f"bckd/seed{seed}", config, records(ap=20.0 + seed))
    return ["alone/seed1", "alone/seed2", "bckd/seed1", "bckd/seed2"]


def test_seeds_are_one_row_and_titles_are_given(folders, tmp_path, capsys):
    titles = [f"{name}={folder}" for name, folder in zip(("A", "A", "B", "B"), folders)]
    options = ["--images", "0", "--title", "B=with a = teacher"]
    assert main(["report", *titles, *options]) == 0
    said = "with a = teacher has 21.5 AP (mean of 2 seeds), A 11.5 (mean of 2 seeds)."
    assert capsys.readouterr().out == f"{said}\nthe page is report.html\n"
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    names = [row[0] for row in page.tables["Metrics"][1:]]
    assert names == ["A", "seed 1", "seed 2", "with a = teacher", "seed 1", "seed 2"]


def test_rows_of_folders_named_by_seeds_have_the_name_of_the_folder_above(folders, tmp_path):
    assert main(["report", *folders, "--output", "to/page.html", "--images", "0"]) == 0
    page = Page((tmp_path / "to/page.html").read_text(encoding="utf-8"))
    assert page.tables["Settings that differ"][0] == ["setting", "alone", "bckd"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nowhere"], "nowhere is not there; expected the folder of a run"),
        (["alone/seed1", "--title", "new"], "--title new: expected NAME=TITLE"),
        (["alone/seed1", "--images", "-1"], "images=-1"),
    ],
)
def test_what_is_wrong_is_said_without_a_traceback(folders, arguments, said, capsys):
    assert main(["report", *arguments]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and "Traceback" not in printed.err and printed.out == ""
