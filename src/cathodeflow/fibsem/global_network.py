"""Base class of the global networks of FIB-SEM, and the protocol of their stochastic passes over a slice."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.network_options import CONTEXTS


class GlobalNetwork(nn.Module):  # type: ignore[misc]
    """Base of the networks that segment whole slices: slices -> logits of the classes.

    A subclass defines `forward`, from (n, context, row, col) slices of any size and numeric type [grey] to
    (n, n_classes, row, col) float32 logits; it calls `prepared` first and crops its output to the size of the slices.
    Dropout layers (`torch.nn.Dropout` and related ones) stay active in evaluation mode: one call is one stochastic
    pass.

    Parameters
    ----------
    architecture : dict
        Arguments that build the same network, among them `n_classes` and `context` (1, 3 or 5 neighbouring slices,
        which enter as channels, the slice itself in the middle).

    Raises
    ------
    InputError
        `n_classes` or `context` is out of range.
    """

    grey_mean: Tensor
    grey_deviation: Tensor
    #: Pixels of a slice per pixel of the lowest resolution.
    stride: int = 1
    #: Pixels of a slice per pixel of the highest resolution.
    reduction: int = 1

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

    def set_normalization(self, mean: float, deviation: float) -> None:
        """Set mean and standard deviation of the intensity of the training slices [grey]; they are stored as weights.

        Raises
        ------
        InputError
            The slices have no contrast.
        """
        if not deviation > 0:
            raise InputError(
                "training slices", f"intensities with a standard deviation of {deviation:g}", "some contrast"
            )
        self.grey_mean.fill_(mean)
        self.grey_deviation.fill_(deviation)

    def prepared(self, x: Tensor) -> Tensor:
        """Normalise the intensity, and repeat the last rows and columns up to a multiple of `stride`."""
        x = (x.float() - self.grey_mean) / self.grey_deviation
        below, right = (-side % self.stride for side in x.shape[-2:])
        x = F.pad(x, (0, right, 0, below), mode="replicate") if below or right else x
        return x.contiguous(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "GlobalNetwork":
        """Set the mode of all layers except dropout, which is always active."""
        super().train(mode)
        for part in _dropouts(self):
            part.train(True)
        return self


class StochasticPasses(Protocol):
    """A trained global network as `cathodeflow.fibsem.mc_dropout` applies it, not necessarily computed as in training.

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
            One for each pass. A pass depends only on the slice and its seed.
        together : int
            Maximum of pixels times passes that are computed at a time.

        Yields
        ------
        (1, channels, row, col) float32
            Sums over disjoint groups of passes, together all passes, of features whose mean gives the mean logits.
        """
        ...

    def logits(self, mean: Tensor) -> Tensor:
        """Mean logits (1, n_classes, row, col) float32 from the mean of the features over all passes."""
        ...


class MonteCarloDropout:
    """Stochastic passes of any `GlobalNetwork`, one call each (Gal and Ghahramani, ICML 2016).

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
        """Yield the logits of single passes; see `StochasticPasses`. The global random state is unchanged."""
        for seed in seeds:
            with torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []):
                torch.manual_seed(seed)
                with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
                    logits = self.network(x)
            yield logits.float()

    def logits(self, mean: Tensor) -> Tensor:
        """Return the mean, as passes yield logits."""
        return mean


def _dropouts(network: nn.Module) -> Iterator[Any]:
    return (part for part in network.modules() if isinstance(part, nn.modules.dropout._DropoutNd))
