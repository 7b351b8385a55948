"""Data of a training lies on the card where it fits."""

import numpy as np
import pytest
import torch

from cathodeflow.learning import held
from cathodeflow.sem.batches import Source

pytestmark = pytest.mark.gpu


def test_what_fits_is_copied_once(device):
    first, second = torch.arange(10), torch.arange(5.0)
    found = held([first, second, first], device)
    assert all(one.device.type == device.type for one in found)
    assert found[0] is found[2]
    assert torch.equal(found[0].cpu(), first) and torch.equal(found[1].cpu(), second)


def test_what_does_not_fit_stays(device):
    first = torch.arange(10)
    assert held([first], device, fraction=0.0)[0] is first


def test_several_processes_keep_them_in_memory(device, monkeypatch):
    monkeypatch.setenv("CATHODEFLOW_PROCESSES_DEVICES", "2")
    first = torch.arange(10)
    assert held([first], device)[0] is first


def test_crops_on_the_card_are_those_in_memory(device):
    crops = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    rows = np.arange(0, 40, 2)
    here, there = (Source(crops, rows, batch_size=8, memory=10**6, device=place) for place in (None, device))
    for one, other in (
        (here.in_order(), there.in_order()),
        *[[source.shuffled(torch.Generator().manual_seed(3)) for source in (here, there)]],
    ):
        for (images, numbers), (others, same) in zip(one, other, strict=True):
            assert others.device.type == device.type
            assert torch.equal(images, others.cpu()) and np.array_equal(numbers, same)
    assert torch.equal(here.digest(), there.digest().cpu())
