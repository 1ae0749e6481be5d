"""FGD: "Focal and Global Knowledge Distillation for Detectors" (Yang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..detectors.boxes.coders import LARGEST
from ..lengths import check_equal_lengths
from ..options import check_choices, check_positive, check_unused, check_weights
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.adapters import comparable_features, pyramid_adapters, pyramid_channels
from .base.levels import Levels, Places, joined, listed
from .base.objects import stacked_boxes

BOX_SCALES = ("image_size", "stride")


class FGD(KDMethod):
    """The pyramids are compared apart on objects and background, where the teacher attends, and in
    the relations of all cells.

    The attention of a feature F over cells and over channels is, with T = ``temperature``,

        S(F) = H W softmax_{h,w}(mean_c |F| / T),      C(F) = C softmax_c(mean_{h,w} |F| / T)

    and with the masks of :func:`masks_of_levels`, on each level, the losses are

        loss_fg        = fg_weight        * 1/N sum M_fg S(t) C(t) (s - t)^2
        loss_bg        = bg_weight        * 1/N sum M_bg S(t) C(t) (s - t)^2
        loss_attention = attention_weight * 1/N (sum_c |C(s) - C(t)| + sum_{h,w} |S(s) - S(t)|)
        loss_relation  = relation_weight  * 1/N sum (R_s(s) - R_t(t))^2

    and summed over the levels. R is a :class:`ContextBlock` per level, another
    one for the student and for the teacher. Both are trained: no gradient reaches the teacher's
    features, but its blocks get some. Blocks, and the 1x1 convolutions on the student's features
    where the widths differ, are not part of the student.

    ============================ === ====== ====== ========= ======== ==========================
    student                      T   fg     bg     attention relation further
    ============================ === ====== ====== ========= ======== ==========================
    RetinaNet                    0.5 1e-3   5e-4   5e-4      5e-6     2x, ``init_student``
    GFL                          0.5 1e-3   5e-4   5e-4      5e-6     1x, ``init_student``
    FCOS                         0.8 1.6e-3 8e-4   8e-4      8e-6     2x, ``init_student``
    Faster R-CNN (four levels)   0.5 5e-5   2.5e-5 5e-5      5e-7
    ============================ === ====== ====== ========= ======== ==========================

    All with gradients clipped at norm 35. The paper has T = 0.5 for all; 0.8 is of the released
    config of FCOS, whose student also has a stronger recipe than its baseline. The released code,
    which is the default here, scales the objects by the size of the image without padding, though
    the map also covers the padding (``box_scale``). The relation is a sum over channels and cells,
    so its weight is for images of the usual size (800 x 1333 pixels) and 256 channels.

    Images are compared one by one, so with gradients that are averaged over processes the split of
    a batch does not matter, but for the padding, which counts as background.

    In a training step the tensors of the losses take, at their peak, 1.7 times the memory of the
    maps that are compared (both pyramids, float32; gradients included, those of the blocks not).
    The masks of 500 objects per image, in two images of 800 x 1344, take 81 MiB.
    """

    needs = Needs(same_levels=True, ground_truth=True, predictions=False)

    def __init__(
        self,
        *,
        fg_weight: float = 1e-3,
        bg_weight: float = 5e-4,
        attention_weight: float = 5e-4,
        relation_weight: float = 5e-6,
        temperature: float = 0.5,
        box_scale: str = "image_size",
        warmup_iters: int = 0,
    ):
        """
        Args:
            fg_weight, bg_weight, attention_weight, relation_weight: of the terms, the paper's
                alpha, beta, gamma and lambda; 0 leaves a term out.
            temperature: of the attention.
            box_scale: how boxes become cells: "image_size" (released), by the size of the map
                over that of the image without padding, or "stride" (ours), by that of the level.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("box_scale", box_scale, BOX_SCALES))
        check_weights(
            fg_weight=fg_weight,
            bg_weight=bg_weight,
            attention_weight=attention_weight,
            relation_weight=relation_weight,
        )
        check_positive(temperature=temperature)
        if fg_weight == bg_weight == 0:
            check_unused(FGD, "fg_weight=bg_weight=0", box_scale=box_scale)
            if attention_weight == 0:
                because = "fg_weight=bg_weight=attention_weight=0"
                check_unused(FGD, because, temperature=temperature)
        self.fg_weight = fg_weight
        self.bg_weight = bg_weight
        self.attention_weight = attention_weight
        self.relation_weight = relation_weight
        self.temperature = temperature
        self.box_scale = box_scale

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters, and the context blocks of the relation term."""
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(student, teacher)
        if self.relation_weight > 0:  # unused parameters would have no gradient
            width = pyramid_channels(teacher)
            self.student_context, self.teacher_context = (
                nn.ModuleList(ContextBlock(width) for _ in student.strides).to(student.device)
                for _ in range(2)
            )

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_fg``, ``loss_bg``, ``loss_attention`` and ``loss_relation``, those of them whose
        weight is not 0."""
        weights = {
            "loss_fg": self.fg_weight,
            "loss_bg": self.bg_weight,
            "loss_attention": self.attention_weight,
            "loss_relation": self.relation_weight,
        }
        weights = {term: weight for term, weight in weights.items() if weight > 0}
        ours, theirs = map(list, zip(*comparable_features(student, teacher, self.adapters)))
        scales = student.strides if self.box_scale == "stride" else None
        masks = masks_of_levels(step.ground_truth, student.image_sizes, ours, scales)
        losses = focal_losses(ours, theirs, *masks, self.temperature)
        if self.relation_weight > 0:
            losses["loss_relation"] = self._relation(ours, theirs)
        return {term: weight * losses[term] for term, weight in weights.items()}

    def _relation(self, ours: list[Tensor], theirs: list[Tensor]) -> Tensor:
        """1/N sum (R_s(s) - R_t(t))^2, where R adds the same to all cells of a level."""
        blocks = [*self.student_context, *self.teacher_context]
        added, of_teacher = contexts(blocks, ours + theirs).chunk(2)  # (L, N, C, 1, 1) both
        errors = [
            F.mse_loss(s + offset, t, reduction="sum")
            for s, t, offset in zip(ours, theirs, added - of_teacher)
        ]
        return torch.stack(errors).sum() / len(ours[0])


