"""The page about runs, by its elements."""

import base64
import io
import json
import re

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog
from PIL import Image

from dense_kd.checkpoint import SaveError
from dense_kd.data.shapes import CLASSES, generate_shapes, register_shapes
from dense_kd.diagnostics.errors import DiagnosticsError
from dense_kd.engine.drawn_maps import drawn_maps, save_drawn
from dense_kd.evaluation.analysis import compare
from dense_kd.reporting import ReportError, report_runs, training_maps
from dense_kd.reporting.groups import group_runs
from dense_kd.reporting.report import headline
from dense_kd.reporting.runs import read_runs
from helpers.builders import GOLDEN
from helpers.checked_runs import unregister
from helpers.described import small_run, write_checkpoint
from helpers.html_pages import Page
from helpers.missing_extras import hide
from helpers.run_folders import config_of, records, write_run
from helpers.tried_runs import distillation, write_teacher

HOSTILE = "<b>&\"'$_$"
TRUTH = GOLDEN / "coco_gt.json"
DETECTIONS = json.loads((GOLDEN / "coco_dets.json").read_text())
AP = 21.15043  # of them all, by pycocotools
KD = {"kd_bckd_loss_cls": 0.5, "diag/share_bckd": 0.2, "diag/agreement_p3": 0.9}


@pytest.fixture
def with_curves():
    """For tests that look at curves."""


@pytest.fixture(autouse=True)
def curves_where_looked_at(request, monkeypatch):
    """They take most of the time of a page, and most tests look at other parts of it."""
    if "with_curves" not in request.fixturenames:
        for name in ("curves_as_svg", "diagnostics_as_svg"):
            monkeypatch.setattr(f"dense_kd.reporting.report.{name}", lambda curves: [])


def page_of(tmp_path, *runs, **options):
    output = tmp_path / "pages" / "report.html"
    settings = {"images": 0, "samples": 20, **options}
    sentence = report_runs([str(run) for run in runs], str(output), **settings)
    page = Page(output.read_text(encoding="utf-8"))
    assert page.texts["h1"] == [sentence]
    return page


@pytest.fixture
def seeds(tmp_path):
    for seed, ap in ((1, 20.0), (2, 22.0)):
        write_run(tmp_path / f"alone_{seed}", config_of(seed), records(ap=ap))
    config = config_of(1, optimizer={"lr": 0.5})
    write_run(tmp_path / "bckd", config, records(ap=24.0, terms=KD))
    return [tmp_path / name for name in ("alone_1", "alone_2", "bckd")]


def test_the_headline_and_table_have_means_spreads_and_each_seed(tmp_path, seeds):
    page = page_of(tmp_path, *seeds)
    assert page.texts["h1"] == ["bckd has 24.0 AP, alone 21.0 (mean of 2 seeds)."]
    alone = page.row("Metrics", "alone")
    assert alone["AP"] == "21.0 ± 1.4" and alone["APl"] == "n/a"
    assert (alone["iterations"], alone["minutes"]) == ("40", "0.3")
    assert page.row("Metrics", "seed 2")["AP"] == "22.0"
    assert page.row("Metrics", "bckd")["AP"] == "24.0"
    assert len(page.tables["Metrics"]) == 5


@pytest.mark.parametrize(
    "aps, said",
    [
        ((20.0, 30.0, 10.0), "b has 30.0 AP, a 20.0."),
        ((30.0, 10.0, 20.0), "a has 30.0 AP, c 20.0."),
        ((None, 10.0, 20.0), "c has 20.0 AP, b 10.0."),
        ((20.0,), "a has 20.0 AP."),
        ((None,), "a does not have an AP: nothing was evaluated yet, or nothing detected."),
        ((None, None), "No run has an AP: nothing was evaluated yet, or nothing detected."),
    ],
)
def test_the_headline_has_the_best_and_the_first_or_the_next(tmp_path, aps, said):
    for name, ap in zip("abc", aps):
        write_run(tmp_path / name, config_of(optimizer={"name": name}), records(ap=ap))
    groups = group_runs(read_runs([str(tmp_path / name) for name in "abc"[: len(aps)]]))
    assert headline(groups) == said


