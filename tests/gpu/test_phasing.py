"""Phase retrieval, simulated crystals, and positions with their standard errors: card against CPU."""

import numpy as np
import pytest
import torch

from cathodeflow.bcdi.network import make_network
from cathodeflow.bcdi.network_options import Infer, Train
from cathodeflow.bcdi.outlines import draw_outlines
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.bcdi.rendering import render_crystals, render_intensity
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.positions import build_locator

from .cases import bragg, distance

pytestmark = pytest.mark.gpu
SIZE = 32
# Every pixel is phased.
EXACT = {"seed": 3, "free_fraction": 0.0}


@pytest.fixture(scope="module")
def amplitude() -> torch.Tensor:
    """Measured amplitude of a crystal."""
    return torch.from_numpy(np.sqrt(block([0], Simulate(size=SIZE, seed=1)).counts[0], dtype=np.float32))


@pytest.mark.parametrize("recipe", ["20*ER", "20*HIO", "20*RAAR", "10*DM"])
def test_iterations_agree(recipe, amplitude, device):
    # Without shrink-wrap, whose threshold turns rounding into voxels; these few iterations do not amplify it.
    wanted, found = (
        retrieve(amplitude, Phase(**EXACT, recipe=recipe, starts=2, shrink_every=0, device=place))
        for place in ("cpu", device.type)
    )
    assert distance(found.objects, wanted.objects) < 1e-3
    np.testing.assert_allclose(found.errors, wanted.errors, rtol=1e-3)


def test_a_whole_recipe_ends_as_well(amplitude, device):
    recipe = "20*ER+80*RAAR+20*ER"
    errors = [
        float(retrieve(amplitude, Phase(**EXACT, recipe=recipe, starts=4, device=place)).errors[:, -1].min())
        for place in ("cpu", device.type)
    ]
    assert abs(errors[1] - errors[0]) < 0.1 * errors[0]


def test_phase_retrieval_repeats_bit_for_bit(amplitude, device):
    options = Phase(**EXACT, recipe="20*ER+20*RAAR", starts=2, device=device.type)
    first, again = (retrieve(amplitude, options) for _ in range(2))
    assert torch.equal(first.objects, again.objects)


def test_images_agree(amplitude, device):
    network = make_network(Train(architecture="candidates", widths=(8, 16), seed=0))
    wanted, found = (
        predict_objects(network, amplitude.numpy(), Infer(device=place, precision="32-true"))
        for place in ("cpu", device.type)
    )
    assert distance(found.objects, wanted.objects) < 1e-3
    np.testing.assert_allclose(found.residuals, wanted.residuals, rtol=1e-3)


def test_crystals_agree(device):
    outlines = draw_outlines(range(6), Simulate(size=SIZE, seed=2))
    both = [render_crystals(outlines, size=SIZE, device=place) for place in ("cpu", device)]
    assert distance(both[1][0], both[0][0]) < 1e-4
    # The two sides of a fault: rounding decides for voxels on it.
    apart = (both[1][1].cpu() - both[0][1]).abs()
    assert (apart > 1e-2).float().mean() < 1e-3
    intensities = [render_intensity(outlines, torch.polar(*both[0]).to(place), size=SIZE) for place in ("cpu", device)]
    assert distance(intensities[1], intensities[0]) < 1e-4


def test_positions_and_standard_errors_agree(device):
    model = bragg().eval()
    random = np.random.default_rng(0)
    patches = random.random((300, 11, 11), dtype=np.float32)
    counts = np.tile(np.array([0, 100], np.float32), (300, 1))
    wanted, found = (
        build_locator(model, Locate(engine="torch", device=place, uncertainty=True))(patches, counts)
        for place in ("cpu", device.type)
    )
    for name, tolerance in (("row", 1e-3), ("col", 1e-3), ("row_std", 1e-2), ("col_std", 1e-2)):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=tolerance, atol=1e-3)
