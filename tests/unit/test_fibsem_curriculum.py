import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cathodeflow.checkpoints import generator
from cathodeflow.fibsem.curriculum import pool_size, sampled_entropy
from cathodeflow.fibsem.local_training import paced
from cathodeflow.fibsem.network_options import Curriculum


@pytest.mark.parametrize("kind", ["linear", "root", "step", "none"])
def test_the_pool_grows_from_its_start_to_all(kind):
    options = Curriculum(pacing=kind, start_fraction=0.1, full_at=0.6, stages=4)
    sizes = [pool_size(index, 30, 1000, options) for index in range(30)]
    assert sizes == sorted(sizes) and sizes[18:] == [1000] * 12
    assert sizes[0] == (1000 if kind == "none" else 100)
    if kind == "step":
        assert sorted(set(sizes)) == [100, 400, 700, 1000]
    if kind == "root":
        # As many new pixels per pixel in the pool: the square grows evenly.
        steps = torch.tensor(sizes[:18]).double().square().diff()
        assert steps.std() < 0.02 * steps.mean()
    if kind == "linear":
        assert set(torch.tensor(sizes[:18]).diff().tolist()) == {50}
    assert pool_size(0, 5, 3, Curriculum(pacing=kind, start_fraction=0.01)) == (3 if kind == "none" else 1)


@pytest.mark.parametrize("options", [{"start_fraction": 0.0}, {"full_at": 1.5}, {"stages": 1}])
def test_parameters_out_of_range_are_named(options):
    with pytest.raises(ValidationError, match=next(iter(options))):
        Curriculum(**options)


def test_a_sample_of_entropies_has_their_distribution():
    entropy = np.random.default_rng(0).gamma(2.0, size=30_001)
    found = sampled_entropy(entropy)
    assert len(found) == 2000 and (np.diff(found) >= 0).all()
    levels = np.linspace(0.02, 0.95, 50)
    np.testing.assert_allclose(np.quantile(found, levels), np.quantile(entropy, levels), atol=0.02)
    np.testing.assert_array_equal(sampled_entropy(entropy[:1999]), np.sort(entropy[:1999]))


def test_batches_come_from_the_pool_shuffled():
    entropy = torch.rand(1000, generator=generator(0))
    order = torch.argsort(entropy, stable=True)
    batches = list(paced(order, 300, generator(1), batch_size=64, count=1000))
    assert [len(one) for one in batches] == [64] * 15 + [40]
    drawn = torch.cat(batches)
    assert entropy[drawn].max() <= entropy.sort().values[299]
    # Every pixel of the pool as often as the others: 3 or 4 times.
    counts = torch.bincount(drawn, minlength=1000)[order[:300]]
    assert set(counts.tolist()) == {3, 4} and int(counts.sum()) == 1000
    # Not from easy to hard, neither over the epoch nor inside a batch.
    means = torch.tensor([entropy[one].mean() for one in batches])
    assert abs(torch.corrcoef(torch.stack([means, torch.arange(16.0)]))[0, 1]) < 0.6
    ranks = torch.argsort(order)[drawn[:300]].double()
    assert abs(torch.corrcoef(torch.stack([ranks, torch.arange(300.0).double()]))[0, 1]) < 0.2


def test_the_whole_pool_is_every_pixel_once_in_an_order_of_the_seed():
    order = torch.randperm(500, generator=generator(0))
    first, again, other = (
        torch.cat(list(paced(order, 500, generator(s), batch_size=100, count=500))) for s in (1, 1, 2)
    )
    assert torch.equal(first.sort().values, torch.arange(500))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_pool_smaller_than_a_batch_is_repeated():
    batches = list(paced(torch.arange(50), 7, generator(0), batch_size=20, count=45))
    assert [len(one) for one in batches] == [20, 20, 5] and torch.cat(batches).max() < 7
