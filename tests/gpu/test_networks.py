"""Networks give on a graphics card what they give on a CPU."""

import copy

import pytest
import torch

from .cases import CASES, Case, distance

pytestmark = pytest.mark.gpu

# Norm of the difference over the norm of the result: sums in another order; and the 8 bits of bfloat16.
FLOAT32, BFLOAT16 = 1e-4, 5e-2


@pytest.fixture(params=CASES, scope="module")
def case(request) -> Case:
    """A network in evaluation mode with an input."""
    network, inputs = CASES[request.param]()
    return Case(network.eval(), inputs)


def on(device: torch.device, case: Case) -> Case:
    """Copy a network and its input to a device."""
    return Case(copy.deepcopy(case.network).to(device), tuple(one.to(device) for one in case.inputs))


def test_outputs_agree(case, device):
    with torch.no_grad():
        wanted = case.network(*case.inputs)
        network, inputs = on(device, case)
        assert distance(network(*inputs), wanted) < FLOAT32


def test_gradients_agree(case, device):
    gradients = []
    for place in ("cpu", device):
        network, inputs = on(torch.device(place), case)
        network(*inputs).abs().square().sum().backward()
        gradients.append(torch.cat([one.grad.flatten().cpu() for one in network.parameters() if one.grad is not None]))
    assert torch.isfinite(gradients[0]).all() and gradients[0].abs().max() > 0
    assert distance(gradients[1], gradients[0]) < 10 * FLOAT32


def test_the_same_input_gives_the_same_output(case, device):
    network, inputs = on(device, case)
    with torch.no_grad():
        assert torch.equal(network(*inputs), network(*inputs))


def test_mixed_precision_agrees(case, device):
    network, inputs = on(device, case)
    with torch.no_grad():
        wanted = network(*inputs)
        with torch.autocast(device.type, torch.bfloat16):
            found = network(*inputs)
    assert distance(found, wanted) < BFLOAT16
