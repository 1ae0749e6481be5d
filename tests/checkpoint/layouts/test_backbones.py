"""MobileNetV2 and Swin Transformer of mmdetection, timm and Swin's own repository."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import FPN
from torch import Tensor, nn

from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError, convert, convert_mmdet
from dense_kd.detectors import MobileNetV2, SwinTransformer
from helpers.builders import assert_close, fill_randomly

BODY = "backbone.bottom_up."
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STAGES = (1, 2, 3, 4, 3, 3, 1)
CHANNELS = (16, 24, 32, 64, 96, 160, 320)
DEPTHS = (2, 2, 2, 2)
SWIN = {"embed_dim": 8, "depths": DEPTHS, "num_heads": (1, 2, 2, 4), "window_size": 4}


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}


def conv_bn(conv: str, bn: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    norms = {f"{bn}.{kind}": (shape[0],) for kind in NORM[:-1]}
    return {f"{conv}.weight": shape, **norms, f"{bn}.num_batches_tracked": ()}


def mobilenet_blocks():
    """(stage, block, channels in, expanded, out) of MobileNetV2's inverted residuals."""
    width = 32
    for stage, (blocks, channels) in enumerate(zip(STAGES, CHANNELS)):
        for block in range(blocks):
            yield stage, block, width, width * (6 if stage else 1), channels
            width = channels


def mmdet_mobilenet() -> dict[str, Tensor]:
    """With the names of mmdetection's ConvModule and InvertedResidual."""
    shapes = conv_bn("backbone.conv1.conv", "backbone.conv1.bn", (32, 3, 3, 3))
    for stage, block, width, expanded, channels in mobilenet_blocks():
        layers = {"depthwise_conv": (expanded, 1, 3, 3), "linear_conv": (channels, expanded, 1, 1)}
        if stage:
            layers = {"expand_conv": (expanded, width, 1, 1), **layers}
        for name, shape in layers.items():
            place = f"backbone.layer{stage + 1}.{block}.{name}"
            shapes.update(conv_bn(f"{place}.conv", f"{place}.bn", shape))
    shapes.update(conv_bn("backbone.conv2.conv", "backbone.conv2.bn", (1280, 320, 1, 1)))
    return filled(shapes)


def mmcls_mobilenet() -> dict[str, Tensor]:
    """With the names of mmclassification, which counts the convolutions of a block."""
    state = {}
    for key, value in mmdet_mobilenet().items():
        first = ".layer1." in key
        names = ("depthwise_conv", "linear_conv") if first else (
            "expand_conv", "depthwise_conv", "linear_conv",
        )  # fmt: skip
        for index, name in enumerate(names):
            key = key.replace(f".{name}.", f".conv.{index}.")
        state[key] = value
    return {**state, "head.fc.weight": torch.zeros(10, 1280), "head.fc.bias": torch.zeros(10)}


def timm_mobilenet() -> dict[str, Tensor]:
    shapes = conv_bn("conv_stem", "bn1", (32, 3, 3, 3))
    for stage, block, width, expanded, channels in mobilenet_blocks():
        layers = [("conv_dw", (expanded, 1, 3, 3)), ("conv_pwl", (channels, expanded, 1, 1))]
        if stage:
            layers = [("conv_pw", (expanded, width, 1, 1)), *layers]
        else:
            layers[1] = ("conv_pw", layers[1][1])
        for index, (name, shape) in enumerate(layers):
            place = f"blocks.{stage}.{block}"
            shapes.update(conv_bn(f"{place}.{name}", f"{place}.bn{index + 1}", shape))
    shapes.update(conv_bn("conv_head", "bn2", (1280, 320, 1, 1)))
    return filled({**shapes, "classifier.weight": (10, 1280), "classifier.bias": (10,)})


LAYOUTS = {
    "mmdetection": lambda: {"state_dict": mmdet_mobilenet()},
    "mmclassification": lambda: {"state_dict": mmcls_mobilenet()},
    "timm": timm_mobilenet,
    "timm, averaged": lambda: {"state_dict": {"a": torch.zeros(1)}, "state_dict_ema":
                               timm_mobilenet()},
}  # fmt: skip


def of_backbone(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    assert all(key.startswith(BODY) for key in weights)
    return {key[len(BODY) :]: value for key, value in weights.items()}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_tensor_of_mobilenet_has_its_place(layout):
    weights = of_backbone(convert(LAYOUTS[layout](), source=layout).weights)
    expected = {k: v for k, v in MobileNetV2().state_dict().items() if NORM[-1] not in k}
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}


