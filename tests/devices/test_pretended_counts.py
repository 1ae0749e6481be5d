"""What the pretended GPU counts, and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from dense_kd.benchmark.pretended import pretended_gpu

HERE = Path(__file__)


@pytest.fixture
def gpu():
    with pretended_gpu(root=HERE.parent) as gpu:
        yield gpu


STOPS: dict[str, tuple[int, Callable[[Tensor, Tensor], object]]] = {
    "item": (1, lambda x, mask: x[0].item()),
    "float": (1, lambda x, mask: float(x.sum())),
    "a condition": (1, lambda x, mask: bool(mask.any())),
    "a number in a text": (1, lambda x, mask: f"{x.sum():.2f}"),
    "tolist": (1, lambda x, mask: x.tolist()),
    "a copy": (1, lambda x, mask: x.cpu()),
    "a copy into a tensor": (1, lambda x, mask: torch.empty(4).copy_(x)),
    "nonzero": (1, lambda x, mask: mask.nonzero()),
    "where of a condition alone": (1, lambda x, mask: torch.where(mask)),
    "a mask that reads": (1, lambda x, mask: x[mask]),
    "a mask that writes": (1, lambda x, mask: x.__setitem__(mask, x.neg())),
    "a mask that writes a tensor's number": (1, lambda x, mask: x.__setitem__(mask, x[0])),
    "a fill with a tensor": (1, lambda x, mask: x.masked_fill(mask, x[0])),
    "a selection by mask": (1, lambda x, mask: x.masked_select(mask)),
    "unique": (1, lambda x, mask: x.unique()),
    "a comparison": (1, lambda x, mask: torch.equal(x, x)),
    "repeats": (1, lambda x, mask: x.repeat_interleave(mask.long())),
    "a size": (1, lambda x, mask: torch.arange(mask.sum(), device=x.device)),
    "numbers of a list": (2, lambda x, mask: torch.tensor([x[0], x[1]])),
    "counts": (1, lambda x, mask: mask.long().bincount()),
    "suppression": (1, lambda x, mask: nms(x.expand(1, 4), x[:1], 0.5)),
    "a print": (1, lambda x, mask: repr(x)),
    "the end of all": (1, lambda x, mask: torch.cuda.synchronize()),
    "the gradient of what a mask read": (2, lambda x, mask: _square_of(x, mask).backward()),
    # What the GPU does alone.
    "a mask that writes a number": (0, lambda x, mask: x.__setitem__(mask, 0.0)),
    "a fill with a number": (0, lambda x, mask: x.masked_fill(mask, 0.0)),
    "a choice": (0, lambda x, mask: torch.where(mask, x, 0.0)),
    "repeats of a known size": (
        0,
        lambda x, mask: x.repeat_interleave(mask.long(), output_size=4),
    ),
    "an index": (0, lambda x, mask: x[mask.long()]),
    "its shape": (0, lambda x, mask: (len(x), x.numel(), x.shape)),
    "a copy that nothing waits for": (0, lambda x, mask: x.to("cpu", non_blocking=True)),
    "a copy to where it is": (0, lambda x, mask: (x.to("cuda"), x.to(x.device), x.cuda())),
    "work of the CPU": (0, lambda x, mask: torch.ones(3).sum().item()),
}
"""{what: (how often the host waits, the code)}"""


def _square_of(x: Tensor, mask: Tensor) -> Tensor:
    return x.requires_grad_()[mask].square().sum()


@pytest.mark.parametrize("what", STOPS)
def test_the_host_waits_for(gpu, what):
    expected, code = STOPS[what]
    x, mask = torch.ones(4, device="cuda"), torch.ones(4, dtype=torch.bool, device="cuda")
    with gpu.counting() as counts:
        code(x, mask)
    assert counts.stops == expected, counts.report("stop")
    assert counts.uploads == 0


UPLOADS: dict[str, tuple[int, Callable[[Tensor], object]]] = {
    "to": (1, lambda x: torch.ones(4).to("cuda")),
    "cuda": (1, lambda x: torch.ones(4).cuda()),
    "numbers": (1, lambda x: torch.tensor([1.0], device="cuda")),
    "new numbers": (1, lambda x: x.new_tensor([1.0])),
    "a copy": (1, lambda x: x.copy_(torch.ones(4))),
    "an index": (1, lambda x: x[torch.tensor([0])]),
    "a list as an index": (1, lambda x: x[[0]]),
    "without waiting": (0, lambda x: torch.ones(4).to("cuda", non_blocking=True)),
    "one number for all": (0, lambda x: torch.full((4,), 2.0, device="cuda")),
    "a slice": (0, lambda x: x[1:]),
    "a number for one place": (1, lambda x: x.__setitem__(0, 1.0)),
    "a number for several places": (0, lambda x: x.__setitem__(slice(1, 3), 1.0)),
}


@pytest.mark.parametrize("what", UPLOADS)
def test_the_host_waits_for_the_upload_of(gpu, what):
    expected, code = UPLOADS[what]
    x = torch.ones(4, device="cuda")
    with gpu.counting() as counts:
        code(x)
    assert counts.uploads == expected and counts.stops == 0


@pytest.mark.parametrize(
    ("kernels", "num_bytes", "code"),
    [
        (1, 12 * 4, lambda x: x + x),
        (1, 4 * 4 + 4, lambda x: x.sum()),
        (2, 2 * 8 * 4, lambda x: x.neg().neg()),
        (1, 4 * 4 + 4 * 2, lambda x: x.half()),
        (0, 0, lambda x: x.view(2, 2).T[None, :1].expand(3, -1, -1).detach()),
        (0, 0, lambda x: torch.empty_like(x)),
        (0, 0, lambda x: x[:0] * 2),
        (0, 0, lambda x: x.cpu() + 1),
    ],
    ids=["sum of two", "sum of all", "two", "cast", "views", "memory", "nothing", "on the CPU"],
)
def test_kernels_and_their_bytes_are_counted(gpu, kernels, num_bytes, code):
    x = torch.ones(4, device="cuda")
    with gpu.counting() as counts:
        code(x)
    assert (counts.kernels, counts.num_bytes) == (kernels, num_bytes), counts.operations


def test_a_count_has_the_line_of_the_code_that_caused_it(gpu):
    x = torch.ones(4, device="cuda")
    with gpu.counting() as counts:
        x[x > 0].sum().item()  # a line
    line = next(i for i, text in enumerate(HERE.read_text().split("\n"), 1) if "# a line" in text)
    assert counts.places == {
        ("kernel", "gt", f"{HERE.name}:{line}"): 1,
        ("kernel", "index", f"{HERE.name}:{line}"): 1,
        ("kernel", "sum", f"{HERE.name}:{line}"): 1,
        ("stop", "mask as an index", f"{HERE.name}:{line}"): 1,
        ("stop", "item", f"{HERE.name}:{line}"): 1,
    }
    assert f"1 item                     {HERE.name}:{line}" in counts.report("stop")
    assert gpu.counts.kernels == 1 + 3  # also those before
    with gpu.uncounted():
        x.sum().item()
    assert (gpu.counts.kernels, gpu.counts.stops) == (4, 2)


def test_no_line_of_the_pretended_gpu_itself_is_named():
    with pretended_gpu() as gpu, gpu.counting() as counts:
        torch.ones(2, device="cuda").sum().item()
    assert {line for _, _, line in counts.places} == {"elsewhere"}
