"""The local model with global annotated regions (LCGAR): classes of single pixels from the windows around them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.windows import Padded

Inputs = Literal["image", "image+classes", "image+logits", "all"]
Padding = Literal["zeros", "image"]
SLOPE = 0.01
#: Channels of the three pairs of convolutions in the paper.
WIDTHS = (32, 16, 8)


class LocalNetwork(nn.Module):  # type: ignore[misc]
    """Base of the local models: windows or slices with the global model's classes -> logits; they know the greys.

    Parameters
    ----------
    architecture : dict
        Arguments that build the same network, among them `n_classes`, `context` and `inputs`.
    window : int
        Side of the windows that enter [px].
    """

    grey_low: Tensor
    grey_high: Tensor
    #: Last layer, which `calibration.calibrate_output` changes.
    output: nn.Linear

    def __init__(self, architecture: dict[str, Any], *, window: int) -> None:
        super().__init__()
        self.architecture = architecture
        self.window = window
        n_classes, inputs = architecture["n_classes"], architecture["inputs"]
        #: Images and classes that enter.
        self.channels = architecture["context"] + (n_classes if inputs in ("image+classes", "all") else 0)
        #: Logits of the pixel that enter.
        self.appended = n_classes if inputs in ("image+logits", "all") else 0
        self.register_buffer("grey_low", torch.zeros(()))
        self.register_buffer("grey_high", torch.ones(()))

    def set_grey(self, low: float, high: float) -> None:
        """Set the intensities that `windows.pad_slices` scales to -1 and 1; they are stored as weights."""
        if not high > low:
            raise InputError("training slices", f"intensities from {low:g} to {high:g}", "some contrast")
        self.grey_low.fill_(low)
        self.grey_high.fill_(high)


class LCGAR(LocalNetwork):
    """Windows around pixels -> logits of their phases (the paper's table 4).

    Convolutions 3x3 32, 32, pooling, 3x3 16, 16, pooling, 1x1 8, 8; the global model's logits of the pixel are appended
    to the flattened features; a dense layer of 128 with dropout, batch normalisation, and the output. Leaky ReLU.

    Parameters
    ----------
    n_classes : int
    context : int
        Number of neighbouring slices, the slice itself included, whose images enter as channels.
    side : int
        Side of a window, odd, at least 5 [px].
    inputs : {"image", "image+classes", "image+logits", "all"}
        The rows Only-Image, Image+UGSM-Y, Image+UGSM-Emb and MatPhase of the paper's table 2.
    padding : {"zeros", "image"}
        Padding of the 3x3 convolutions at window borders: zeros, as published, or the neighbouring pixels. Features
        then do not depend on the window, and `local_prediction.predict_dense` computes those of a whole slice at once.
    dropout : float
    widths : (int, int, int)
        Channels of the three pairs of convolutions.
    dense : int
        Hidden units of the dense layer.

    Raises
    ------
    InputError
        When `side` is even or too small for two poolings.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        context: int,
        side: int,
        inputs: Inputs,
        padding: Padding,
        dropout: float,
        widths: Sequence[int],
        dense: int = 128,
    ) -> None:
        if side < 5 or side % 2 == 0:
            raise InputError("window", f"a side of {side} px", "an odd number, at least 5")
        super().__init__(
            {"n_classes": n_classes, "context": context, "side": side, "inputs": inputs, "padding": padding,
             "widths": list(widths), "dense": dense, "dropout": dropout},
            window=window_side(side, padding),
        )  # fmt: skip
        self.convolutions = nn.ModuleList()
        before = self.channels
        for width, kernel in zip(widths, (3, 3, 1), strict=True):
            for _ in range(2):
                border = kernel // 2 if padding == "zeros" else 0
                self.convolutions.append(nn.Conv2d(before, width, kernel, padding=border))
                before = width
        self.hidden = nn.Linear(before * (side // 4) ** 2 + self.appended, dense)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(dense)
        self.output = nn.Linear(dense, n_classes)

    def forward(self, windows: Tensor, logits: Tensor) -> Tensor:
        """Turn (n, context + n_classes, window, window) windows and (n, n_classes) logits into such logits."""
        x = windows[:, : self.channels]
        if self.architecture["padding"] == "image":
            # Two poolings and four convolutions need an even side.
            x = x[..., :-1, :-1]
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            # The activation is monotonic, so it can follow the pooling.
            x = F.leaky_relu(_pooled(x) if index in (1, 3) else x, SLOPE, inplace=True)
        return self.classify(x.flatten(1), logits)

    def classify(self, flat: Tensor, logits: Tensor) -> Tensor:
        """Turn flattened features (n, widths[-1] * (side // 4)^2) and logits (n, n_classes) into logits."""
        with torch.autocast(flat.device.type, enabled=False):
            flat = flat.float()
            if self.appended:
                flat = torch.cat([flat, logits], 1)
            return self.output(self.norm(self.dropout(F.leaky_relu(self.hidden(flat), SLOPE))))


def window_side(side: int, padding: Padding) -> int:
    """Side of the windows that enter a model with these parameters [px]."""
    return side if padding == "zeros" else 4 * (side // 4) + 13


def _pooled(x: Tensor) -> Tensor:
    """2x2 max pooling; an odd last row and column are left out."""
    if x.requires_grad:
        return F.max_pool2d(x, 2)
    rows, cols = (side // 2 * 2 for side in x.shape[2:])
    upper, lower = x[:, :, 0:rows:2], x[:, :, 1:rows:2]
    both = torch.maximum(upper, lower)
    return torch.maximum(both[..., 0:cols:2], both[..., 1:cols:2])


def require_windows(model: LocalNetwork, padded: Padded) -> None:
    """Require that the side of the windows and the number of neighbouring slices are those of a model.

    Raises
    ------
    InputError
        They are not.
    """
    if (padded.side, padded.neighbours.shape[1]) != (model.window, model.architecture["context"]):
        found = f"windows of {padded.side} px from {padded.neighbours.shape[1]} slices"
        raise InputError("LCGAR", found, f"{model.window} px from {model.architecture['context']}")