class InvertedResidual(nn.Module):
    """mmdetection's, from the names and shapes of its tensors."""

    def __init__(self, state: dict[str, Tensor], place: str):
        super().__init__()
        self.state, self.place = state, place

    def layer(self, name: str, x: Tensor, stride: int = 1) -> Tensor:
        get = {kind: self.state[f"{self.place}.{name}.bn.{kind}"] for kind in NORM[:-1]}
        weight = self.state[f"{self.place}.{name}.conv.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = nn.functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)
        mean, variance = get.pop("running_mean"), get.pop("running_var")
        return nn.functional.batch_norm(x, mean, variance, **get)

    def forward(self, x: Tensor, stride: int) -> Tensor:
        y = x
        if f"{self.place}.expand_conv.conv.weight" in self.state:
            y = nn.functional.relu6(self.layer("expand_conv", y))
        y = nn.functional.relu6(self.layer("depthwise_conv", y, stride))
        y = self.layer("linear_conv", y)
        return x + y if x.shape == y.shape else y


def test_mobilenet_of_mmdetection_is_the_same_function():
    state = mmdet_mobilenet()
    ours = MobileNetV2().eval()
    ours.load_state_dict(of_backbone(convert_mmdet(state)), strict=False)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    block = InvertedResidual(state, "backbone")
    x, maps = nn.functional.relu6(block.layer("conv1", image, 2)), []
    for stage, number, *_ in mobilenet_blocks():
        stride = 2 if number == 0 and stage in (1, 2, 3, 5) else 1
        x = InvertedResidual(state, f"backbone.layer{stage + 1}.{number}")(x, stride)
        if (stage, number) in ((1, 1), (2, 2), (4, 2)):
            maps.append(x)
    maps.append(nn.functional.relu6(block.layer("conv2", x)))
    with torch.no_grad():
        for name, expected, actual in zip(("res2", "res3", "res4", "res5"), maps,
                                          ours(image).values()):  # fmt: skip
            assert_close(actual, expected, 1e-5, name)


@pytest.mark.parametrize("last_conv", [True, False])
def test_a_last_layer_that_the_neck_does_not_read_is_left_out(last_conv):
    """BCKD's MobileNetV2 gives the 320 channels before it."""
    state = mmdet_mobilenet()
    for index, channels in enumerate((32, 96, 1280 if last_conv else 320)):
        state[f"neck.lateral_convs.{index}.conv.weight"] = torch.zeros(16, channels, 1, 1)
    conversion = convert({"state_dict": state}, source="file")
    names = ["res3", "res4", "res5"]
    ours = FPN(MobileNetV2(last_conv=last_conv, out_features=names), names, 16)
    expected = {
        f"backbone.{key}"
        for key in ours.state_dict()
        if "fpn_output" not in key and not key.endswith(("bias", NORM[-1]))
    }
    assert expected <= set(conversion.weights)
    assert any("features.18." in key for key in conversion.weights) is last_conv
    dropped = [k for k, why in conversion.dropped.items() if "behind the last map" in why]
    assert bool(dropped) is not last_conv


class UnfoldMerging(nn.Module):
    """mmdetection's PatchMerging of even maps, by ``nn.Unfold``."""

    def __init__(self, channels: int):
        super().__init__()
        self.sampler = nn.Unfold(kernel_size=2, stride=2)
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, Hl, Wl, C) to (N, Hl / 2 * Wl / 2, 2C)."""
        x = self.sampler(x.permute(0, 3, 1, 2))  # (N, 4C, Hl / 2 * Wl / 2)
        return self.reduction(self.norm(x.transpose(1, 2)))


def mmdet_swin(model: SwinTransformer) -> dict[str, Tensor]:
    """Tensors with the names that mmdetection gives those of ``model``; merging is its own."""
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split(".")
        if parts[0] != "features":
            state[f"backbone.{key}"] = value
            continue
        index, rest = int(parts[1]), ".".join(parts[2:])
        if index == 0:
            name = rest.replace("0.", "projection.", 1) if rest[0] == "0" else f"norm.{parts[-1]}"
            state[f"backbone.patch_embed.{name}"] = value
        elif index % 2 == 0:
            state[f"backbone.stages.{index // 2 - 1}.downsample.{rest}"] = value
        else:
            block = rest.replace("attn.", "attn.w_msa.")
            block = block.replace("mlp.0.", "ffn.layers.0.0.").replace("mlp.3.", "ffn.layers.1.")
            if key.endswith("relative_position_index"):
                side = int(value.numel() ** 0.5)
                value = value.reshape(side, side)
            state[f"backbone.stages.{index // 2}.blocks.{block}"] = value
    return state


def own_swin(model: SwinTransformer, prefix: str = "") -> dict[str, Tensor]:
    """With the names of Swin's own repository, whose patches are merged as in torchvision."""
    names = {
        "backbone.": prefix, "stages.": "layers.", "w_msa.": "", "projection.": "proj.",
        "ffn.layers.0.0.": "mlp.fc1.", "ffn.layers.1.": "mlp.fc2.",
    }  # fmt: skip
    state = {}
    for key, value in mmdet_swin(model).items():
        for theirs, own in names.items():
            key = key.replace(theirs, own)
        state[key] = value
    return state


