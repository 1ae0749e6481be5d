"""FGD against its original implementation, by hand, and in its edge cases."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from dense_kd import FGD, DistillationError
from dense_kd.methods.fgd import ContextBlock, attention, focal_losses, masks_of_levels
from helpers.builders import assert_close, batch, golden, golden_config, instances, tiny_fcos
from helpers.feature_cases import adapted, distill, feature_pass, feature_step

DATA = golden("fgd")
CASES = ("same", "align")
TERMS = {
    "loss_fg": "fg_loss",
    "loss_bg": "bg_loss",
    "loss_attention": "mask_loss",
    "loss_relation": "rela_loss",
}

# Ten times what was measured: 1.5e-8, 1.2e-7 and 3.6e-7.
MASK_NOISE, LOSS_NOISE, GRADIENT_NOISE = 2e-7, 2e-6, 4e-6


class Reference:
    """A case of the original implementation: features, ground truth, and our method with its
    parameters."""

    def __init__(self, case: str):
        data = {k[len(case) + 1 :]: v for k, v in DATA.items() if k.startswith(case)}
        self.student, self.teacher = data["S"].requires_grad_(), data["T"].requires_grad_()
        hyper = golden_config("fgd", f"{case}/hyper")
        self.weights = {
            "fg_weight": hyper["alpha_fgd"],
            "bg_weight": hyper["beta_fgd"],
            "attention_weight": hyper["gamma_fgd"],
            "relation_weight": hyper["lambda_fgd"],
        }
        self.temperature = hyper["temp"]
        self.sizes = [tuple(DATA[f"img{i}/img_shape"].tolist()) for i in range(2)]
        self.truth: list[Instances] = []
        for i in range(2):
            boxes = data[f"img{i}/gt_bboxes"].tolist()
            self.truth.append(instances(self.sizes[i], boxes, [0] * len(boxes)))
        self.method = FGD(temperature=self.temperature, **self.weights)
        adapted(self.method, self.student.shape[1], 1, self.teacher.shape[1])
        self.method.load_state_dict(state_of(data), strict=True)

    def losses(self) -> dict[str, Tensor]:
        passes = [feature_pass([x], self.sizes) for x in (self.student, self.teacher)]
        return self.method(*passes, feature_step(self.truth))


def object_masks(truth, sizes, feature, stride=None) -> tuple[Tensor, Tensor]:
    """Foreground and background of a single level, (N, Hl, Wl) both."""
    masks = masks_of_levels(truth, sizes, [feature], None if stride is None else [stride])
    return tuple(mask.view(-1, *feature.shape[-2:]) for mask in masks)


def attention_of(feature: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(N, Hl, Wl) and (N, C), of a map."""
    cells, channels = attention([[feature]], temperature)
    return cells[0].view(-1, *feature.shape[-2:]), channels[0, 0]


