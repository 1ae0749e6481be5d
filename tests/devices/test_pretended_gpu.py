"""The pretended GPU refuses what a GPU refuses, and does the rest as the CPU does."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from torch import nn
from torchvision.ops import batched_nms, nms

from dense_kd.benchmark.pretended import Pretended, pretended_gpu

CUDA = torch.device("cuda", 0)


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def there(*shape: int, **options) -> torch.Tensor:
    return torch.ones(*shape, device="cuda", **options)


def here(*shape: int, **options) -> torch.Tensor:
    return torch.ones(*shape, **options)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    # Tensors that were made without a device.
    "a sum of both devices": (lambda: there(3) + here(3), "same device"),
    "a sum in place": (lambda: there(3).add_(here(3)), "same device"),
    "a sum into the CPU": (lambda: here(3).add_(there(3)), "same device"),
    "a number of the CPU that is written": (lambda: here(()).add_(there(())), "same device"),
    "two numbers of the CPU": (
        lambda: there(3).clamp(torch.tensor(0.0), torch.tensor(1.0)),
        "same device",
    ),
    "a list of both": (lambda: torch.cat([there(3), here(3)]), "same device"),
    "a stack of numbers of both": (lambda: torch.stack([there(()), here(())]), "same device"),
    "a product": (lambda: there(2, 2) @ here(2, 2), "same device"),
    "a layer that stayed on the CPU": (lambda: nn.Linear(2, 2)(there(1, 2)), "same device"),
    "a layer whose input did": (lambda: nn.Linear(2, 2).cuda()(here(1, 2)), "same device"),
    "a convolution": (lambda: F.conv2d(there(1, 1, 3, 3), here(1, 1, 1, 1)), "same device"),
    "a condition of the CPU": (lambda: torch.where(here(()) > 0, there(3), 0.0), "same device"),
    "a comparison": (lambda: torch.equal(there(3), here(3)), "same device"),
    "a closeness": (lambda: torch.allclose(there(3), here(3)), "same device"),
    "a gather": (lambda: there(3).gather(0, here(1).long()), "same device"),
    "a selection": (lambda: there(3).index_select(0, here(1).long()), "same device"),
    "a mask that fills": (lambda: there(3).masked_fill(here(3) > 0, 0.0), "same device"),
    "borders of buckets": (lambda: torch.bucketize(there(3), here(2)), "same device"),
    "values for places": (
        lambda: there(3).__setitem__(there(3) > 0, here(3)),
        "same device",
    ),
    "weights of a loss": (
        lambda: F.binary_cross_entropy_with_logits(there(3), there(3), here(3)),
        "same device",
    ),
    "overlaps of boxes": (
        lambda: pairwise_iou(Boxes(there(2, 4)), Boxes(here(2, 4))),
        "same device|compute IoU on CPU",
    ),
    "suppression": (lambda: nms(there(2, 4), here(2), 0.5), "same device"),
    "a gradient": (lambda: setattr(there(3).requires_grad_(), "grad", here(3)), "device"),
    # Indices.
    "an index of the GPU into the CPU": (lambda: here(3)[there(1).long()], "indices should be"),
    "a mask of the GPU into the CPU": (lambda: here(3)[there(3) > 0], "indices should be"),
    "places of the GPU in the CPU": (
        lambda: here(3).__setitem__(there(3) > 0, 0.0),
        "indices should be",
    ),
    # Arrays.
    "an array of it": (lambda: there(3).numpy(), "Tensor.cpu()"),
    "an array by numpy": (lambda: np.asarray(there(3)), "Tensor.cpu()"),
    "a function of numpy": (lambda: np.sqrt(there(3)), "Tensor.cpu()"),
    # Generators.
    "random numbers of another generator": (
        lambda: torch.rand(3, generator=torch.Generator(), device="cuda"),
        "'cuda' device type for generator",
    ),
    "noise of another generator": (
        lambda: there(3).normal_(generator=torch.Generator()),
        "'cuda' device type for generator",
    ),
    "an order of another generator": (
        lambda: torch.randperm(3, generator=torch.Generator(), device="cuda"),
        "'cuda' device type for generator",
    ),
    "random numbers of the GPU's generator on the CPU": (
        lambda: torch.rand(3, generator=torch.Generator("cuda")),
        "'cpu' device type for generator",
    ),
    # What it cannot compute.
    "a product of whole numbers": (lambda: there(2, 2).long() @ there(2, 2).long(), "_cuda"),
    "another GPU": (lambda: torch.zeros(1, device="cuda:1"), "invalid device ordinal"),
    "memory that is pinned": (lambda: there(3).pin_memory(), "cannot pin"),
    "a copy of what is computed": (
        lambda: copy.deepcopy(there(3).requires_grad_() * 2),
        "graph leaves",
    ),
}
"""{what works on the CPU alone: (the code, what the error says)}"""


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses(gpu, name):
    code, message = REFUSED[name]
    with pytest.raises((RuntimeError, TypeError, AssertionError), match=message):
        code()


ALLOWED: dict[str, Callable[[], torch.Tensor]] = {
    "a number of the CPU": lambda: there(3) * torch.tensor(2.0),
    "a number of the CPU first": lambda: torch.tensor(2.0) - there(3),
    "a bound of the CPU": lambda: there(3).clamp(max=torch.tensor(0.5)),
    "a choice of a number of the CPU": lambda: torch.where(there(3) > 0, torch.tensor(2.0), 0.0),
    "a number of the CPU that fills": lambda: there(3).masked_fill(there(3) > 0, torch.tensor(2.0)),
    "a Python number": lambda: 1 / there(3),
    "a copy over the border": lambda: there(3).copy_(here(3)),
    "an index of the CPU": lambda: there(3)[torch.tensor([0, 2])],
    "a list as an index": lambda: there(3)[[0, 2]],
    "an array as an index": lambda: there(3)[np.array([0, 2])],
    "a mask of the CPU": lambda: there(3)[torch.tensor([True, False, True])],
    "numbers of the CPU's list": lambda: torch.tensor([1.0, 2.0], device="cuda"),
    "a tensor as it is": lambda: torch.as_tensor(there(3), dtype=torch.float64, device="cuda"),
    "an array that is moved": lambda: torch.as_tensor(np.ones(3), device="cuda"),
    "a new tensor of its kind": lambda: there(3).new_tensor([1, 2]),
    "a new one of zeros": lambda: there(3).new_zeros(2),
    "random numbers": lambda: torch.rand(3, device="cuda", generator=torch.Generator("cuda")),
    "a module": lambda: nn.Linear(2, 2).to("cuda")(there(1, 2)),
    "a module by cuda()": lambda: nn.BatchNorm2d(2).cuda().running_mean,
    "its gradient": lambda: torch.autograd.grad((x := there(3).requires_grad_()).square().sum(), x)[
        0
    ],
    "pictures": lambda: ImageList.from_tensors([there(3, 4, 5)], 8).tensor,
    "pictures of two sizes": lambda: (
        ImageList.from_tensors([there(3, 4, 5), there(3, 6, 2)], 8).tensor
    ),
    "boxes": lambda: pairwise_iou(Boxes(there(2, 4)), Boxes(here(2, 4)).to("cuda")),
    "instances": lambda: Instances((4, 4), gt_classes=here(2)).to(CUDA).gt_classes,
    "suppression": lambda: batched_nms(there(2, 4), there(2), there(2).long(), 0.5),
    "a default device": lambda: _by_default_there(),
}
"""{what a GPU does: code that gives a tensor on it}"""


def _by_default_there() -> torch.Tensor:
    with torch.device("cuda"):
        return torch.zeros(3)


@pytest.mark.parametrize("name", ALLOWED)
def test_it_does(gpu, name):
    found = ALLOWED[name]()
    assert found.device == CUDA and found.is_cuda and not found.is_cpu
    assert isinstance(found, Pretended)


def test_what_comes_back_is_an_ordinary_tensor_again(gpu):
    for found in (there(3).cpu(), there(3).to("cpu"), torch.as_tensor(there(3), device="cpu")):
        assert type(found) is torch.Tensor and found.device == torch.device("cpu")
        assert found.numpy().tolist() == [1, 1, 1]
    layer = nn.Linear(2, 2).to("cuda").cpu()
    assert type(layer.weight) is nn.Parameter and layer(here(1, 2)).device.type == "cpu"


def test_a_network_has_the_gradients_that_it_has_on_the_cpu(gpu):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    twin, images = copy.deepcopy(net).to("cuda"), torch.rand(2, 3, 6, 6)
    for model, inputs in ((net, images), (twin, images.to("cuda"))):
        model(inputs)[:, 0].square().mean().backward()
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9).step()
    for ours, theirs in zip(twin.parameters(), net.parameters()):
        assert ours.device == ours.grad.device == CUDA
        assert torch.equal(ours.grad.cpu(), theirs.grad) and torch.equal(ours.cpu(), theirs)


def test_views_share_their_memory_and_shapes_change_in_place(gpu):
    maps = torch.zeros(2, 3, device="cuda")
    maps.view(-1)[1:3] = 5.0
    maps[:, 0].add_(1)
    maps[maps == 0] = 2
    assert maps.tolist() == [[1, 5, 5], [1, 2, 2]]
    assert maps.unsqueeze_(0).shape == maps.shape == (1, 2, 3)


def test_a_copy_of_a_module_is_another_one_on_the_gpu(gpu):
    layer = nn.Linear(2, 2).to("cuda")
    layer(there(1, 2)).sum().backward()
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight.grad.zero_()
    for tensor in (twin.weight, twin.weight.grad):
        assert tensor.device == CUDA and (tensor != 0).all()
    assert isinstance(twin.weight, nn.Parameter) and twin.weight.requires_grad


def test_what_is_saved_says_that_it_was_on_the_gpu(gpu):
    file = io.BytesIO()
    torch.save({"there": there(3), "here": here(2)}, file)
    found: list[str] = []
    read = torch.load(
        io.BytesIO(file.getvalue()), map_location=lambda storage, tag: found.append(tag) or storage
    )
    assert sorted(found) == ["cpu", "cuda:0"] and read["there"].tolist() == [1, 1, 1]


def test_each_device_has_random_numbers_of_its_own(gpu):
    def draw() -> tuple[list[float], list[float]]:
        return torch.rand(2, device="cuda").tolist(), torch.rand(2).tolist()

    torch.manual_seed(3)
    first = draw()
    state, states = torch.get_rng_state(), torch.cuda.get_rng_state_all()
    second = draw()
    torch.set_rng_state(state)  # of the CPU alone
    third = draw()
    assert third[1] == second[1] and third[0] != second[0]
    torch.set_rng_state(state)
    torch.cuda.set_rng_state_all(states)
    assert draw() == second
    torch.manual_seed(3)
    assert draw() == first


def test_a_copy_that_nothing_waits_for_is_not_there_at_once(gpu):
    source = there(3)
    late = source.to("cpu", non_blocking=True)
    source.zero_()
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream())
    assert late.isnan().all() and not event.query()
    assert source.sum().item() == 0
    assert late.tolist() == [1, 1, 1] and event.query()

    pinned, pageable = torch.empty(3, pin_memory=True), torch.empty(3)
    assert pinned.is_pinned() and not pageable.is_pinned()
    for host in (pageable, pinned):
        host.copy_(there(3), non_blocking=True)
    assert pageable.tolist() == [1, 1, 1] and pinned.isnan().all()  # a copy to the first waits
    torch.cuda.synchronize()
    assert pinned.tolist() == [1, 1, 1]


def test_nothing_of_it_is_left_behind():
    with pretended_gpu():
        assert torch.cuda.is_available() and torch.cuda.device_count() == 1
    with pytest.raises((RuntimeError, AssertionError), match="(?i)nvidia|cuda"):
        torch.zeros(1, device="cuda")
    assert not torch.is_autocast_enabled() and torch.Generator().device.type == "cpu"