def test_runs_that_were_evaluated_as_if_in_integers_are_named(tmp_path):
    for name, is_rounded in (("floats", False), ("rounded", True)):
        train = {**config_of()["train"], "quantization_aware": is_rounded}
        write_run(tmp_path / name, config_of(train=train), records())
    said = "Evaluated as the training computes them, as if in 8-bit integers"
    floats, rounded = tmp_path / "floats", tmp_path / "rounded"
    assert said not in page_of(tmp_path, floats).text
    (lead,) = [t for t in page_of(tmp_path, floats, rounded).texts["p"] if t.startswith(said)]
    assert lead.endswith(": rounded.")


def test_settings_that_differ_stand_in_a_table_and_the_others_are_folded(tmp_path, seeds):
    page = page_of(tmp_path, *seeds)
    assert page.tables["Settings that differ"] == [
        ["setting", "alone", "bckd"],
        ["optimizer.lr", "0.01", "0.5"],
    ]
    common = dict(row for row in page.tables["Settings in common"])
    assert common["model.num_classes"] == "2" and "train.seed" not in common
    assert page.texts["summary"] == [f"Settings in common ({len(common)})", "Folders"]


@pytest.mark.usefixtures("with_curves")
def test_the_page_is_one_file_without_scripts_that_is_read_by_its_structure(tmp_path, seeds):
    page = page_of(tmp_path, *seeds)
    assert not page.all("script") and not page.all("link")
    assert len(page.all("h1")) == 1
    assert {each["scope"] for each in page.all("th")} == {"row", "col"}
    assert len(page.all("figcaption")) == len(page.all("figure")) > 0
    ids = [each["id"] for _, each in page.tags if "id" in each]
    assert len(ids) == len(set(ids))
    # A table is never wider than the page: it scrolls in a box of its own.
    boxes = [each for each in page.all("div") if each.get("class") == "scroll"]
    assert len(boxes) == len(page.all("table"))


@pytest.mark.usefixtures("with_curves")
def test_diagnostics_have_a_section_of_their_own_and_none_where_there_are_none(tmp_path, seeds):
    heading = "Diagnostics of the distillation"
    page = page_of(tmp_path, *seeds)
    assert heading in page.texts["h2"]
    assert {"share", "agreement", "Distillation loss by term"} <= set(page.texts["figcaption"])
    assert "bckd share_bckd" in page.texts["text"]
    assert heading not in page_of(tmp_path, *seeds[:2]).texts["h2"]


@pytest.mark.usefixtures("with_curves")
def test_texts_from_outside_are_shown_as_they_are(tmp_path):
    config = config_of(names=HOSTILE, optimizer={"name": HOSTILE})
    write_run(tmp_path / "a", config, records(terms=KD))
    write_run(tmp_path / "b", config_of(names=HOSTILE), records())
    page = page_of(tmp_path, f"{HOSTILE}={tmp_path / 'a'}", f"_{HOSTILE}={tmp_path / 'b'}")
    assert page.row("Metrics", HOSTILE)["AP"] == "20.0"
    assert page.tables["Settings that differ"][0] == ["setting", HOSTILE, f"_{HOSTILE}"]
    assert page.row("Settings that differ", "optimizer.name")[HOSTILE] == repr(HOSTILE)
    assert {HOSTILE, f"_{HOSTILE}"} <= {text.strip() for text in page.texts["text"]}
    assert not page.all("b") and HOSTILE in page.texts["h1"][0]


