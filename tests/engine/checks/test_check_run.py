"""Mistakes in a config are found before anything is loaded, all at once, with what to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from dense_kd.engine import RunError, loaders
from dense_kd.engine.building import build, build_model
from dense_kd.engine.loaders import load_training
from helpers.checked_runs import load, problems

MISTAKES = {
    # Names that nothing reads, and what was meant.
    "trian.max_iter=5": "mean train",
    "dataloader.tran.num_workers=1": "mean train",
    "dataloader.train.num_worker=1": "mean num_workers",
    "train.amp.enable=true": "mean enabled",
    "train.clip_grad.maxnorm=5": "mean max_norm",
    "train.ddp.find_unused_parameter=true": "mean find_unused_parameters",
    "train.checkpointer.perod=3": "mean period",
    "optimizer.lrr=1": "mean lr",
    "optimizer.params.weight_decay_nrom=0": "mean weight_decay_norm",
    "lr_multiplier.warmup_lenght=0.1": "mean warmup_length",
    "model.num_class=5": "mean num_classes",
    "model.head.nrom=GN": "mean norm",
    "dataloader.train.mapper.augmentations.3.prob=1": "a list of 1",
    "dataloader.train.mapper.augmentations.0.probb=1": "mean prob",
    "max_iter=5": "mean train.max_iter",
    "lr=5": "mean optimizer.lr",
    "train.max_iter": "with =",
    "--resum": "unknown option",
    "~train.max_iter": "with =",
    "train.max_iter=1,2": "several values",
    "train.output_dir=a(b": "quotes",
    "train.max_iter.x=1": "has no entries",
    # Values of a wrong type, sign or kind.
    "train.max_iter=ten": "max_iter='ten': expected a whole number of at least 1",
    "train.max_iter=0": "expected a whole number of at least 1",
    "train.max_iter=-5": "expected a whole number of at least 1",
    "train.max_iter=1.5": "expected a whole number of at least 1",
    "train.max_iter=1e4": "10000 without a point",
    "train.max_iter=null": "expected a whole number",
    "train.max_iter=true": "expected a whole number",
    "train.max_iter=[5]": "expected a whole number",
    "train.log_period=0": "expected a whole number of at least 1",
    "train.diagnostics=100": "train.diagnostics.period=",
    "train.diagnostics.perod=100": "mean period",
    "train.diagnostics.period=-1": "diagnostics.period=-1: expected a whole number of at least 0",
    "train.diagnostics.period=0.5": "0 measures nothing",
    "train.diagnostics.period=100": "student and teacher, and model is a FCOS; leave it at 0",
    "train.maps=5": "train.maps.period=",
    "train.maps.peroid=5": "mean period",
    "train.maps.period=-1": "maps.period=-1: expected a whole number of at least 0",
    "train.maps.images=0": "maps.images=0: expected a whole number of at least 1",
    "train.maps.figures=[bckd,gradcam]": "some of bckd, crosskd, gradients, pgd, tid, each once",
    "train.maps.figures=[bckd,bckd]": "some of bckd, crosskd, gradients, pgd, tid, each once",
    "train.maps.figures=bckd": "some of bckd, crosskd, gradients, pgd, tid, each once",
    "train.maps.figures=[]": "some of bckd, crosskd, gradients, pgd, tid, each once",
    "train.maps.period=100": "maps are of student and teacher, and model is a FCOS; leave it at 0",
    "train.eval_period=-1": "0 evaluates at the end only",
    "train.checkpointer.period=0": "expected a whole number of at least 1",
    "train.checkpointer.max_to_keep=0": "at least 1, or null",
    "train.checkpointer=100": "expected entries",
    "train.accumulate=0": "batches per iteration",
    "train.normalize=images": "one of batch, iteration",
    "train.seed=x": "-1 (which draws one)",
    "train.seed=null": "-1 (which draws one)",
    "train.clip_grad=10": "train.clip_grad.max_norm=",
    "train.clip_grad.max_norm=-1": "expected a number above 0",
    "train.clip_grad.norm_type=two": "expected a number above 0",
    "train.amp=true": "train.amp.enabled=",
    "train.amp.enabled=yess": "true or false",
    "train.amp.dtype=fp16": "one of float16, bfloat16",
    "train.amp.enabled=true": "train.amp.dtype=bfloat16",
    "train.device=gpu0": "expected cuda, cuda:1 or cpu",
    "train.device=meta": "nothing is computed",
    "train.output_dir=''": "expected a folder",
    "train.output_dir=/proc/none/x": "nothing can be written",
    "train.init_checkpoint=5": "expected a text",
    "train.init_checkpoint=/none/x.pth": "does not exist",
    "train.init_checkpoint=torchvision://resnet5": "mean resnet50",
    "train.init_checkpoint=torchvison://resnet50": "mean torchvision",
    "dataloader.train.total_batch_size=0": "expected a whole number of at least 1",
    "dataloader.train.total_batch_size=2.5": "expected a whole number of at least 1",
    "dataloader.train.num_workers=-1": "expected a whole number of at least 0",
    "dataloader.test.num_workers=two": "expected a whole number of at least 0",
    "optimizer.lr=-1": "optimizer",
    "optimizer.lr=nan": "NaN",
    "optimizer.lr=inf": "finite number",
    "optimizer.lr=high": "expects a number",
    "optimizer.weight_decay=-1": "optimizer",
    "lr_multiplier.warmup_length=long": "lr_multiplier",
    "model.num_classes=ten": "expected a whole number",
    "model.num_classes=0": "expected a whole number of at least 1",
    "model.test_score_thresh=nan": "NaN",
    "model.clip_before_nms=flase": "true or false",
    "dataloader.train.dataset.filter_empty=flase": "true or false",
    "train.seed=99999999999": "to 4294967000",
    "lr_multiplier.warmup_length=500": "a share of the run",
    "model.head.conv_dims=64": "expects a list",
    "model.pixel_std=[1,1]": "one for each channel",
    "model.pixel_std=[0,1,1]": "expected numbers above 0",
    "model.test_nms_thresh=2": "from 0 to 1",
    "model.test_score_thresh=-1": "from 0 to 1",
    "model.test_topk_candidates=0": "at least 1",
    "model.max_detections_per_image=-3": "at least 1",
    "model.distribution_loss_weight=-1": "at least 0",
    "model.backbone=null": "FCOS expects Backbone, not null",
    "model.head=null": "FCOS expects FCOSHead, not null",
    "optimizer.params.overrides=5": "expects entries",
    "dataloader.train.dataset.names=[]": "names=[]: expected the name",
    "dataloader.train.dataset.names=null": "names=None: expected the name",
    "dataloader.train.dataset.names=[checked_train,5]": "names=['checked_train', 5]: expected",
    "dataloader.test.mapper.image_format=BRG": "mean RGB or BGR",
    "dataloader.evaluator.output_dir=5": "expected a folder",
    "dataloader.evaluator=COCOEvaluator": "expected a LazyCall",
    f"model.pixel_std={10**400}": "expects",
    f"model.num_classes={2**63}": "expected a whole number",
    f"lr_multiplier.warmup_length={10**400}": "lr_multiplier",
    "dataloader.train.dataset.names=5": "names=5: expected the name",
    "dataloader.train='x'": "dataloader.train='x': expected a LazyCall",
    "model._target_=5": "_target_=5: expected the dotted name",
    "model.head._target_=${nothing}": "_target_: ${nothing} refers to nothing",
    "train.clip_grad=${nothing}": "train.clip_grad: ${nothing} refers to nothing",
    "model.pixel_mean.1=${nothing}": "model.pixel_mean.1: ${nothing} refers to nothing",
    "model.head.conv_dims.0=???": "conv_dims.0 has no value yet",
    # Parts that are gone.
    "model=null": "no 'model'",
    "optimizer=null": "no 'optimizer'",
    "dataloader=5": "expected entries",
    "train=null": "no 'train'",
    "dataloader.train=null": "dataloader has no train",
    "dataloader.test=null": "has an evaluator and no test",
    "model._target_=dense_kd.detectors.FKOS": "can be imported",
    # Data and its evaluation.
    "dataloader.train.dataset.names=checked_trian": "mean checked_train",
    "dataloader.test.dataset.names=checked_vall": "mean checked_val",
    "dataloader.train.dataset.names=[checked_train,coco_2017_trian]": "mean coco_2017_train",
    "dataloader.train.dataset.names=voc_2007_trainval": "DETECTRON2_DATASETS",
    "dataloader.test.dataset.names=coco_2017_val": "num_classes=80",
    "dataloader.evaluator.dataset_name=checked_train": "one name for both",
    "dataloader.evaluator.dataset_name=nothing": "no such dataset",
    "dataloader.evaluator.tasks=[bbox,segm]": "boxes only",
    "dataloader.test.mapper.image_format=RGB": "one format",
}


def test_a_run_that_is_right_passes_in_less_than_two_seconds():
    start = time.monotonic()
    assert problems() == []
    assert problems("train.eval_period=3", "train.clip_grad=null", "optimizer.foreach=false") == []
    assert problems("train.clip_grad.norm_type=inf", "model.test_nms_thresh=0.5") == []
    assert problems("dataloader.train.mapper.augmentations.0.prob=0.2") == []
    assert time.monotonic() - start < 8


def test_a_method_can_be_added_by_an_override():
    method = "model.methods.pkd"
    more = [
        f"{method}._target_=dense_kd.PKD",
        f"{method}.weight=2",
        f"model.teacher.weights={__file__}",
    ]
    assert problems(*more, config="quickstart/distill.py") == []
    with pytest.raises(RunError, match="did you mean weight"):
        load(*more, f"{method}.wieght=2", config="quickstart/distill.py")


def test_what_a_constructor_trips_over_is_named_with_its_call():
    cfg = load("model.head.norm=BNN")
    assert problems("model.head.norm=BNN") == []
    with pytest.raises(RunError, match="model cannot be built: FCOSHead fails with KeyError"):
        build(cfg.model, "model")
    with pytest.raises(RunError, match="Distiller fails with TypeError: methods is"):
        build(load("model.methods=null", config="quickstart/distill.py").model, "model")


def test_any_error_of_a_constructor_is_named_with_its_call():
    class Overflows:
        def __init__(self) -> None:
            raise OverflowError("too large")

    with pytest.raises(
        RunError, match="a part cannot be built: .*Overflows fails with OverflowError"
    ):
        build(L(Overflows)(), "a part")
    cfg = load()
    cfg.model = L(Path)()
    with pytest.raises(RunError, match="model is built as a PosixPath; expected a torch module"):
        build_model(cfg)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [("augmentations.0", 1, "DatasetMapper fails"), ("augmentations.0.horizontal", False, "horiz")],
)
def test_an_augmentation_that_cannot_be_is_named(path, value, message):
    cfg = load(f"dataloader.train.mapper.{path}={value}")
    with pytest.raises(RunError, match=f"dataloader.train.mapper cannot be built: .*{message}"):
        load_training(cfg)


@pytest.mark.parametrize("part", ["train", "test"])
def test_images_that_would_be_resized_to_nothing_are_named(part, monkeypatch):
    read = loaders.instantiate

    def with_thin(node, *args, **options):
        made = read(node, *args, **options)
        return [{**made[0], "width": 2000, "height": 1}] * 3 if isinstance(made, list) else made

    monkeypatch.setattr(loaders, "instantiate", with_thin)
    cfg = load()
    resize = L(T.ResizeShortestEdge)(short_edge_length=[64, 96], max_size=160)
    cfg.dataloader[part].mapper.augmentations = [L(T.RandomFlip)(), resize]
    made = "of 2000 x 1 pixels and 2 more would be resized to a side of 0 pixels; leave"
    with pytest.raises(RunError, match=rf"\(dataloader.{part}\): the image .* {made}"):
        load_training(cfg) if part == "train" else loaders.load_evaluation(cfg, "train")


def test_a_dataset_that_is_no_call_is_named():
    cfg = load()
    del cfg.dataloader.train.dataset._target_
    with pytest.raises(RunError, match="dataloader.train.dataset is no LazyCall"):
        load_training(cfg)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_what_to_do(mistake):
    try:
        found = problems(mistake)
    except RunError as error:
        found = error.problems
    assert found, mistake
    assert MISTAKES[mistake] in " ".join(found)


def test_a_test_set_without_a_name_is_said_once():
    for names in ("[]", "null"):
        (found,) = problems(f"dataloader.test.dataset.names={names}")
        assert found.startswith("dataloader.test.dataset.names=")


def test_all_mistakes_come_in_one_message():
    with pytest.raises(RunError) as refused:
        load("trian.max_iter=5", "train.amp.enable=true", "model.num_class=3")
    assert [p.split("=")[0] for p in refused.value.problems] == [
        "trian.max_iter", "train.amp.enable", "model.num_class",
    ]  # fmt: skip
    found = problems(
        "train.max_iter=0", "train.device=gpu", "optimizer.lr=-1", "train.log_period=0"
    )
    assert len(found) == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.methods.balance.target=2", "target=2: expected a number between 0 and 1"),
        ("model.methods.balance.targt=0.2", "balance has no option targt; there is target"),
        ("model.methods.balance=0.2", "balance=0.2: expected Balance(...) or its options"),
        ("model.methods.balance.target={a: 0.2}", "a share of each of the methods ['bckd']"),
    ],
)
def test_what_sets_the_weights_of_methods_is_built_before_the_run_is(override, message):
    def about_methods(override: str) -> list[str]:
        found = problems(override, config="quickstart/distill.py")
        return [problem for problem in found if problem.startswith("model.methods")]

    [found] = about_methods(override)
    assert found.startswith("model.methods: ") and message in found
    assert about_methods("model.methods.balance.target=0.2") == []


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("output/quickstart/teacher/model_final.pth", "`dense-kd train quickstart/teacher` makes"),
        ("./output/bccd/gfl_lite2/model_final.pth", "`dense-kd train bccd/gfl_lite2` makes it"),
        ("output/bccd/of_my_own/model_final.pth", None),
        ("output/bccd/gfl_lite2/model_0000099.pth", None),
        ("bccd/gfl_lite2/model_final.pth", None),
        ("model_final.pth", None),
        ("output", None),
    ],
)
def test_a_file_that_a_config_of_the_project_writes_comes_with_the_command(
    tmp_path, monkeypatch, weights, expected
):
    given = f"model.teacher.weights={weights}"
    monkeypatch.chdir(tmp_path)
    (problem,) = (p for p in problems(given, config="quickstart/distill.py") if given in p)
    assert expected in problem if expected else "dense-kd train" not in problem


def test_configs_write_to_a_folder_of_their_name():
    for name in (
        "quickstart/teacher",
        "quickstart/gfl_teacher",
        "bccd/gfl_lite2",
        "bccd/fcos_lite2",
    ):
        assert load(config=f"{name}.py").train.output_dir == f"output/{name}"
