"""State that a file of weights may lack, such as the counts of DDOD."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dense_kd.checkpoint import AtomicCheckpointer, CheckpointError, load_strictly
from helpers.builders import batch, tiny_ddod
from helpers.mmdet_models import checkpoint_path, detector


def counted() -> torch.Tensor:
    return torch.tensor([[4, 3, 2], [1, 0, 5]])


def saved(folder, without: str = "-") -> str:
    model = tiny_ddod(seed=3)
    model.level_positives.copy_(counted())
    state = {key: value for key, value in model.state_dict().items() if without not in key}
    torch.save({"model": state}, folder / "model.pth")
    return str(folder / "model.pth")


def test_it_is_read_from_a_file_that_has_it(tmp_path):
    model = tiny_ddod()
    load_strictly(model, saved(tmp_path))
    assert torch.equal(model.level_positives, counted())


def test_without_it_in_the_file_it_keeps_its_value(tmp_path):
    model = tiny_ddod()
    load_strictly(model, saved(tmp_path, without="level_positives"))
    assert torch.equal(model.level_positives, torch.zeros(2, 3, dtype=torch.int64))
    expected = tiny_ddod(seed=3).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_mmdetections_file_leaves_the_counts_at_zero():
    model = detector("det_ddod")
    load_strictly(model, checkpoint_path("det_ddod"))
    assert model.level_positives.tolist() == [[0] * 5] * 2


@pytest.mark.parametrize("key", ["iou_pred.bias", "conv_offset.weight"])
def test_nothing_else_may_be_missing(tmp_path, key):
    with pytest.raises(CheckpointError, match=rf"missing in the file(.|\n)*{key}") as error:
        load_strictly(tiny_ddod(), saved(tmp_path, without=key))
    assert "level_positives" not in str(error.value)


def test_another_shape_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"level_positives: expected \(2, 5\), found \(2, 3"):
        load_strictly(tiny_ddod(num_levels=5), saved(tmp_path))


class Inner(nn.Module):
    optional_buffers = ("average",)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("average", torch.full((2,), 7.0))
        self.register_buffer("needed", torch.zeros(2))


def test_a_module_inside_declares_its_own_and_floats_are_not_filled_with_nan(tmp_path):
    model = nn.ModuleDict({"inner": Inner()})
    path = str(tmp_path / "model.pth")
    file = {"inner.weight": torch.ones(2), "inner.needed": torch.ones(2)}
    torch.save({"model": file}, path)
    load_strictly(model, path)
    assert model["inner"].average.tolist() == [7.0, 7.0]
    assert model["inner"].weight.tolist() == [1.0, 1.0]
    torch.save({"model": {"inner.weight": torch.ones(2)}}, path)
    with pytest.raises(CheckpointError, match=r"1 missing in the file:\n    inner.needed"):
        load_strictly(model, path)


def test_a_resumed_run_goes_on_counting(tmp_path):
    model = tiny_ddod()
    model(batch("usual"))
    AtomicCheckpointer(model, str(tmp_path)).save("model", iteration=3)
    resumed = tiny_ddod(seed=1)
    AtomicCheckpointer(resumed, str(tmp_path)).resume_or_load("", resume=True)
    for whole in (model, resumed):
        whole(batch("usual", seed=1))
    assert torch.equal(resumed.level_positives, model.level_positives)
    assert model.level_positives.sum() > 0