class ContextBlock(nn.Module):
    """F plus, for all cells alike, what a bottleneck makes of the attended mean of F over cells.

    GCNet (Cao et al., ICCV Workshops 2019), with a reduction of channels to one half. The last
    convolution starts at zero, so that the block starts as the identity.
    """

    def __init__(self, channels: int):
        """
        Args:
            channels: C.
        """
        super().__init__()
        hidden = max(channels // 2, 1)
        self.attention = nn.Conv2d(channels, 1, kernel_size=1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, hidden, kernel_size=1),
            nn.LayerNorm([hidden, 1, 1]),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, kernel_size=1),
        )
        weight, bias = self.attention.parameters()
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
        for zero in (bias, *self.transform[-1].parameters()):
            nn.init.zeros_(zero)

    def forward(self, feature: Tensor) -> Tensor:
        """(N, C, Hl, Wl) of (N, C, Hl, Wl)."""
        return feature + contexts([self], [feature])[0]


def contexts(blocks: Sequence[ContextBlock], features: Sequence[Tensor]) -> Tensor:
    """What context blocks add to all cells of a map, each block to its own.

    Args:
        blocks: B of them, equally wide.
        features: B x (N, C, H, W).

    Returns:
        (B, N, C, 1, 1)
    """
    logits = [block.attention(x) for block, x in zip(blocks, features)]  # (N, 1, H, W) each
    weights = [x.flatten(2).softmax(dim=2) for x in logits]  # (N, 1, H*W) each
    attended = torch.stack([x.flatten(2) @ w.mT for x, w in zip(features, weights)])[..., 0]
    # What follows is small, so that all blocks take as long as one.
    first, norm, _, last = zip(*(block.transform for block in blocks))
    hidden = _each(first, attended)  # (B, N, C')
    hidden = F.layer_norm(hidden, hidden.shape[2:], eps=norm[0].eps)
    scale, offset = (
        torch.stack([getattr(layer, name).view(1, -1) for layer in norm])
        for name in ("weight", "bias")
    )
    added = _each(last, torch.addcmul(offset, hidden, scale).relu())  # (B, N, C)
    return added[..., None, None]


def _each(layers: Sequence[nn.Conv2d], inputs: Tensor) -> Tensor:
    """(B, N, D) of (B, N, C): each of B convolutions of one cell, on inputs of its own."""
    weight = torch.stack([layer.weight.flatten(1) for layer in layers])  # (B, D, C)
    bias = torch.stack([cast(Tensor, layer.bias) for layer in layers])[:, None]  # (B, 1, D)
    return torch.baddbmm(bias, inputs, weight.transpose(1, 2))


def focal_losses(
    student: Levels,
    teacher: Levels,
    foreground: Levels,
    background: Levels,
    temperature: float,
) -> dict[str, Tensor]:
    """``loss_fg``, ``loss_bg`` and ``loss_attention``, sums over levels without their weights.

    Args:
        student, teacher: L x (N, C, Hl, Wl); no gradient goes to the teacher's.
        foreground, background: L x (N, Hl, Wl) or (N, P), of :func:`masks_of_levels`.
        temperature: of the attention.
    """
    ours, theirs = listed(student), [level.detach() for level in listed(teacher)]
    (cells, teacher_cells), (channels, teacher_channels) = attention([ours, theirs], temperature)
    # Both masks weigh cells alone, so the channels are summed once for both.
    summed = [
        weight[:, None] @ F.mse_loss(s, t, reduction="none").flatten(2)
        for weight, s, t in zip(teacher_channels, ours, theirs)
    ]  # L x (N, 1, Hl*Wl)
    attended = teacher_cells * torch.cat(summed, dim=2)[:, 0]  # (N, P)
    difference = F.l1_loss(channels, teacher_channels, reduction="sum")
    losses = {
        "loss_fg": (joined(foreground) * attended).sum(),
        "loss_bg": (joined(background) * attended).sum(),
        "loss_attention": difference + F.l1_loss(cells, teacher_cells, reduction="sum"),
    }
    return {term: loss / len(ours[0]) for term, loss in losses.items()}


