"""What every global network of FIB-SEM has, and what prediction needs from it: stochastic passes over a slice."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError

CONTEXTS = (1, 3, 5)


class GlobalNetwork(nn.Module):  # type: ignore[misc]
    """Base of the networks that segment whole slices: grey slices -> logits of the classes.

    A subclass defines `forward`, from (n, context, row, col) slices of any size and numeric type [grey] to
    (n, n_classes, row, col) float32 logits; it calls `prepared` first and crops its output to the size of the slices.
    Layers of dropout (`torch.nn.Dropout` and its kin) stay on in evaluation mode: one call is one stochastic pass.

    Parameters
    ----------
    architecture : dict
        Arguments that build the same network; `n_classes` and `context` (1, 3 or 5 neighbouring slices, which enter as
        channels, the slice itself in the middle) are among them.

    Raises
    ------
    InputError
        When one of these two is out of range.
    """

    grey_mean: Tensor
    grey_deviation: Tensor
    #: Pixels of a slice in one of the lowest resolution.
    stride: int = 1

    def __init__(self, architecture: dict[str, Any]) -> None:
        super().__init__()
        if architecture["n_classes"] < 2:
            raise InputError("n_classes", str(architecture["n_classes"]), "at least 2")
        if architecture["context"] not in CONTEXTS:
            raise InputError("context", str(architecture["context"]), "1, 3 or 5")
        self.architecture = architecture
        self.register_buffer("grey_mean", torch.zeros(()))
        self.register_buffer("grey_deviation", torch.ones(()))

    @property
    def stochastic(self) -> bool:
        """Whether two calls differ."""
        return any(part.p > 0 for part in _dropouts(self))

    def standardise(self, mean: float, deviation: float) -> None:
        """Set the mean and the standard deviation of grey in the training slices [grey]; they are kept as weights are.

        Raises
        ------
        InputError
            When the slices have no contrast.
        """
        if not deviation > 0:
            raise InputError("training slices", f"a standard deviation of grey of {deviation:g}", "some contrast")
        self.grey_mean.fill_(mean)
        self.grey_deviation.fill_(deviation)

    def prepared(self, x: Tensor) -> Tensor:
        """Standardise grey, and repeat the last rows and columns up to a multiple of `stride`."""
        x = (x.float() - self.grey_mean) / self.grey_deviation
        below, right = (-side % self.stride for side in x.shape[-2:])
        x = F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
        return x.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "GlobalNetwork":
        """Set the mode of all layers but dropout, which is always on."""
        super().train(mode)
        for part in _dropouts(self):
            part.train(True)
        return self


class StochasticPasses(Protocol):
    """A trained global network as `cathodeflow.fibsem.passes` applies it, not necessarily computed as in training.

    n_classes, context, stride : int
        Of the network.
    stochastic : bool
        Whether passes differ.
    """

    n_classes: int
    context: int
    stride: int
    stochastic: bool

    def passes(self, x: Tensor, seeds: Sequence[int], together: int) -> Iterator[Tensor]:
        """Compute stochastic passes over one slice.

        Parameters
        ----------
        x : (1, context, row, col)
            On the device of the network [grey].
        seeds : sequence of int
            One for each pass. A pass depends on the slice and on its seed, not on the others.
        together : int
            Pixels times passes that may be computed at a time.

        Yields
        ------
        (1, channels, row, col) float32
            Sums over some of the passes, each pass once in one of them, of quantities whose mean gives the mean logits.
        """
        ...

    def logits(self, mean: Tensor) -> Tensor:
        """Mean logits (1, n_classes, row, col) float32 from the mean over all passes of what `passes` gives."""
        ...


class MonteCarloDropout:
    """Stochastic passes of any `GlobalNetwork`: one call for each (Gal and Ghahramani, ICML 2016).

    Parameters
    ----------
    network : GlobalNetwork
        Trained, in evaluation mode.
    dtype : torch.dtype
        bfloat16 (autocast) or float32.
    """

    def __init__(self, network: GlobalNetwork, dtype: torch.dtype = torch.float32) -> None:
        self.network, self.dtype = network, dtype
        self.n_classes, self.context = network.architecture["n_classes"], network.architecture["context"]
        self.stride, self.stochastic = network.stride, network.stochastic

    def passes(self, x: Tensor, seeds: Sequence[int], together: int) -> Iterator[Tensor]:
        """Give the logits of one pass after the other; see `StochasticPasses`. Global random state stays as it was."""
        for seed in seeds:
            with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(seed)
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                    logits = self.network(x)
            yield logits.float()

    def logits(self, mean: Tensor) -> Tensor:
        """Give the mean back: passes give logits."""
        return mean


def _dropouts(network: nn.Module) -> Iterator[Any]:
    return (part for part in network.modules() if isinstance(part, nn.modules.dropout._DropoutNd))
