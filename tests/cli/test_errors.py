"""``dense-kd errors``, from files to tables and pictures."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from dense_kd.cli import main
from dense_kd.cli.errors import titled
from helpers.builders import GOLDEN

TRUTH, RESULTS = str(GOLDEN / "coco_gt.json"), str(GOLDEN / "coco_dets.json")
EXPECTED = json.loads((GOLDEN / "coco_expected.json").read_text())


@pytest.fixture
def some(tmp_path) -> str:
    """Results without those that score less than 0.4."""
    kept = [each for each in json.loads((GOLDEN / "coco_dets.json").read_text())
            if each["score"] > 0.4]  # fmt: skip
    (tmp_path / "some.json").write_text(json.dumps(kept))
    return str(tmp_path / "some.json")


def test_it_prints_tables_and_writes_numbers_and_a_picture(some, tmp_path, capsys):
    pytest.importorskip("hotcoco")
    written = [str(tmp_path / "out" / "errors.json"), str(tmp_path / "pictures" / "e.png")]
    (tmp_path / "out").mkdir()
    options = ["--samples", "50", "--json", written[0], "--plot", written[1]]
    assert main(["errors", TRUTH, f"all={RESULTS}", f"some={some}", *options]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^all +21.2 +42.1 +18.2 ", printed, re.MULTILINE)
    assert re.search(r"^all +7.8 +26.5 +2.5 +0.7 +1.4 +6.8 +19.8 +21.5$", printed, re.MULTILINE)
    assert re.search(r"^AP +-1\.\d \(-\d\.\d to \+?-?0\.\d\)$", printed, re.MULTILINE)
    assert "nan" not in printed
    content = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert [*content["runs"]] == ["all", "some"] and [*content["differences"]] == ["some"]
    found = content["runs"]["all"]["error_types"]["main"]
    assert found == pytest.approx(EXPECTED["tide_0.5"]["main"], abs=1e-3)
    width, height = Image.open(written[1]).size
    assert (width, height) == (1800, 480)


def test_predictions_are_scored_by_the_names_of_their_images(tmp_path, capsys):
    pytest.importorskip("hotcoco")
    content = json.loads((GOLDEN / "coco_gt.json").read_text())
    content["annotations"] = [each for each in content["annotations"] if not each["iscrowd"]]
    for image in content["images"]:
        image["file_name"] = f"{999 - image['id']:03}.png"
    (tmp_path / "val.json").write_text(json.dumps(content))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    numbers = {name: number for number, name in enumerate(sorted(names.values()), start=1)}
    assert not numbers.keys() <= {names.get(number) for number in numbers.values()}
    found = [
        {"image_id": numbers[names[each["image_id"]]], "file_name": f"w/{names[each['image_id']]}",
         "category_id": each["category_id"], "bbox": each["bbox"], "score": 0.9}
        for each in content["annotations"]
    ]  # fmt: skip
    (tmp_path / "predictions.json").write_text(json.dumps(found))
    given = ["errors", str(tmp_path / "val.json"), str(tmp_path / "predictions.json")]
    assert main(given) == 0
    assert "100.0" in capsys.readouterr().out.splitlines()[2].split()[1:3]
    found[-1]["file_name"] = "w/other.png"
    (tmp_path / "predictions.json").write_text(json.dumps(found))
    assert main(given) == 1
    assert "predictions.json: w/other.png is not in the annotations" in capsys.readouterr().err


def test_one_run_has_no_differences(capsys):
    pytest.importorskip("hotcoco")
    assert main(["errors", TRUTH, RESULTS, "--iou", "0.75"]) == 0
    printed = capsys.readouterr().out
    assert "errors at 0.75" in printed and "difference" not in printed


def test_titles_are_given_or_those_of_folders_and_differ(tmp_path):
    file = tmp_path / "run a" / "x=1.json"
    file.parent.mkdir()
    file.write_text("[]")
    assert titled(["mine=b.json", str(file), str(file), "c.json"]) == {
        "mine": "b.json", "run a": str(file), "run a'": str(file), "c": "c.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([str(GOLDEN / "none.json"), RESULTS], "none.json cannot be read as annotations of COCO"),
        ([RESULTS, RESULTS], "coco_dets.json cannot be read as annotations of COCO"),
        ([TRUTH, TRUTH], "coco_gt.json: expected a list of detections"),
        ([TRUTH, RESULTS, "--iou", "0.3"], "iou=0.3: expected 0.5"),
        ([TRUTH, RESULTS, RESULTS, "--samples", "0"], "samples=0, confidence=0.95: expected"),
        ([TRUTH, RESULTS, "--plot", "e.gif"], "e.gif: expected a name that ends with one of"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_printed(arguments, said, capsys):
    pytest.importorskip("hotcoco")
    assert main(["errors", *arguments]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.out == "" and "Traceback" not in printed.err
