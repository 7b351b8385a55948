"""The U-Net of the global models: neighbouring slices as channels, dropout that stays active."""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork

DropoutKind = Literal["element", "channel"]
Normalization = Literal["batch", "none"]
DropoutWhere = Literal["blocks", "deep"]
# Random numbers have 16 bits: a probability is met to 1 in 65536.
_LEVELS = 2**16


class Block(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions, each with batch normalisation, unless it is left out, and ReLU."""

    def __init__(self, before: int, after: int, *, normalized: bool = True) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(after) if normalized else nn.Identity()

        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=not normalized), norm(), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=not normalized), norm(), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, before, h, w) into (n, after, h, w)."""
        return self.layers(x)


class UNet(GlobalNetwork):
    """Slices -> logits of the classes (Ronneberger et al., MICCAI 2015), with dropout after convolution blocks.

    Dropout stays active in evaluation mode: batch normalisation has learned the statistics of features with dropout,
    and its output is meaningless without. One call is therefore one stochastic pass; `cathodeflow.fibsem.mc_dropout`
    averages many of them. Without dropout (0) a call is the prediction.

    Parameters
    ----------
    n_classes : int
    context : {1, 3, 5}
        Neighbouring slices that enter as channels, the slice itself in the middle.
    widths : sequence of int
        Channels of the blocks from the highest to the lowest resolution; each resolution is half the previous one.
    dropout : float
        Probability, in [0, 1).
    dropout_where : {"blocks", "deep"}
        After every block of encoder and decoder (as published); or only after the blocks of the two lowest resolutions,
        so that features of high resolution are computed once for all passes, without dropout.
    dropout_kind : {"element", "channel"}
        Single features are dropped (`torch.nn.Dropout`), or whole channels (`torch.nn.Dropout2d`).
    normalization : {"batch", "none"}
        Batch normalisation after each convolution, or none, as in the U-Net of Ronneberger et al.

    Raises
    ------
    InputError
        A parameter is out of range.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        context: int,
        widths: Sequence[int],
        dropout: float,
        dropout_where: DropoutWhere,
        dropout_kind: DropoutKind,
        normalization: Normalization,
    ) -> None:
        super().__init__(
            {"n_classes": n_classes, "context": context, "widths": list(widths), "dropout": dropout,
             "dropout_where": dropout_where, "dropout_kind": dropout_kind, "normalization": normalization}
        )  # fmt: skip
        if not widths or min(widths) < 1:
            raise InputError("widths", str(list(widths)), "channels of one or more resolutions")
        if not 0 <= dropout < 1:
            raise InputError("dropout", str(dropout), "at least 0, below 1")
        self.stride = 2 ** (len(widths) - 1)
        normalized = normalization == "batch"
        self.encoders = nn.ModuleList(
            [
                Block(before, after, normalized=normalized)
                for before, after in zip((context, *widths), widths, strict=False)
            ]
        )
        upper = list(itertools.pairwise(widths))
        self.ups = nn.ModuleList([nn.ConvTranspose2d(below, width, 2, stride=2) for width, below in upper])
        self.decoders = nn.ModuleList([Block(2 * width, width, normalized=normalized) for width, _ in upper])
        self.head = nn.Conv2d(widths[0], n_classes, 1)

    def rate(self, level: int) -> float:
        """Probability of dropout after the blocks of a level; 0 is the highest resolution."""
        dropped = self.architecture["dropout_where"] == "blocks" or level >= len(self.ups) - 1
        return float(self.architecture["dropout"]) if dropped else 0.0

    @property
    def stochastic(self) -> bool:
        """Whether two calls differ."""
        return self.architecture["dropout"] > 0

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in one stochastic pass with random numbers of torch's default generator.

        Parameters
        ----------
        x : (n, context, row, col)
            Any size, any numeric type [grey].

        Returns
        -------
        (n, n_classes, row, col) float
            Logits.
        """
        size = x.shape[-2:]
        x = self.prepared(x)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoders):
            x = self._thinned(block(F.max_pool2d(x, 2) if level else x), level)
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            x = self.decoders[level](torch.cat([skips[level], self.ups[level](x)], 1))
            x = self._thinned(x, level)
        # Not in bfloat16: entropy needs more than two to three digits.
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())[..., : size[0], : size[1]]

    def _thinned(self, x: Tensor, level: int) -> Tensor:
        rate = self.rate(level)
        if rate == 0:
            return x
        mask = keep_mask(x.shape, rate, self.architecture["dropout_kind"], x.device)
        return x * mask.to(x.dtype).mul_(-1 / (1 - rate))


def keep_mask(
    shape: Sequence[int], rate: float, kind: DropoutKind, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the features that are kept: 16-bit words of ones if kept, of zeros if dropped.

    Parameters
    ----------
    shape : (n, channels, row, col)
    rate : float
        Probability that a feature is dropped.
    kind : {"element", "channel"}
    device : torch.device
    generator : torch.Generator, optional
        On that device.

    Returns
    -------
    (n, channels, row, col) int16, or (n, channels, 1, 1) for channels
        0 or -1, in memory with the channels last.

    Notes
    -----
    One 64-bit random number serves four features: this takes 1 ns per feature on a CPU, `torch.nn.functional.dropout`
    10 ns.
    """
    n, channels, rows, cols = shape
    if kind == "channel":
        rows = cols = 1
    count = n * rows * cols * channels
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)
    numbers = words.view(torch.int16)[:count].view(n, rows, cols, channels).permute(0, 3, 1, 2)
    if rate == 0.5:
        return numbers >> 15
    return torch.ge(numbers, round(rate * _LEVELS) - _LEVELS // 2).to(torch.int16).neg_()