def state_of(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of the original under our names."""
    names = {"align": "adapters.0"}
    for side in ("student", "teacher"):
        names[f"conv_mask_{side[0]}"] = f"{side}_context.0.attention"
        names[f"channel_add_conv_{side[0]}"] = f"{side}_context.0.transform"
    state = {}
    for key, value in data.items():
        if key.startswith("param/"):
            module, rest = key[len("param/") :].split(".", 1)
            state[f"{names[module]}.{rest}"] = value
    return state


@pytest.mark.parametrize("case", CASES)
def test_the_masks_equal_the_original_implementation(case: str):
    reference = Reference(case)
    # The map is that of the whole padded batch.
    assert (DATA["batch_input_shape"] % torch.tensor(reference.student.shape[2:]) == 0).all()
    masks = object_masks(reference.truth, reference.sizes, reference.student)
    for mask, name in zip(masks, ("mask_fg", "mask_bg")):
        assert_close(mask, DATA[f"{case}/{name}"], MASK_NOISE, name)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("term", TERMS)
def test_every_term_equals_the_original_implementation(case: str, term: str):
    reference = Reference(case)
    weight = reference.weights[f"{term[len('loss_') :]}_weight"]
    expected = DATA[f"{case}/{TERMS[term]}"]
    assert_close(reference.losses()[term] / weight, expected, LOSS_NOISE)


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_equal_the_original_implementation(case: str):
    reference = Reference(case)
    loss = sum(reference.losses().values())
    assert_close(loss, DATA[f"{case}/loss"], LOSS_NOISE)
    loss.backward()
    assert_close(reference.student.grad, DATA[f"{case}/grad_S"], GRADIENT_NOISE)
    assert reference.teacher.grad is None
    for name, parameter in reference.method.named_parameters():
        # One bias is added to all logits of a softmax, which changes nothing.
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("attention.bias"), name


def test_the_focal_loss_of_the_reference_page():
    def sequence(factor, phase, amplitude, offset):
        index = torch.arange(120, dtype=torch.float64)
        return (offset + amplitude * torch.sin(factor * index + phase)).reshape(2, 3, 4, 5)

    student, teacher = sequence(0.37, 0.1, 2, 0.5), sequence(0.53, 0.8, 1.5, -0.2)
    size = (48, 64)
    truth = [instances(size, [box], [0]) for box in ([5, 3, 50, 30], [20, 10, 45, 44])]
    masks = [m.double() for m in object_masks(truth, [size] * 2, student)]
    terms = focal_losses(student, teacher, *masks, temperature=0.5)
    loss = 1e-3 * terms["loss_fg"] + 5e-4 * terms["loss_bg"] + 5e-4 * terms["loss_attention"]
    assert loss.item() == pytest.approx(0.01658153, rel=1e-6)


def test_masks_worked_by_hand():
    # 8 cells of 8 pixels each way; of the image 48 x 32 pixels (height x width) are no padding.
    feature = torch.zeros(1, 1, 8, 8)
    truth = [instances((48, 32), [[8, 12, 12, 18]], [0])]
    # x: 8 / 32 * 8 = 2 to 3, y: 12 / 48 * 8 = 2 to 3: 2 x 2 cells.
    foreground, background = object_masks(truth, [(48, 32)], feature)
    expected = torch.zeros(8, 8)
    expected[2:4, 2:4] = 1 / 4
    assert torch.equal(foreground[0], expected)
    torch.testing.assert_close(background[0], (expected == 0) / 60)
    # With the stride, x: 1 to 1.5, y: 1.5 to 2.25: columns 1 to 2, rows 1 to 3.
    foreground, background = object_masks(truth, [(48, 32)], feature, stride=8)
    expected = torch.zeros(8, 8)
    expected[1:4, 1:3] = 1 / 6
    torch.testing.assert_close(foreground[0], expected)
    torch.testing.assert_close(background[0], (expected == 0) / 58)


def test_where_boxes_overlap_the_smaller_one_counts():
    feature = torch.zeros(1, 1, 4, 4)
    truth = [instances((32, 32), [[0, 0, 24, 24], [8, 8, 10, 10]], [0, 1])]
    foreground, _ = object_masks(truth, [(32, 32)], feature)
    assert foreground[0, 0, 0] == 1 / 16 and foreground[0, 1, 1] == foreground[0, 2, 2] == 1 / 4


def test_masks_without_boxes_without_background_and_with_boxes_outside_the_image():
    feature = torch.zeros(3, 1, 2, 2)
    boxes = [[], [[0, 0, 16, 16]], [[-40, -40, -24, -24]]]
    truth = [instances((16, 16), b, [0] * len(b)) for b in boxes]
    foreground, background = object_masks(truth, [(16, 16)] * 3, feature)
    assert foreground[0].sum() == 0 and (background[0] == 1 / 4).all()
    assert (foreground[1] == 1 / 9).all() and background[1].sum() == 0
    assert foreground[2].sum() == 0 and (background[2] == 1 / 4).all()


def test_attention_worked_by_hand():
    feature = torch.tensor([[[[1.0, -3.0]], [[0.0, 1.0]]]])  # (1, 2, 1, 2)
    cells, channels = attention_of(feature, 0.5)
    # Cells: means 0.5 and 2 over channels; channels: means 2 and 0.5 over cells.
    assert cells.flatten().tolist() == pytest.approx(
        (2 * torch.tensor([1.0, 4.0]).softmax(0)).tolist()
    )
    assert channels.flatten().tolist() == pytest.approx(
        (2 * torch.tensor([4.0, 1.0]).softmax(0)).tolist()
    )
    assert cells.mean() == 1 and channels.mean() == 1


def test_the_student_attends_only_in_the_attention_loss():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 4, 5, 6, generator=generator)
    student.requires_grad_()
    teacher.requires_grad_()
    foreground, background = torch.rand(2, 2, 5, 6, generator=generator)
    terms = focal_losses(student, teacher, foreground, background, 0.5)
    gradient = torch.autograd.grad(terms["loss_fg"], student, retain_graph=True)[0]
    cells, channels = (a.detach() for a in attention_of(teacher, 0.5))
    weight = (foreground * cells)[:, None] * channels[:, :, None, None]
    torch.testing.assert_close(gradient, (weight * (student - teacher)).detach())  # 2 / N = 1
    sum(terms.values()).backward()
    assert teacher.grad is None
    gradient = torch.autograd.grad(
        focal_losses(student, teacher, foreground, background, 0.5)["loss_attention"], student
    )[0]
    assert gradient.abs().max() > 0


def test_a_context_block_starts_as_the_identity_and_adds_the_same_to_all_cells():
    torch.manual_seed(0)
    block, feature = ContextBlock(8), torch.randn(2, 8, 3, 5)
    assert torch.equal(block(feature), feature)
    nn.init.normal_(block.transform[-1].weight)
    added = block(feature) - feature
    torch.testing.assert_close(added, added[:, :, :1, :1].expand_as(added), atol=1e-5, rtol=0)
    assert added.abs().max() > 0.1


def step_of(images: int) -> tuple:
    truth = instances((40, 48), [[4, 4, 20, 30]], [1])
    return feature_step([truth] * images)


def test_an_identical_teacher_gives_no_loss_at_all_at_first_and_with_equal_blocks():
    method = adapted(FGD(), 8, 1)
    feature = torch.randn(2, 8, 5, 6)
    passes = feature_pass([feature]), feature_pass([feature.clone()])
    assert all(loss == 0 for loss in method(*passes, step_of(2)).values())
    for block in (method.student_context, method.teacher_context):
        nn.init.normal_(block[0].transform[-1].weight)
    assert method(*passes, step_of(2))["loss_relation"] > 0
    method.teacher_context.load_state_dict(method.student_context.state_dict())
    assert all(loss == 0 for loss in method(*passes, step_of(2)).values())


def test_the_losses_of_levels_are_summed():
    feature, other = torch.randn(2, 2, 8, 5, 6)
    of_level = adapted(FGD(), 8, 1)(feature_pass([feature]), feature_pass([other]), step_of(2))
    passes = feature_pass([feature] * 3), feature_pass([other] * 3)
    for term, loss in adapted(FGD(), 8, 3)(*passes, step_of(2)).items():
        assert_close(loss, 3 * of_level[term], 1e-5, term)


def test_boxes_are_divided_by_the_stride_of_their_level():
    """As wide in cells as by the image's size, where the image fills the batch."""
    passes = [feature_pass([torch.randn(2, 8, 12 // n, 8 // n) for n in (1, 2)]) for _ in range(2)]
    step = feature_step([instances((96, 64), [[8, 16, 30, 70]], [1])] * 2)
    by_size, by_stride = (
        adapted(FGD(box_scale=scale), 8, 2)(*passes, step) for scale in ("image_size", "stride")
    )
    assert by_size == by_stride


def test_a_weight_of_zero_leaves_its_term_out_and_the_blocks_with_the_relation():
    model = distill(tiny_fcos(), tiny_fcos(seed=1), FGD(relation_weight=0.0, bg_weight=0.0))
    losses = model(batch())
    assert {k for k in losses if k.startswith("kd_")} == {
        "kd_feature_loss_fg", "kd_feature_loss_attention",
    }  # fmt: skip
    assert not list(model.kd.parameters())
    double = distill(tiny_fcos(), tiny_fcos(seed=1), FGD(fg_weight=2e-3))(batch())
    torch.testing.assert_close(double["kd_feature_loss_fg"], 2 * losses["kd_feature_loss_fg"])


def test_without_objects_the_foreground_is_zero_and_the_background_is_not():
    model = distill(tiny_fcos(), tiny_fcos(seed=1), FGD())
    losses = model(batch("all empty"))
    assert losses["kd_feature_loss_fg"] == 0 and losses["kd_feature_loss_fg"].requires_grad
    assert losses["kd_feature_loss_bg"] > 0


def test_boxes_may_be_divided_by_the_stride():
    losses = [
        distill(tiny_fcos(), tiny_fcos(seed=1), FGD(box_scale=scale))(batch())
        for scale in ("image_size", "stride")
    ]  # images of 64 x 96 and 80 x 72 pixels in a batch of 96 x 96
    assert losses[0]["kd_feature_loss_fg"] != losses[1]["kd_feature_loss_fg"]
    assert losses[0]["kd_feature_loss_relation"] == losses[1]["kd_feature_loss_relation"]


def test_blocks_of_both_sides_have_the_teachers_width():
    model = distill(tiny_fcos(), tiny_fcos(channels=24), FGD())
    shapes = {k: tuple(v.shape) for k, v in model.kd.feature.named_parameters()}
    for side in ("student", "teacher"):
        assert shapes[f"{side}_context.2.attention.weight"] == (1, 24, 1, 1)
        assert shapes[f"{side}_context.2.transform.0.weight"] == (12, 24, 1, 1)
        assert shapes[f"{side}_context.2.transform.3.weight"] == (24, 12, 1, 1)
    assert len(shapes) == 3 * (2 * 8 + 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"box_scale": "cells"}, "box_scale='cells'"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"fg_weight": -1.0}, "fg_weight=-1.0"),
        (dict.fromkeys(["fg_weight", "bg_weight", "attention_weight", "relation_weight"], 0.0),
         "one above it"),
    ],
)  # fmt: skip
def test_what_an_option_cannot_be_is_refused(options, message: str):
    with pytest.raises(ValueError, match=message):
        FGD(**options)


def test_pyramids_of_other_strides_are_refused_when_the_distiller_is_built():
    teacher = tiny_fcos(num_levels=5, head_in_features=["p4", "p5", "p6"])
    with pytest.raises(DistillationError, match=r"strides \[8, 16, 32\] .* \[16, 32, 64\]"):
        distill(tiny_fcos(), teacher, FGD())