def attention(pyramids: Sequence[list[Tensor]], temperature: float) -> tuple[Tensor, Tensor]:
    """How much features attend to their cells and to their channels, see :class:`FGD`.

    Args:
        pyramids: S x L x (N, C, Hl, Wl).
        temperature: the lower, the more the largest stand out.

    Returns:
        (S, N, P) with the mean 1 over the cells of a level, and (S, L, N, C) with the mean 1 over
        channels.
    """
    means = [[_means(level.abs()) for level in pyramid] for pyramid in pyramids]
    cells = torch.stack([joined([m for m, _ in levels]) for levels in means]) / temperature
    channels = torch.stack([torch.stack([m for _, m in levels]) for levels in means]) / temperature
    places = Places(pyramids[0], dim=2)
    return (
        places.softmax(cells) * places.spread(places.counts),
        channels.softmax(dim=-1) * channels.shape[-1],
    )


def _means(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, C, H, W) over the channels, (N, H, W), and over the cells, (N, C)."""
    return magnitudes.mean(dim=1), magnitudes.mean(dim=(2, 3))


@torch.no_grad()
def masks_of_levels(
    ground_truth: list[Instances],
    image_sizes: list[tuple[int, int]],
    features: list[Tensor],
    strides: list[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """The weights of the cells on objects, and of those on none.

    A box covers the cells from the floor of its low to the ceiling of its high sides, both
    included, and each weighs one over their number; where boxes overlap, the largest weight (that
    of the smallest) counts. Cells of no box weigh one over the number of those in their image.

    Args:
        ground_truth: N Instances with gt_boxes.
        image_sizes: N x (height, width) of the images without padding.
        features: L x (N, C, Hl, Wl), the maps.
        strides: L, of the maps, to divide boxes by; by default boxes are scaled by the size of the
            map over that of their image.

    Returns:
        foreground and background, (N, P) both, float32. A box that reaches out of the map keeps
        the weight of its whole.
    """
    check_equal_lengths(ground_truth=ground_truth, image_sizes=image_sizes)
    device = features[0].device
    sizes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
    boxes = stacked_boxes(  # (N, G, 4); what fills it up is on no map
        [truth.gt_boxes.tensor.to(device, torch.float32) for truth in ground_truth], -LARGEST
    )
    if strides is None:
        of_images = boxes / _sides(image_sizes, device)[:, None]
        boxes = of_images * _sides(sizes, device)[:, None, None]  # (L, N, G, 4)
    else:
        boxes = torch.stack([boxes / stride for stride in strides])
    low, high = boxes[..., :2].floor(), boxes[..., 2:].ceil()  # (L, N, G, 2) both
    weights = 1 / (high - low + 1).prod(dim=-1, keepdim=True)  # (L, N, G, 1)
    heights, widths = zip(*sizes)
    in_columns = _covered(low[..., :1], high[..., :1], widths)  # L x (N, G, Wl)
    in_rows = _covered(low[..., 1:], high[..., 1:], heights)  # L x (N, G, Hl)
    levels = []
    for rows, columns, weight in zip(in_rows, in_columns, weights):
        on_box = rows[..., None] * (columns * weight)[:, :, None]  # (N, G, Hl, Wl)
        levels.append(on_box.amax(dim=1) if on_box.numel() else on_box.sum(dim=1))
    places = Places(levels)
    foreground = joined(levels)  # (N, P)
    background = (foreground == 0).float()
    counts = places.spread(places.sums(background))
    return foreground, background / counts.clamp(min=1)


def _covered(first: Tensor, last: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """L x (N, G, Sl) bool: which of the Sl rows or columns of a level are from ``first`` to
    ``last``, (L, N, G, 1) both."""
    steps = torch.arange(max(sizes), device=first.device)
    numbers = torch.cat([steps[:size] for size in sizes])
    first, last = (
        torch.cat([x.expand(-1, -1, size) for x, size in zip(bound, sizes)], dim=-1)
        for bound in (first, last)
    )  # (N, G, sum of sizes)
    return ((numbers >= first) & (numbers <= last)).split([*sizes], dim=-1)


def _sides(sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """(S, 4): width, height, width and height of S sizes (height, width)."""
    sides = [[width, height, width, height] for height, width in sizes]
    return torch.tensor(sides, dtype=torch.float32).to(device, non_blocking=True)
