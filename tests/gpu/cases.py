"""Every network of the package, small, with an input for it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cathodeflow.bcdi.network import make_network
from cathodeflow.bcdi.network_options import Train as TrainPhases
from cathodeflow.bragg.model import BraggNN
from cathodeflow.bragg.network_options import Train as TrainBragg
from cathodeflow.fibsem.architectures import build_network
from cathodeflow.fibsem.idk import PixelNetwork
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.local import LCGAR, WIDTHS
from cathodeflow.fibsem.network_options import TrainGlobal, TrainIdk, TrainLocal
from cathodeflow.sem.model import build_model
from cathodeflow.sem.network_options import Train as TrainSem


class Case(NamedTuple):
    """A network and what it is given."""

    network: nn.Module
    inputs: tuple[Tensor, ...]


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def bragg() -> BraggNN:
    """Make BraggNN with random weights."""
    return BraggNN(11, TrainBragg().hidden_units, generator=torch.Generator().manual_seed(0))


def _phases(architecture: str) -> Case:
    network = make_network(TrainPhases(architecture=architecture, widths=(8, 16), seed=0))
    return Case(network, (_random(2, 16, 16, 16),))


def _lcgar() -> Case:
    chosen = TrainLocal().model_dump(include={"side", "inputs", "padding", "dropout"})
    network = initialised(lambda: LCGAR(3, context=1, widths=WIDTHS, **chosen), 0)
    network.set_grey(0.0, 1.0)
    return Case(network, (_random(64, 4, 11, 11), _random(64, 3)))


CASES: dict[str, Callable[[], Case]] = {
    "BraggNN": lambda: Case(bragg(), (_random(64, 1, 11, 11),)),
    "AutoPhaseNN": lambda: _phases("autophasenn"),
    "Candidates": lambda: _phases("candidates"),
    "Unrolled": lambda: _phases("unrolled"),
    "UNet": lambda: Case(
        initialised(lambda: build_network(TrainGlobal(widths=(8, 16), dropout=0), n_classes=3), 0),
        (_random(2, 1, 32, 32),),
    ),
    "LCGAR": _lcgar,
    "PixelNetwork": lambda: Case(
        initialised(lambda: PixelNetwork(4, 1, hidden=TrainIdk().hidden), 0), (_random(64, 4),)
    ),
    "ResNet": lambda: Case(build_model(["a", "b"], TrainSem(backbone="resnet18_half")), (_random(2, 1, 64, 64),)),
}


def distance(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm."""
    found, wanted = (one.detach().cpu().to(torch.complex128 if one.is_complex() else torch.float64)
                     for one in (found, wanted))  # fmt: skip
    return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))
