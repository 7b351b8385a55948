import itertools
import math

import pytest
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.mc_dropout import VIEWS, entropy, tiles
from tests.unit.test_fibsem_unet import predict_slices, small


def slices(n=1, rows=40, cols=56, context=1, seed=0):
    return torch.rand(n, context, rows, cols, generator=torch.Generator().manual_seed(seed))


def test_entropy_is_that_of_the_softmax_in_nats():
    logits = torch.randn(2, 3, 4, 5)
    p = torch.softmax(logits.double(), 1)
    assert torch.allclose(entropy(logits).double(), -(p * p.log()).sum(1), atol=1e-6)
    assert entropy(torch.zeros(1, 3, 1, 1)).item() == pytest.approx(math.log(3))
    assert entropy(torch.tensor([[500.0, -500.0, 0.0]])).item() == 0


def test_without_dropout_it_is_the_network():
    network, x = small(context=3), slices(2, 37, 41, context=3)
    with torch.no_grad():
        expected = network(x)
        mirrored = torch.stack([network(x.flip(view)).flip(view) for view in VIEWS]).mean(0)
    found = predict_slices(network, x, passes=9, precision="32-true")
    assert torch.allclose(found.logits, expected, atol=1e-5)
    assert torch.allclose(found.entropy, entropy(expected), atol=1e-5)
    flipped = predict_slices(network, x, passes=9, tta=True, precision="32-true").logits
    assert torch.allclose(flipped, mirrored, atol=1e-5)


@pytest.mark.parametrize("where", ["blocks", "deep"])
@pytest.mark.parametrize("kind", ["element", "channel"])
def test_the_mean_is_that_of_separate_calls_within_the_sampling_error(where, kind):
    network, x = small(dropout=0.3, dropout_where=where, dropout_kind=kind), slices()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        separate = torch.cat([network(x) for _ in range(400)])
    error = separate.std(0) / 20
    found = predict_slices(network, x, passes=400, precision="32-true").logits[0]
    # The expectation replaces the last dropout, so the scatter of ours is at most that of the calls.
    score = (found - separate.mean(0)) / (math.sqrt(2) * error)
    assert 0.3 < score.square().mean().sqrt() < 1.15 and score.abs().max() < 6


def test_bfloat16_differs_by_less_than_the_sampling_error():
    network, x = small(dropout=0.5), slices()
    exact, rounded = (predict_slices(network, x, passes=8, precision=p).logits for p in ("32-true", "bf16-mixed"))
    other = predict_slices(network, x, passes=8, precision="32-true", seed=1).logits
    assert (exact - rounded).std() < 0.2 * (exact - other).std()


def test_random_numbers_belong_to_the_slice_and_not_to_the_call():
    network, x = small(dropout=0.5), slices(3)
    options = {"passes": 6, "precision": "32-true", "tile": 32, "overlap": 8, "seed": 4}
    together = predict_slices(network, x, **options).logits
    for number in range(3):
        alone = predict_slices(network, x[number : number + 1], indices=[number], together=1, **options).logits[0]
        assert torch.allclose(alone, together[number], atol=1e-5)
    assert not torch.allclose(predict_slices(network, x, indices=[5, 6, 7], **options).logits, together, atol=1e-2)
    assert torch.equal(predict_slices(network, x, **options).logits, together)
    assert not torch.allclose(predict_slices(network, x, **options | {"seed": 5}).logits, together, atol=1e-2)


def test_global_random_numbers_are_neither_used_nor_changed():
    network, x = small(dropout=0.5), slices()
    torch.manual_seed(2)
    expected = torch.rand(3)
    torch.manual_seed(2)
    predict_slices(network, x, passes=2)
    assert torch.equal(torch.rand(3), expected)


def test_tiles_cover_a_slice_and_overlap():
    for rows, cols in [(100, 300), (513, 640), (64, 65), (7, 2000)]:
        covered = torch.zeros(rows, cols, dtype=torch.int64)
        found = tiles(rows, cols, tile=64, overlap=16, stride=8)
        for top, bottom, left, right in found:
            assert top % 8 == left % 8 == 0 and bottom - top <= 72 and right - left <= 72
            covered[top:bottom, left:right] += 1
        assert covered.min() >= 1
        spans = sorted({(one.left, one.right) for one in found})
        assert all(before[1] - after[0] >= 16 for before, after in itertools.pairwise(spans))
    assert len(tiles(64, 64, tile=64, overlap=16)) == 1


def test_tiles_give_what_the_whole_slice_does_away_from_their_edges():
    network, x = small(widths=(8, 16)), slices(1, 96, 104)
    whole = predict_slices(network, x, precision="32-true").logits
    tiled = predict_slices(network, x, tile=48, overlap=24, precision="32-true").logits
    apart = (tiled - whole).abs()
    # Only near a tile's edge, where the network sees zeros and the weight is small, may they differ.
    assert apart.median() < 1e-4 * whole.std() and apart.max() < 0.15 * whole.std()
    assert apart.flatten().quantile(0.9) < 0.01 * whole.std()


def test_tiles_fade_into_each_other():
    network, x = small(widths=(8, 16)), slices(1, 48, 72)
    tiled = predict_slices(network, x, tile=48, overlap=24, precision="32-true").logits
    left, right = (predict_slices(network, part, precision="32-true").logits for part in (x[..., :48], x[..., 24:]))
    fading = (torch.arange(24) + 0.5) / 24
    assert torch.allclose(tiled[..., :24], left[..., :24], atol=1e-5)
    assert torch.allclose(tiled[..., 48:], right[..., 24:], atol=1e-5)
    between = left[..., 24:] * (1 - fading) + right[..., :24] * fading
    torch.testing.assert_close(tiled[..., 24:48], between, atol=1e-5, rtol=1e-4)
    assert (left[..., -1] - right[..., 23]).abs().max() > 1e-2


def test_bad_input_is_named():
    network = small(context=3)
    with pytest.raises(InputError, match=r"\(n, 3, row, col\)"):
        predict_slices(network, slices())
    with pytest.raises(InputError, match="passes"):
        predict_slices(network, slices(context=3), passes=0)
    with pytest.raises(InputError, match="overlap"):
        predict_slices(network, slices(context=3), tile=32, overlap=32)
