"""Files name what their detectors are built of: nothing else than parts of detectors is built."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from dense_kd import detectors
from dense_kd.checkpoint import CheckpointError
from dense_kd.description import build_described, named
from dense_kd.description.allowed import ALLOWED, name_of, names_of

NOT_ALLOWED = [
    "os.system",
    "builtins.eval",
    "builtins.getattr",
    "subprocess.run",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.warnings.warn",
    "torch.nn.ReLU.__init__",
    "torch.nn.ReLU.__mro__",
    "torch.nn.Module.load_state_dict",
    "torch.nn.ReLU ",
    "functools.partial",
    "omegaconf.OmegaConf.create",
    "detectron2.config.instantiate",
    "detectron2.config.LazyConfig.load",
    "detectron2.utils.registry.locate",
    "detectron2.modeling.build.os.system",
    "detectron2.modeling.build_model",
    "detectron2.modeling.META_ARCH_REGISTRY.get",
    "detectron2.modeling.backbone.resnet.ResNet.__init__.__globals__",
    "detectron2.layers.ShapeSpec.__class__",
    "dense_kd.config.Path",
    "dense_kd.config.get_config",
    "dense_kd.detectors.from_detectron2",
    "dense_kd.detectors.checkpoint.zoo.os.system",
    "dense_kd.detectors.FCOS.load_state_dict",
    "dense_kd.checkpoint.convert_file",
    "dense_kd.checkpoint.replace_atomically",
    "dense_kd.description.build_described",
    "",
    "FCOS",
    "hostile.run",
    None,
    3,
    ["os.system"],
    {"_target_": "dense_kd.description.named", "name": "torch.nn.ReLU"},
]

PLACES = {
    "the model": lambda call: call,
    "an argument": lambda call: {"_target_": "torch.nn.LayerNorm", "normalized_shape": call},
    "an argument in lists and dicts": lambda call: {
        "_target_": "torch.nn.ReLU",
        "inplace": [{"a": [[{"b": call}]]}],
    },
    "an argument that is none": lambda call: {"_target_": "torch.nn.ReLU", "anything": call},
    "no call around it": lambda call: {"a": [call]},
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    mark = tmp_path / "imported"
    (tmp_path / "hostile.py").write_text(f"open({str(mark)!r}, 'w')\ndef run(**_): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    sys.modules.pop("hostile", None)


@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_in_the_table_is_refused_wherever_it_stands(place, hostile):
    for name in NOT_ALLOWED:
        described = PLACES[place]({"_target_": name, "command": "true"})
        with pytest.raises(CheckpointError, match="none of the classes that a file may name"):
            build_described(described, "the model")
    assert not hostile.exists() and "hostile" not in sys.modules


def test_nor_can_it_be_named_as_an_argument(hostile):
    for name in NOT_ALLOWED:
        call = {"_target_": "dense_kd.description.named", "name": name}
        with pytest.raises(CheckpointError):
            build_described({"_target_": "torch.nn.ReLU", "inplace": call}, "the model")
        if isinstance(name, str):
            with pytest.raises(CheckpointError):
                named(name)
    assert not hostile.exists() and "hostile" not in sys.modules


@pytest.mark.parametrize(
    "more",
    [
        {"more": {"os.system": {"_target_": "torch.nn.ReLU"}}},
        {"value": 1},
        {"_target_": "os.system"},
    ],
)
def test_a_name_takes_nothing_beside_itself(more):
    call = {"_target_": "dense_kd.description.named", "name": "os.system", **more}
    with pytest.raises(CheckpointError):
        build_described(call, "the model")


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "a ${b} c", "${oc.create:{_target_:eval}}"])
def test_references_are_refused_since_resolvers_may_do_anything(text):
    for value in (text, [text], {"_target_": "torch.nn.ReLU", "inplace": {"a": text}}):
        with pytest.raises(CheckpointError, match="a reference; expected a value"):
            build_described(value, "the model")


def test_numbers_that_no_tensor_can_hold_are_refused():
    with pytest.raises(CheckpointError, match="a model.x is a whole number of more than 64 bits"):
        build_described({"x": 2**63}, "a model")


@pytest.mark.parametrize("value", [b"bytes", 1j, {1: 2}, {None: 2}, torch.zeros(1), {"a"}, print])
def test_what_is_no_text_number_list_or_dict_is_refused(value):
    for place in (value, [value], {"_target_": "torch.nn.ReLU", "inplace": value}):
        with pytest.raises(CheckpointError, match="expected texts, numbers, lists, and dicts"):
            build_described(place, "the model")


@pytest.mark.parametrize(
    "name", ["detectron2.modeling.meta_arch.retinanet.RetinaNet", "dense_kd.detectors.FCOS"]
)
def test_no_model_is_built_from_a_yacs_config_whose_registries_know_more_names(name):
    cfg = {"MODEL": {"BACKBONE": {"NAME": "build_resnet_backbone"}}}
    with pytest.raises(CheckpointError, match="unexpected keyword argument 'cfg'|missing"):
        build_described({"_target_": name, "cfg": cfg}, "the model")


def test_an_error_says_where_and_what_failed():
    layers = [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.nn.ReLU", "colour": 1}]
    with pytest.raises(CheckpointError) as error:
        build_described({"layers": layers}, "the model in a.pth")
    assert str(error.value).startswith(
        "the model in a.pth.layers[1]: torch.nn.ReLU cannot be built"
    )
    assert "colour" in str(error.value)


def test_the_table_holds_parts_of_detectors_alone():
    roots = "dense_kd.detectors.", "detectron2.modeling.", "detectron2.layers.", "torch.nn.modules."
    others = {name for name, t in ALLOWED.items() if not t.__module__.startswith(roots)}
    assert others == {
        "dense_kd.description.named",
        "detectron2.data.transforms.Resize",
        "detectron2.data.transforms.ResizeShortestEdge",
    }
    functions = {name for name, target in ALLOWED.items() if not isinstance(target, type)}
    assert functions == {
        "dense_kd.description.named",
        "dense_kd.detectors.frozen_batch_norm",
        "detectron2.modeling.backbone.resnet.ResNet.make_stage",
    }


def test_every_public_part_of_a_detector_is_in_it_or_known_not_to_be():
    """A new one is added to the table, unless it reads files or cannot be built by keywords."""
    left_out = {
        "AutoAssignTargets", "DDODTargets", "DenseDetector", "HeadOutputs", "SquareAnchorDetector",
        "from_detectron2", "timm_normalisation",
    }  # fmt: skip
    known = {name.rpartition(".")[2] for name in ALLOWED if name.startswith("dense_kd.detectors.")}
    assert known | left_out == set(detectors.__all__)
    assert not known & left_out


@pytest.mark.parametrize(
    "options",
    [
        {"name": "hf-hub:somebody/something"},
        {"name": "local-dir:/tmp"},
        {"name": "resnet18", "options": {"checkpoint_path": "hostile.pth"}},
        {"name": "resnet18", "options": {"pretrained": True}},
        {"name": "resnet18", "options": {"pretrained_cfg": {"file": "hostile.pth"}}},
        {"name": "resnet18", "options": {"pretrained_cfg_overlay": {"file": "hostile.pth"}}},
    ],
    ids=str,
)
def test_a_network_of_timm_comes_from_no_hub_no_folder_and_with_no_weights(options):
    pytest.importorskip("timm")
    described = {"_target_": "dense_kd.detectors.TimmBackbone", **options}
    with pytest.raises(CheckpointError, match="has no model|weights are for train.init_checkpoint"):
        build_described(described, "the model")


class OwnNorm(nn.BatchNorm2d):
    pass


def test_classes_of_the_user_are_built_where_they_are_allowed():
    described = {
        "norm": {"_target_": "dense_kd.description.named", "name": name_of(OwnNorm)},
        "made": {"_target_": name_of(OwnNorm), "num_features": 3},
    }
    with pytest.raises(CheckpointError, match="OwnNorm"):
        build_described(described, "the model")
    built = build_described(described, "the model", names_of([OwnNorm]))
    assert built["norm"] is OwnNorm and isinstance(built["made"], OwnNorm)