def test_maps_are_drawn_of_distillations_on_the_first_image_of_the_report(tmp_path):
    generate_shapes(tmp_path / "shapes", "val", 2, image_size=(64, 64))
    register_shapes("mapped_val", tmp_path / "shapes", "val")
    names = "dataloader.test.dataset.names=mapped_val"
    narrow = "model.student.head.conv_dims=[32,32]"
    try:
        teacher = write_teacher(tmp_path / "teacher.pth")
        cfg = distillation(teacher, tmp_path / "bckd", names, narrow)
        write_run(tmp_path / "alone")
        for name in ("bckd", "gone"):
            folder = write_run(tmp_path / name, finished=False)
            LazyConfig.save(cfg, str(folder / "config.yaml"))
        cfg.model.teacher = None
        LazyConfig.save(cfg, str(write_run(tmp_path / "network") / "config.yaml"))
        student = instantiate(cfg.model.student)
        torch.save({"model": student.state_dict()}, tmp_path / "bckd" / "model_final.pth")
        runs = [f"{name}={tmp_path / name}" for name in ("alone", "bckd", "gone", "network")]
        page = page_of(tmp_path, *runs, figures=["bckd", "crosskd"])
        first = DatasetCatalog.get("mapped_val")[0]["file_name"].rpartition("/")[2]
    finally:
        unregister("mapped_val")
    assert "Teacher and student, place by place" in page.texts["h2"]
    assert "Maps of bckd" in page.texts["summary"]
    assert "gone has no maps: it has no weights." in page.texts["p"]
    assert "network has no maps: no detector is its teacher." in page.texts["p"]
    assert any(
        text.startswith(f"{first}, crosskd: it is without the cross-head")
        for text in page.texts["p"]
    )
    titles = ["BCKD, Figure 3: errors of the class score sums", "CrossKD, Figure 2: largest class"]
    for caption, title in zip(page.texts["figcaption"], titles):
        assert caption.startswith(title) and caption.endswith(f"({first})")
    assert all(int(image["width"]) > 500 for image in page.all("img"))


