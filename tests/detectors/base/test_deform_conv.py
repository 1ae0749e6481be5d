"""DeformConv2d against plain convolutions and values worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_kd.detectors import DeformConv2d
from helpers.builders import assert_close


def random_conv(scale: float = 0.1, **options) -> DeformConv2d:
    """Its offsets depend on the input."""
    torch.manual_seed(0)
    conv = DeformConv2d(4, 6, **options)
    torch.nn.init.normal_(conv.conv_offset.weight, std=scale)
    torch.nn.init.normal_(conv.conv_offset.bias, std=scale)
    return conv


def test_it_is_an_ordinary_convolution_at_first():
    torch.manual_seed(0)
    conv, x = DeformConv2d(4, 6), torch.randn(2, 4, 5, 7)
    assert_close(conv(x), F.conv2d(x, conv.weight, conv.bias, padding=1), 1e-6)


def offsets_of_one_tap(row: int, column: int, y: float, x: float) -> DeformConv2d:
    """A kernel that has only the element (row, column), at an offset of (y, x) pixels."""
    conv = DeformConv2d(1, 1, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, 0, row, column] = 1.0
    tap = 3 * row + column
    conv.conv_offset.bias.data[2 * tap : 2 * tap + 2] = torch.tensor([y, x])
    return conv


def test_offsets_are_y_before_x_for_each_element_row_by_row():
    image = torch.arange(20.0).view(1, 1, 4, 5)
    # Element (0, 2) looks one up and one right; 2 down and 1 left of that is 1 down.
    found = offsets_of_one_tap(0, 2, 2.0, -1.0)(image)
    assert found[0, 0, :3].tolist() == image[0, 0, 1:].tolist()
    assert found[0, 0, 3].tolist() == [0.0] * 5  # outside of the map


def test_between_pixels_it_interpolates_and_outside_is_zero():
    image = torch.tensor([[[[4.0, 8.0], [16.0, 32.0]]]])
    found = offsets_of_one_tap(1, 1, 0.5, 0.25)(image)[0, 0]
    # rows: 0.5 of each; columns: 0.75 and 0.25
    assert found[0, 0] == 0.5 * (0.75 * 4 + 0.25 * 8) + 0.5 * (0.75 * 16 + 0.25 * 32)
    assert found[1, 1] == 0.5 * 0.75 * 32


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (1, 7)])
def test_a_map_smaller_than_the_kernel_is_as_if_padded_with_zeros_and_cropped(size):
    conv, x = random_conv(scale=1.0), torch.randn(2, 4, *size, requires_grad=True)
    height, width = size
    offset = conv.conv_offset(x)
    pad = (0, max(3 - width, 0), 0, max(3 - height, 0))

    class Stored(torch.nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            return F.pad(offset, pad)

    padded = DeformConv2d(4, 6)
    padded.weight, padded.bias, padded.conv_offset = conv.weight, conv.bias, Stored()
    found, expected = conv(x), padded(F.pad(x, pad))[..., :height, :width]
    assert found.shape == (2, 6, height, width)
    assert_close(found, expected, 1e-6)
    leaves = (x, conv.weight, conv.conv_offset.weight)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (found, expected)]
    for ours, theirs in zip(*gradients):
        assert ours.abs().sum() > 0
        assert_close(ours, theirs, 1e-5)


def test_gradients_reach_input_weights_and_offsets():
    conv, x = random_conv().double(), torch.randn(1, 4, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(conv, x.requires_grad_(), eps=1e-7, atol=1e-5)
    conv(x).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in conv.parameters())


def test_under_bfloat16_autocast_it_stays_close_and_trains():
    conv, x = random_conv(), torch.randn(2, 4, 6, 7)
    expected = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for given in (x, x.bfloat16()):
            found = conv(given)
            assert found.dtype == given.dtype
            assert_close(found.float(), expected, 0.03)
    found.float().sum().backward()
    assert conv.conv_offset.weight.grad.isfinite().all()


def test_a_half_precision_model_runs():
    conv, x = random_conv(), torch.randn(2, 4, 6, 7)
    found = conv.bfloat16()(x.bfloat16())
    assert found.dtype == torch.bfloat16 and found.isfinite().all()


def test_bias_and_kernel_size_are_as_given():
    conv = DeformConv2d(4, 6, kernel_size=5, padding=2, bias=False)
    assert list(conv.state_dict()) == ["weight", "conv_offset.weight", "conv_offset.bias"]
    assert conv.conv_offset.weight.shape == (50, 4, 5, 5)
    assert conv(torch.randn(1, 4, 3, 2)).shape == (1, 6, 3, 2)


def test_an_input_of_nan_gives_nan_where_it_is_seen_and_does_not_end_the_process():
    # Of an even width: at an odd one, the place of NaN happens to be in the map.
    conv, x = random_conv(), torch.randn(1, 4, 9, 8)
    expected = conv(x)
    x[0, 2, 0, 0] = float("nan")
    found = conv(x)
    assert found[0, :, :2, :2].isnan().all()
    assert torch.equal(found[..., 4:], expected[..., 4:])


def test_an_offset_of_any_finite_size_has_finite_gradients_and_infinity_is_not_hidden():
    conv, x = random_conv(), torch.randn(1, 4, 9, 8, requires_grad=True)
    for offset in (1e4, -1e4, 2147483648.0, 1e10, -1e30, 1e30):
        torch.nn.init.constant_(conv.conv_offset.bias, offset)
        found = conv(x)
        gradients = torch.autograd.grad(found.sum(), [x, *conv.parameters()])
        assert found.isfinite().all() and all(g.isfinite().all() for g in gradients), offset
    torch.nn.init.constant_(conv.conv_offset.bias, float("inf"))
    assert conv(x).isnan().all()