def swin(seed: int = 0) -> SwinTransformer:
    model = SwinTransformer(**SWIN).eval()
    fill_randomly(model, seed)
    return model


def test_every_tensor_of_swin_has_its_place():
    model = swin()
    weights = of_backbone(convert_mmdet(mmdet_swin(model)))
    assert set(weights) == set(model.state_dict())
    for key, value in model.state_dict().items():
        assert weights[key].shape == value.shape, key
        if key.split(".")[1] not in ("2", "4", "6"):  # not merging
            assert torch.equal(weights[key], value), key


@pytest.mark.parametrize("channels", [3, 8])
def test_patches_are_merged_as_in_mmdetection(channels):
    theirs = UnfoldMerging(channels)
    fill_randomly(theirs)
    state = {f"backbone.stages.0.downsample.{k}": v for k, v in theirs.state_dict().items()}
    weights = of_backbone(convert_mmdet(state))
    ours = SwinTransformer(**{**SWIN, "embed_dim": channels, "num_heads": (1, 1, 1, 1)})
    merging = ours.features[2]
    merging.load_state_dict({k[len("features.2.") :]: v for k, v in weights.items()})
    x = torch.randn(2, 6, 4, channels, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_close(merging(x).flatten(1, 2), theirs(x), 1e-6, "merged")


@pytest.mark.parametrize("layout", ["repository", "detectors of the repository", "timm"])
def test_swin_of_others_is_the_same_function(layout):
    theirs, ours = swin(seed=1), swin(seed=2)
    if layout == "detectors of the repository":
        content = {"state_dict": own_swin(theirs, "backbone.")}
    else:
        state = {k: v for k, v in own_swin(theirs).items() if not k.startswith("norm")}
        if layout == "timm":  # merges before a stage, and does not save what is constant
            for stage in (2, 1, 0):
                old = f"layers.{stage}.downsample."
                for key in [k for k in state if k.startswith(old)]:
                    state[key.replace(old, f"layers.{stage + 1}.downsample.")] = state.pop(key)
            state = {k: v for k, v in state.items() if "relative_position_index" not in k}
        state.update(
            {"norm.weight": torch.zeros(64), "norm.bias": torch.zeros(64),
             "head.weight": torch.zeros(5, 64), "layers.0.blocks.1.attn_mask": torch.zeros(1)}
        )  # fmt: skip
        content = {"model": state}
    weights = of_backbone(convert(content, source=layout).weights)
    result = ours.load_state_dict(weights, strict=False)
    assert not result.unexpected_keys
    constant = ("norm", "relative_position_index")
    assert all(any(c in key for c in constant) for key in result.missing_keys)
    for stage in range(4):
        getattr(theirs, f"norm{stage}").load_state_dict(getattr(ours, f"norm{stage}").state_dict())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for name, (a, b) in zip(ours(image), zip(ours(image).values(), theirs(image).values())):
            assert torch.equal(a, b), name


def test_a_layer_that_swin_lacks_is_named():
    state = {
        **mmdet_swin(swin()),
        "backbone.stages.0.blocks.0.attn.w_msa.logit_scale": torch.ones(1),
    }
    with pytest.raises(CheckpointError, match="logit_scale"):
        convert_mmdet(state)


def test_a_students_mobilenet_starts_from_timms_classifier(tmp_path):
    path = str(tmp_path / "mobilenetv2_100.pth")
    torch.save(timm_mobilenet(), path)
    names = ["res3", "res4", "res5"]
    model = nn.ModuleDict({"backbone": FPN(MobileNetV2(out_features=names), names, 16)})
    AtomicCheckpointer(model).load(path)
    weights = convert(timm_mobilenet(), source="timm").weights
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())