def test_maps_that_a_run_has_drawn_are_shown_from_first_to_last_as_they_are(tmp_path):
    folder = write_run(tmp_path / "a")
    assert "Maps drawn while training" not in page_of(tmp_path, folder).texts["h2"]
    for iteration in (99, 199, 1299):
        for figure in ("bckd", "tid"):
            picture = Image.new("RGB", (iteration // 10, 4))
            save_drawn(folder, iteration, HOSTILE, figure, picture)
    last, broken = (each.path for each in drawn_maps(folder)[-2:])
    broken.write_bytes(b"no picture")
    page = page_of(tmp_path, folder)
    assert "Maps drawn while training" in page.texts["h2"]
    assert "Maps of a while it trained" in page.texts["summary"]
    assert page.texts["figcaption"] == [
        f"bckd after 100 iterations ({HOSTILE})",
        f"bckd after 1300 iterations ({HOSTILE})",
        f"tid after 100 iterations ({HOSTILE})",
    ]
    sources = [image["src"].partition(",")[2] for image in page.all("img")]
    with Image.open(io.BytesIO(base64.b64decode(sources[1]))) as shown, Image.open(last) as drawn:
        assert shown.size == (129, 4) and shown.quantization == drawn.quantization
    assert any(text.startswith(f"{broken} cannot be read: ") for text in page.texts["p"])
    assert f"2 more are in {folder / 'training_maps'}." in page.texts["p"]


def test_pictures_of_a_run_are_bounded_in_number_and_in_bytes(tmp_path, monkeypatch):
    folder = write_run(tmp_path / "a")
    for image in ("a", "b", "c"):
        save_drawn(folder, 99, image, "bckd", Image.new("RGB", (8, 8)))
    monkeypatch.setattr(training_maps, "MOST_PICTURES", 2)
    assert len(page_of(tmp_path, folder).all("img")) == 2
    first, second, _ = (each.path for each in drawn_maps(folder))
    monkeypatch.setattr(training_maps, "MOST_BYTES", second.stat().st_size)
    first.write_bytes(first.read_bytes() + b"more")
    page = page_of(tmp_path, folder)
    assert page.texts["figcaption"] == ["bckd after 100 iterations (b)"]
    assert f"2 more are in {folder / 'training_maps'}." in page.texts["p"]


def test_figures_that_there_are_not_and_runs_without_a_teacher_are_said(tmp_path):
    write_run(tmp_path / "a")
    with pytest.raises(DiagnosticsError, match="figures 'gradcam': expected one or more of bckd"):
        page_of(tmp_path, tmp_path / "a", figures=["gradcam"])
    page = page_of(tmp_path, tmp_path / "a", figures=["bckd"])
    assert "No run is a distillation, so there is no teacher to draw maps of." in page.texts["p"]


def test_a_killed_run_is_shown_with_what_it_has_and_marked(tmp_path):
    write_run(tmp_path / "a")
    config = config_of(optimizer={})
    write_run(tmp_path / "b", config, records(20, ap=None), finished=False)
    page = page_of(tmp_path, tmp_path / "a", tmp_path / "b")
    row = page.row("Metrics", "b (unfinished, 20 of 40 iterations)")
    assert (row["AP"], row["iterations"], row["parameters"]) == ("n/a", "20", "n/a")
    assert "Not finished, and shown with what is there: b (unfinished, 20 of 40" in page.text


def test_a_killed_seed_is_not_in_the_mean(tmp_path):
    write_run(tmp_path / "a1", config_of(1), records(ap=20.0))
    write_run(tmp_path / "a2", config_of(2), records(20, ap=1.0), finished=False)
    page = page_of(tmp_path, tmp_path / "a1", tmp_path / "a2")
    assert page.row("Metrics", "a")["AP"] == "20.0"
    name = "seed 2 (unfinished, 20 of 40 iterations, not in the mean)"
    assert page.row("Metrics", name)["AP"] == "1.0"


def analysed(tmp_path, name, kept=1, seed=1, **entries):
    kept = DETECTIONS[::kept]
    return write_run(tmp_path / name, config_of(seed, **entries), records(ap=AP), detections=kept)


def test_differences_to_the_first_run_have_the_intervals_of_the_bootstrap(tmp_path, monkeypatch):
    pytest.importorskip("hotcoco")
    samples = []
    monkeypatch.setattr(
        "dense_kd.reporting.evidence.compare",
        lambda *args, **kw: samples.append(kw["samples"]) or compare(*args, **kw),
    )
    runs = [analysed(tmp_path, f"all_{seed}", seed=seed) for seed in (1, 2)]
    runs += [analysed(tmp_path, "same", seed=2, optimizer={}),
             analysed(tmp_path, "few", kept=4, seed=3, optimizer={"lr": 1})]  # fmt: skip
    page = page_of(tmp_path, *runs, annotations=str(TRUTH), samples=30)
    assert samples == [30, 30]
    name = "same − all, seed 2"  # the same seed
    assert page.row("Differences to the first run", name)["AP"] == "+0.0 (+0.0 to +0.0)"
    few = page.row("Differences to the first run", "few − all, seed 1")["AP"]
    value, low, high = map(float, re.fullmatch(r"(\S+) \((\S+) to (\S+)\) \*", few).groups())
    assert low <= value <= high < 0
    assert page.row("Error types", "all")["Cls"] == "7.8"  # tidecv's number, too
    assert page.row("Error types", "all")["FalseNeg"] == "21.5"
    assert float(page.row("Error types", "few")["ECE"]) > 0
    assert "few: " in page.text and "is of another evaluation" in page.text
    assert "same: " not in page.text


def test_runs_without_detections_or_annotations_say_what_to_do(tmp_path, seeds):
    pytest.importorskip("hotcoco")
    page = page_of(tmp_path, *seeds)
    assert "annotations of some_val are is not known here; give them with --annot" in page.text
    page = page_of(tmp_path, *seeds, annotations=str(TRUTH))
    assert f"dataloader.evaluator.output_dir={seeds[0]}` writes them" in page.text
    assert "Error types" not in page.tables


def test_without_the_optional_package_the_page_names_the_extra(tmp_path, seeds, monkeypatch):
    hide("hotcoco", monkeypatch)
    page = page_of(tmp_path, *seeds, annotations=str(TRUTH))
    (warning,) = (text for text in page.texts["p"] if text.startswith("Intervals"))
    assert "pip install 'dense_kd[evaluation]'" in warning
    assert "Error types" not in page.tables and "Metrics" in page.tables


def test_runs_of_different_datasets_are_not_compared_and_both_are_named(tmp_path):
    write_run(tmp_path / "a", config_of(names="cells_val"), records(ap=20.0))
    write_run(tmp_path / "b", config_of(names="streets_val"), records(ap=60.0))
    page = page_of(tmp_path, tmp_path / "a", tmp_path / "b")
    assert page.texts["h1"] == ["a has 20.0 AP."]
    assert "b was evaluated on streets_val, a on cells_val" in page.text
    assert page.row("Metrics", "b")["evaluated on"] == "streets_val"
    assert "Differences to the first run" not in page.tables


@pytest.fixture
def pictured(tmp_path):
    """A run with weights, and three images with objects of its classes."""
    truth = generate_shapes(tmp_path / "shapes", "val", 3, image_size=(48, 64))
    folder = write_run(tmp_path / "run", config_of(names="elsewhere_val"))
    write_checkpoint(folder / "model_final.pth", small_run(), class_names=[*CLASSES])
    return folder, {"annotations": truth, "image_root": str(tmp_path / "shapes" / "val")}


def test_pictures_show_the_truth_and_each_run(tmp_path, pictured):
    folder, places = pictured
    page = page_of(tmp_path, folder, images=2, **places)
    texts = [each["alt"] for each in page.all("img")]
    assert [re.sub(r"\d+", "#", text.partition(":")[0]) for text in texts] == [
        "#.png, truth",
        "#.png, run",
    ] * 2
    assert re.fullmatch(r"\d\.\d\d M", page.row("Metrics", "run")["parameters"])
    write_checkpoint(folder / "model_final.pth", small_run())  # which does not name its classes
    assert len(page_of(tmp_path, folder, images=1, **places).all("img")) == 2
    assert page_of(tmp_path, folder, images=0, **places).all("img") == []


@pytest.mark.parametrize(
    "broken, said",
    [
        ("weights", "run is left out: "),
        ("images", "There are no pictures: the image"),
        ("root", "There are no pictures: the folder of the images of elsewhere_val"),
        ("classes", "run is left out: its classes are"),
    ],
)
def test_a_page_without_pictures_says_why(tmp_path, pictured, broken, said):
    folder, places = pictured
    if broken == "weights":
        (folder / "model_final.pth").write_bytes(b"nothing")
    if broken == "images":
        places["image_root"] = str(tmp_path)
    if broken == "root":
        places["image_root"] = None
    if broken == "classes":
        content = json.loads(open(places["annotations"]).read())
        content["categories"][0]["name"] = HOSTILE
        (tmp_path / "renamed.json").write_text(json.dumps(content))
        places["annotations"] = str(tmp_path / "renamed.json")
    page = page_of(tmp_path, folder, images=1, **places)
    assert said in page.text and not page.all("img")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"images": -1}, "images=-1: expected a whole number"),
        ({"samples": 0}, "samples=0: expected a whole number of at least 1"),
        ({"titles": {"none": "x"}}, "no row 'none'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, options, said):
    write_run(tmp_path / "a")
    with pytest.raises(ReportError, match=said):
        page_of(tmp_path, tmp_path / "a", **options)


def test_there_must_be_a_run_and_a_file_to_write(tmp_path):
    with pytest.raises(ReportError, match="no run to report on"):
        report_runs([], str(tmp_path / "a.html"))
    with pytest.raises(SaveError, match="is a folder, expected a file"):
        report_runs([str(write_run(tmp_path / "a"))], str(tmp_path))


def test_a_report_is_written_anew_and_no_other_page_is_replaced(tmp_path):
    run, page = str(write_run(tmp_path / "a")), tmp_path / "page.html"
    page.touch()
    for _ in range(2):
        report_runs([run], str(page), images=0)
    page.write_text("<html><head><title>Mine</title></head></html>")
    with pytest.raises(ReportError, match="page.html is there already, and is no report of runs"):
        report_runs([run], str(page), images=0)
    assert "Mine" in page.read_text()
