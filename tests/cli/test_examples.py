"""The examples in the help of every command work as printed."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from dense_kd import cli
from dense_kd.config import find_config

SMALLER = {
    "train": ["train.max_iter=2", "dataloader.train.total_batch_size=2", "--progress", "bar"],
    "check": ["train.overwrite=True", "--images=1", "--steps=1"],
    "distill": ["--dry-run"],
    "study": [],
    "eval": [],
    "benchmark": ["--device=cpu", "--rounds=1", "--warmup=0", "--what=times"],
    "report": ["--images=1", "--samples=20"],
    "errors": [],
    "diagnose": ["--images", "2"],
    "maps": [],
    "replay": [],
    "predict": [],
    "label": [],
    "export": [],
    "convert": [],
    "list": [],
    "data": [],
}
"""What makes the examples of a command cheap, given in addition."""

COSTLY = {
    "dense-kd train quickstart/student --num-gpus 2": (
        "tools/test_lazyconfig_train_net.py::test_the_console_script_starts_two_processes_on_the_cpu"
    ),
    "dense-kd train bckd/gfl_r101_r50_1x --num-gpus 8": (
        "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_evaluated"
    ),
    "dense-kd check bckd/gfl_r101_r50_1x --num-gpus 8": (
        "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_evaluated"
    ),
    "dense-kd distill photos --student gfl_r18": "pipeline/test_layouts.py::test_the_readmes",
    "dense-kd distill photos --dry-run": "pipeline/test_plan.py::test_a_dry_run_says_every_number",
    "dense-kd distill photos --unlabelled": (
        "pipeline/test_unlabelled.py::test_the_plan_says_which_images_there_are"
    ),
    "dense-kd distill photos --num-gpus 8": "pipeline/test_run.py::test_two_processes_train_too",
    "dense-kd study quickstart --dry-run": (
        "study/test_study_file.py::test_the_studies_of_the_project"
    ),
    "dense-kd study ": "study/test_running.py::test_what_is_there_is_not_trained_again",
    "dense-kd eval gfl/r101_2x_ms --num-gpus 8": (
        "tools/test_coco_recipe.py::test_a_recipe_is_checked_trained_and_evaluated"
    ),
    "dense-kd benchmark quickstart/distill --size": (
        "cli/test_benchmark.py::test_images_boxes_and_classes_are_those_that_are_asked_for"
    ),
    "dense-kd benchmark bckd/gfl_r101_r50_1x": "benchmark/test_measuring.py::test_every_part_of",
    "dense-kd benchmark train.amp.enabled=True": (
        "benchmark/test_gpu_check.py::test_checks_and_costs_are_written"
    ),
    "dense-kd benchmark quickstart/distill quickstart/distill": (
        "benchmark/test_measuring.py::test_every_part_of_every_config_is_measured"
    ),
    "dense-kd report runs/alone_1": "cli/test_report.py::test_seeds_are_one_row_and_titles",
    "dense-kd report output/distill/photos": "pipeline/test_run.py::test_the_folder_is_reported_on",
    "dense-kd errors instances_val.json": "cli/test_errors.py::test_it_prints_tables_and_writes",
    "dense-kd diagnose crosskd/gfl_r101_r50_1x --teacher": (
        "cli/test_diagnose.py::test_further_teachers_are_configs_or_checkpoints"
    ),
    "dense-kd diagnose quickstart/distill --what distances": (
        "cli/test_diagnose.py::test_distances_are_read_from_the_run_of_the_config_and_others"
    ),
    "dense-kd maps quickstart/distill --images photos": (
        "cli/test_maps.py::test_another_student_is_compared_and_the_same_one_is_no_different"
    ),
    "dense-kd export output/quickstart/bckd --to onnx": (
        "export/test_folder.py::test_an_onnx_folder_detects_without_torch_what_the_predictor_detects"
    ),
    "dense-kd export output/quickstart/bckd/model_final.pth --to torchscript": (
        "export/test_folder.py::test_a_torchscript_folder_detects_what_the_predictor_detects"
    ),
    "dense-kd export output/bccd/gfl_r18 --to onnx --int8": (
        "export/test_int8.py::test_both_precisions_are_evaluated_and_the_integers_are"
    ),
    "dense-kd export output/bccd/gfl_r18 --to mmdet": (
        "export/test_folder.py::test_weights_go_under_mmdetections_keys"
    ),
    "dense-kd replay ": "cli/test_replay.py::test_a_step_fails_as_it_did_to_the_last_digit",
    "dense-kd predict mmdet://gfl_r50_fpn_1x_coco": (
        "cli/test_predict.py::test_a_published_detector_is_run_by_its_name"
    ),
    "dense-kd label output/quickstart/teacher/model_final.pth photos --calibrate": (
        "cli/test_label.py::test_the_score_is_that_of_the_largest_f1_on_labelled_images"
    ),
    "dense-kd label output/quickstart/teacher/model_final.pth --calibrate": (
        "cli/test_label.py::test_the_score_is_that_of_the_largest_f1_on_labelled_images"
    ),
    "dense-kd convert mmdet://gfl_r50_fpn_1x_coco": (
        "checkpoint/test_zoo.py::test_a_named_file_can_be_converted_by_hand"
    ),
    "dense-kd data bccd": "data/test_bccd.py::test_it_is_fetched_once_and_registered",
    "dense-kd data shapes": "data/test_bccd.py::test_shapes_are_drawn_where_their_configs_look",
}
"""{beginning of an example that is only parsed here: beginning of the test that runs its like}"""

EXAMPLES = [example for name in cli.COMMANDS for example in cli.load_command(name).EXAMPLES]


def words_of(example: str) -> list[str]:
    program, *words = shlex.split(example, comments=True)
    assert program == "dense-kd"
    return words


def is_costly(example: str) -> bool:
    return any(example.startswith(beginning) for beginning in COSTLY)


def test_every_command_has_a_line_of_help_and_examples():
    for name in cli.COMMANDS:
        command = cli.load_command(name)
        assert command.HELP and "\n" not in command.HELP and len(command.HELP) <= 66
        assert command.EXAMPLES, f"{name} has no examples"
        for example in command.EXAMPLES:
            assert words_of(example)[0] == name and len(f"  {example}") <= 100


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_parsed_and_names_configs_that_exist(example):
    name, *words = words_of(example)
    cli.parse_args(name, words)
    folders = ("bckd/", "crosskd/", "gfl/", "quickstart/")
    for word in words:
        if word.startswith(folders) and "*" not in word:
            assert find_config(word), word


def test_what_is_said_to_be_costly_is_an_example_and_is_run_elsewhere():
    for beginning, test in COSTLY.items():
        assert any(example.startswith(beginning) for example in EXAMPLES), beginning
        file, _, name = test.partition("::")
        assert f"\ndef {name}" in (Path(__file__).parents[1] / file).read_text("utf-8"), test


@pytest.mark.slow
def test_the_examples_run_one_after_the_other(workspace, capsys):
    assert cli.main(["train", "quickstart/teacher", *SMALLER["train"]]) == 0
    for example in EXAMPLES:
        if is_costly(example) or ("--errors" in example and not find_spec("hotcoco")):
            continue
        name, *words = words_of(example)
        extra = SMALLER[name]
        if "--resume" not in words and any(word.startswith("quickstart/") for word in words):
            extra = [*extra, *(["train.overwrite=True"] if name == "train" else [])]
        assert cli.main([name, *words, *extra]) == 0, example
    bars, log = capsys.readouterr().err, (workspace / "output/quickstart/bckd/log.txt").read_text()
    assert "| 2/2" in bars and "total_loss " in bars
    assert "kd_bckd_loss_loc: " in log
