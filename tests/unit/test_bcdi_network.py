import math
from typing import get_args

import numpy as np
import pytest
import torch

from cathodeflow.bcdi.network import PhaseNetwork, padded, restored
from cathodeflow.bcdi.network import make_network as make_from
from cathodeflow.bcdi.network_options import Architecture, Infer, Train
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.operators import fourier
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.errors import InputError

SMALL = {"widths": (4, 8, 16, 32), "candidates": 3}
ARCHITECTURES = get_args(Architecture)
PLAIN = Infer(device="cpu", precision="32-true")


def make_network(architecture, *, threshold=0.1, **options):
    return make_from(Train(architecture=architecture, threshold=(0.07, threshold), **options))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def patterns(n=1, shape=(16, 16, 16), seed=0):
    """Amplitudes of boxes with a smooth phase, square roots of some 1e5 counts."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(side) - side // 2 for side in shape), indexing="ij"))
    sides = np.array(shape)[:, None, None, None]
    made = []
    for _ in range(n):
        half = sides * random.uniform(0.1, 0.2, 3)[:, None, None, None]
        phase = np.einsum("i,izyx->zyx", random.normal(size=3) * 6, (grid / sides) ** 2)
        one = torch.from_numpy((np.abs(grid) <= half).all(0) * np.exp(1j * phase)).to(torch.complex64)
        far = amplitude_of(one)
        made.append(torch.poisson((far * math.sqrt(1e5) / far.norm()) ** 2, torch.Generator().manual_seed(seed)).sqrt())
    return torch.stack(made)


def spread(model, seed=0):
    """Weights as large as those of a trained network, so that outputs reach the limits of their range."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith(("head.weight", "last.weight")):
                weights.copy_(torch.randn(weights.shape, generator=random) * (20 if "decoder" in name else 0.5))
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(16, 16, 16), (32, 16, 48)])
def test_objects_lie_in_the_middle_with_amplitude_and_phase_in_range(architecture, shape):
    model = spread(make_network(architecture, **SMALL)).eval()
    found = model(patterns(2, shape))
    assert found.shape == (2, 1 if architecture == "autophasenn" else 3, *shape) and found.dtype == torch.complex64
    size = found.abs()
    assert size.max() <= 1 + 1e-6
    assert set((size[size > 0] >= 0.1 - 1e-6).tolist()) == {True} and (size == 0).any()
    # All values of the phase are in reach.
    assert found[size > 0].angle().abs().max() > 2
    middle = tuple(slice(side // 4, side // 4 + side // 2) for side in shape)
    assert torch.equal(padded(found[(..., *middle)]), found)
    model.threshold = 0.5
    higher = model(patterns(2, shape))
    assert torch.equal(higher, torch.where(size >= 0.5, found, 0)) or architecture == "unrolled"
    assert ((higher == 0) | (higher.abs() >= 0.5 - 1e-6)).all()


def test_the_published_network_has_the_published_size():
    # Convolutions 3x3x3 with biases, two numbers for each channel that is normalised.
    def blocks(pairs):
        return sum(27 * (a * b + b * b) + 6 * b for a, b in pairs)

    decoder = blocks([(256, 128), (128, 64), (64, 32)]) + 27 * 32 + 1
    expected = blocks([(1, 32), (32, 64), (64, 128), (128, 256)]) + 2 * decoder
    assert sum(weights.numel() for weights in make_network("autophasenn").parameters()) == expected
    assert expected == pytest.approx(7.0e6, rel=0.01)
    assert sum(weights.numel() for weights in make_network("unrolled").parameters()) < expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scale_of_the_amplitude_does_not_matter(architecture):
    model = make_network(architecture, **SMALL).eval()
    measured = patterns()
    torch.testing.assert_close(model(measured), model(measured * 1e-3), atol=1e-4, rtol=1e-3)
    assert not torch.equal(model(measured), model(patterns(seed=5)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_agrees_with_float32_and_trains_where_volumes_are_small(architecture):
    measured = patterns(2, (32, 32, 32))
    model = make_network(architecture, **SMALL)
    exact, fast = (
        predict_objects(model, measured, Infer(device="cpu", precision=one)) for one in ("32-true", "bf16-mixed")
    )
    assert exact.objects.dtype == fast.objects.dtype == torch.complex64
    # Candidates may change places where their residuals are equal but for rounding.
    assert (exact.residuals - fast.residuals).abs().max() < 1e-2 * exact.residuals.max()
    with torch.no_grad():
        found = model(measured)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(measured)
    assert (rounded - found).norm() < 1e-2 * found.norm()
    # At 2 x 2 x 2 voxels a bfloat16 convolution has no usable gradient.
    with torch.autocast("cpu", torch.bfloat16):
        found = model.train()(measured)
    amplitude_of(found).square().mean().backward()
    norms = [float(weights.grad.norm()) for weights in model.parameters()]
    assert all(0 <= norm < 1e3 for norm in norms) and sum(norms) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_stored_weights_make_the_same_network(architecture):
    model = spread(make_network(architecture, seed=3, threshold=0.2, stages=1, **SMALL)).eval()
    model.threshold = 0.25
    again = restored(model.state_dict(), {"architecture": model.architecture})
    assert again.threshold == 0.25 and torch.equal(again(patterns()), model(patterns()))
    other = "candidates" if architecture == "autophasenn" else "autophasenn"
    with pytest.raises(InputError, match="weights: found "):
        restored(model.state_dict(), {"architecture": model.architecture | {"architecture": other}})


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, other = make_network("unrolled", seed=1, **SMALL), make_network("unrolled", seed=2, **SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    again = make_network("unrolled", seed=1, **SMALL)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.layers.stem.weight, other.layers.stem.weight)


def test_a_stage_sees_the_measured_amplitude():
    """Without its correction the candidates are those of the first part; with it they depend on the projection."""
    model = make_network("unrolled", stages=1, **SMALL).eval()
    plain = make_network("candidates", **SMALL).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".stages." not in k})
    measured = patterns()
    torch.testing.assert_close(model(measured), plain(measured))
    spread(model)
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".stages." not in k})
    assert not torch.allclose(model(measured), plain(measured), atol=1e-2)


