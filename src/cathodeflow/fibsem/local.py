"""The local model with global annotated regions (LCGAR): phases of single pixels from the windows around them."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.windows import Padded, gather
from cathodeflow.learning import resolve_precision

Inputs = Literal["image", "image+classes", "image+logits", "all"]
Edges = Literal["zero", "seen"]
SLOPE = 0.01


class LCGAR(nn.Module):  # type: ignore[misc]
    """Windows around pixels -> logits of their phases (the paper's table 4).

    Convolutions 3x3 32, 32, pooling, 3x3 16, 16, pooling, 1x1 8, 8; the global model's logits of the pixel join the
    flattened features; a dense layer of 128 with dropout, batch normalisation, and the output. Leaky ReLU.

    Parameters
    ----------
    n_classes : int
    context : int
        Neighbouring slices whose image enters as channels.
    side : int
        Of a window, odd, at least 5 [px].
    inputs : {"image", "image+classes", "image+logits", "all"}
        The rows Only-Image, Image+UGSM-Y, Image+UGSM-Emb and MatPhase of the paper's table 2.
    edges : {"zero", "seen"}
        What 3x3 convolutions find beyond the window: zeros, as published; or what is there. Then features do
        not depend on whose window they are in, and `cathodeflow.fibsem.dense` computes those of a whole slice at once.
    widths : (int, int, int)
        Channels of the three pairs of convolutions.
    dense : int
    dropout : float

    Raises
    ------
    InputError
        When `side` is even or too small for two poolings.
    """

    grey_low: Tensor
    grey_high: Tensor

    def __init__(
        self,
        n_classes: int = 3,
        *,
        context: int = 1,
        side: int = 11,
        inputs: Inputs = "all",
        edges: Edges = "zero",
        widths: Sequence[int] = (32, 16, 8),
        dense: int = 128,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if side < 5 or side % 2 == 0:
            raise InputError("window", f"a side of {side} px", "an odd number, at least 5")
        self.architecture: dict[str, Any] = {
            "n_classes": n_classes, "context": context, "side": side, "inputs": inputs, "edges": edges,
            "widths": list(widths), "dense": dense, "dropout": dropout,
        }  # fmt: skip
        self.register_buffer("grey_low", torch.zeros(()))
        self.register_buffer("grey_high", torch.ones(()))
        self.channels = context + (n_classes if inputs in ("image+classes", "all") else 0)
        self.convolutions = nn.ModuleList()
        before = self.channels
        for width, kernel in zip(widths, (3, 3, 1), strict=True):
            for _ in range(2):
                padding = kernel // 2 if edges == "zero" else 0
                self.convolutions.append(nn.Conv2d(before, width, kernel, padding=padding))
                before = width
        #: Side of the windows to give [px].
        self.window = window_side(side, edges)
        flat = before * (side // 4) ** 2 + (n_classes if inputs in ("image+logits", "all") else 0)
        self.hidden = nn.Linear(flat, dense)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.BatchNorm1d(dense)
        self.output = nn.Linear(dense, n_classes)

    def set_grey(self, low: float, high: float) -> None:
        """Set the grey in the training slices that becomes -1 and 1 (`windows.pad_slices`); kept as weights are."""
        if not high > low:
            raise InputError("training slices", f"grey from {low:g} to {high:g}", "some contrast")
        self.grey_low.fill_(low)
        self.grey_high.fill_(high)

    def forward(self, windows: Tensor, logits: Tensor) -> Tensor:
        """Turn (n, context + n_classes, window, window) windows and (n, n_classes) logits into such logits."""
        x = windows[:, : self.channels]
        if self.architecture["edges"] == "seen":
            # Two poolings and four convolutions need an even side.
            x = x[..., :-1, :-1]
        for place, convolution in enumerate(self.convolutions):
            x = convolution(x)
            # The activation rises, so the greatest of four is the same before and after it.
            x = F.leaky_relu(_pooled(x) if place in (1, 3) else x, SLOPE, inplace=True)
        return self.classify(x.flatten(1), logits)

    def classify(self, flat: Tensor, logits: Tensor) -> Tensor:
        """Turn flattened features (n, widths[-1] * (side // 4)^2) and logits (n, n_classes) into logits."""
        with torch.autocast(flat.device.type, enabled=False):
            flat = flat.float()
            if self.architecture["inputs"] in ("image+logits", "all"):
                flat = torch.cat([flat, logits], 1)
            return self.output(self.norm(self.dropout(F.leaky_relu(self.hidden(flat), SLOPE))))


def window_side(side: int, edges: Edges) -> int:
    """Side of the windows that a model with these parameters sees [px]."""
    return side if edges == "zero" else 4 * (side // 4) + 13


def _pooled(x: Tensor) -> Tensor:
    """Greatest of 2x2; an odd last row and column are left out."""
    if x.requires_grad:
        return F.max_pool2d(x, 2)
    rows, cols = (side // 2 * 2 for side in x.shape[2:])
    upper, lower = x[:, :, 0:rows:2], x[:, :, 1:rows:2]
    both = torch.maximum(upper, lower)
    return torch.maximum(both[..., 0:cols:2], both[..., 1:cols:2])


def require_windows(model: LCGAR, padded: Padded) -> None:
    """Require that windows, and the number of slices beside each other, are those of a model.

    Raises
    ------
    InputError
        When they are not.
    """
    if (padded.side, padded.neighbours.shape[1]) != (model.window, model.architecture["context"]):
        found = f"windows of {padded.side} px from {padded.neighbours.shape[1]} slices"
        raise InputError("LCGAR", found, f"{model.window} px from {model.architecture['context']}")


def predict_local(
    model: LCGAR, padded: Padded, pixels: Tensor, *, together: int = 1024, precision: str = "auto"
) -> Tensor:
    """Logits (n, n_classes) float32, on the CPU, of pixels (`windows.gather`).

    Parameters
    ----------
    model : LCGAR
        Moved to where the slices are.
    padded : Padded
        Made with the model's `grey_low`, `grey_high` and `window`.
    pixels : (n,) int64
    together : int
        Windows in memory at a time.
    precision : str
        "bf16-mixed", "32-true", or "auto" (`resolve_precision`).

    Raises
    ------
    InputError
        When the slices were not padded for this model.
    """
    require_windows(model, padded)
    place = padded.image.device
    model = model.to(place, memory_format=torch.channels_last).eval()
    bfloat = resolve_precision(precision, place) == "bf16-mixed"
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=bfloat):
        for start in range(0, len(pixels), together):
            some = slice(start, start + together)
            found[some] = model(*gather(padded, pixels[some])).float().cpu()
    return found
