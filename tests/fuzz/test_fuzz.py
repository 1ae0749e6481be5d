"""Damaged and hostile files end in an error that names them or in a repair that is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dense_kd.errors import DenseKDError
from fuzz import running
from fuzz.__main__ import main, table
from fuzz.kinds import KINDS
from fuzz.outcomes import SAME, Case, Kind, Violation
from fuzz.running import kinds_of_cases, run_cases

CASES = 200


@pytest.mark.slow
def test_no_file_is_read_in_silence_runs_code_hangs_or_ends_in_an_error_of_another_kind(tmp_path):
    results = [*run_cases(KINDS, 0, range(CASES), tmp_path, tmp_path / "kept")]
    assert len(results) == CASES and {result.kind for result in results} == {*KINDS}
    wrong = [result for result in results if result.violated]
    assert not wrong, "\n" + "\n".join(map(str, wrong))
    print(table(results))


def refuses(shared: None, case: Case) -> str:
    (case.folder / "file").touch()
    raise DenseKDError("file is damaged")


def names_nothing(shared: None, case: Case) -> str:
    (case.folder / "file").touch()
    raise DenseKDError("damaged")


def fails(shared: None, case: Case) -> str:
    case.mutation = "a bit"
    raise KeyError("x")


def runs_code(shared: None, case: Case) -> str:
    (case.folder / running.MARK).touch()
    return SAME


def is_silent(shared: None, case: Case) -> str:
    raise Violation("nothing is said")


def hangs(shared: None, case: Case) -> str:
    while True:
        time.sleep(0.01)


def takes_memory(shared: None, case: Case) -> str:
    try:
        bytes(3 * running.MEMORY)
    except MemoryError as error:
        raise DenseKDError(f"{case.folder} is damaged") from error
    return SAME


def dies(shared: None, case: Case) -> str:
    os._exit(3)


WRONG = {
    refuses: "",
    names_nothing: "names no file: DenseKDError: damaged",
    fails: "KeyError: 'x'",
    runs_code: "runs code of the file",
    is_silent: "nothing is said",
    hangs: "takes more than 20 s, or waits for 1 s",
    takes_memory: "needs more than 1024 MB",
    dies: "ends the process",
    lambda shared, case: SAME: "",
}


def test_what_no_case_may_end_in_is_found_and_its_files_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "WAITING", 1)
    kinds = {f"kind {i}": Kind(run, lambda folder: None) for i, run in enumerate(WRONG)}
    expected = dict(zip(kinds, WRONG.values()))
    kept = tmp_path / "kept"
    results = [*run_cases(kinds, 3, range(len(kinds)), tmp_path, kept)]
    for result in results:
        assert result.violated == bool(expected[result.kind]), result
        assert expected[result.kind] in result.outcome
    assert [result.index for result in results] == [*range(len(kinds))]
    assert {file.name.partition("_case")[0] for file in kept.iterdir()} == {"seed3"}
    assert len([*kept.iterdir()]) == 6  # one has died with its files


def test_a_case_is_the_same_for_the_same_seed_and_another_for_another(tmp_path):
    def draws(shared: None, case: Case) -> str:
        case.mutation = str(case.rng.random())
        return SAME

    kinds = {"a": Kind(draws, lambda folder: None, share=2), "b": Kind(draws, lambda folder: None)}
    assert sorted(kinds_of_cases(kinds, 6)) == ["a", "a", "a", "a", "b", "b"]

    def drawn(seed: int, *indices: int) -> list[str]:
        return [r.mutation for r in run_cases(kinds, seed, indices, tmp_path, tmp_path / "kept")]

    assert drawn(1, 0, 1, 2)[2:] == drawn(1, 2) != drawn(2, 2)


def test_the_command_prints_a_table_and_ends_with_1_after_a_violation(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(KINDS, "bad", Kind(fails, lambda folder: None))
    words = ["--cases", "3", "--seed", "7", "--keep", str(tmp_path), "--kinds"]
    assert main([*words, "bad"]) == 1
    said = capsys.readouterr().out
    assert "case 1 (bad, a bit): KeyError: 'x'" in said and "seed 7: 3 cases, 3 viol" in said
    assert Path(tmp_path, "seed7_case2_bad").is_dir()
    monkeypatch.setitem(KINDS, "good", Kind(lambda shared, case: SAME, lambda folder: None))
    assert main([*words, "good"]) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[:6] == ["good", "0", "0", "3", "0", "0"]