def test_inference_gives_sorted_candidates_on_the_scale_of_the_measurement():
    measured = patterns(3)
    model = spread(make_network("candidates", **SMALL))
    many = predict_objects(model, measured.numpy(), PLAIN)
    assert many.objects.shape == many.supports.shape == (3, 3, 16, 16, 16) and many.residuals.shape == (3, 3)
    assert (many.residuals.diff(dim=1) >= 0).all() and many.residuals.max() > many.residuals.min()
    assert torch.equal(many.supports, many.objects != 0)
    far, measured_far = amplitude_of(many.objects).flatten(2), measured.flatten(1)[:, None]
    torch.testing.assert_close(far.norm(dim=2), measured_far.norm(dim=2).expand(3, 3))
    distance = (far - measured_far).norm(dim=2) / measured_far.norm(dim=2)
    torch.testing.assert_close(distance, many.residuals, atol=1e-5, rtol=1e-4)
    one = predict_objects(model, measured[1], PLAIN)
    torch.testing.assert_close(one.objects, many.objects[1], atol=1e-3, rtol=1e-3)


def test_a_network_may_see_the_middle_of_a_larger_pattern_alone():
    model, small = spread(make_network("candidates", **SMALL)), patterns()[0]
    large = torch.nn.functional.pad(small, [8] * 6)
    mask = torch.ones(32, 32, 32, dtype=torch.bool)
    coarse = predict_objects(model, small, PLAIN)
    fine = predict_objects(model, large, PLAIN.model_copy(update={"side": 16}), mask=mask)
    assert fine.objects.shape == (3, 32, 32, 32) and torch.equal(fine.residuals, coarse.residuals)
    assert torch.equal(fine.supports, fine.objects != 0)
    waves = fourier(fine.objects)
    within = waves[:, 8:24, 8:24, 8:24]
    # But for the faint ringing of the edges, which is cut off.
    assert within.norm() > 0.95 * waves.norm()
    assert (within - fourier(coarse.objects)).norm() < 0.25 * within.norm()
    for same in (16, 40):
        torch.testing.assert_close(
            predict_objects(model, small, PLAIN.model_copy(update={"side": same})).objects, coarse.objects
        )


def test_pixels_that_were_not_measured_do_not_matter():
    model = make_network("unrolled", **SMALL)
    measured, mask = patterns()[0], torch.ones(16, 16, 16, dtype=torch.bool)
    mask[:, 2] = False
    spoilt = torch.where(mask, measured, 1e4)
    for a, b in zip(
        predict_objects(model, measured, PLAIN, mask=mask),
        predict_objects(model, spoilt, PLAIN, mask=mask),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("volume", "named"),
    [
        (torch.ones(20, 16, 16), r"shape \(20, 16, 16\), expected .* divisible by 16"),
        (torch.ones(2, 2, 16, 16, 16), r"shape \(2, 2, 16, 16, 16\)"),
        (torch.zeros(16, 16, 16), "volume 0 0 everywhere"),
        (-torch.ones(16, 16, 16), "from -1 to -1"),
        (torch.full((16, 16, 16), math.nan), "from nan to nan"),
    ],
)
def test_bad_volumes_are_named(volume, named):
    model = make_network("autophasenn", widths=(2, 2, 2, 2))
    with pytest.raises(InputError, match=named):
        predict_objects(model, volume, PLAIN)


def test_a_mask_of_another_shape_is_named():
    with pytest.raises(InputError, match="mask: found shape"):
        predict_objects(make_network("autophasenn", widths=(2, 2, 2, 2)), patterns()[0], PLAIN, mask=torch.ones(16, 16))


@pytest.mark.parametrize(
    "options",
    [{"architecture": "resnet"}, {"widths": (4,)}, {"threshold": 1.0}, {"candidates": 0}, {"stages": 0}],
)
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=f"^{next(iter(options))}: found"):
        PhaseNetwork(**{"architecture": "unrolled", "threshold": 0.1, "stages": 2, **SMALL} | options)
