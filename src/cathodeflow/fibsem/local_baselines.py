"""Local models that the paper compares LCGAR with: a ResNet on the same windows, and a U-Net on whole slices."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.fibsem.local import Inputs, LocalNetwork
from cathodeflow.fibsem.unet import Block
from cathodeflow.fibsem.windows import Padded
from cathodeflow.learning import resolve_precision

#: Label of pixels that do not count in the loss.
IGNORED = -100


class WindowResNet(LocalNetwork):
    """ResNet (He et al., CVPR 2016) of timm, with random initial weights, on the windows of LCGAR.

    Parameters
    ----------
    name : str
        resnet18, resnet34 or resnet50.
    n_classes, context, side, inputs
        Of `LCGAR`; logits are appended to the features before the last layer.
    """

    def __init__(self, n_classes: int, *, name: str, context: int, side: int, inputs: Inputs) -> None:
        super().__init__(
            {"n_classes": n_classes, "name": name, "context": context, "side": side, "inputs": inputs},
            window=side,
        )  # fmt: skip
        # Takes a second to import.
        import timm

        self.body = timm.create_model(name, pretrained=False, in_chans=self.channels, num_classes=0)
        self.output = nn.Linear(self.body.num_features + self.appended, n_classes)

    def forward(self, windows: Tensor, logits: Tensor) -> Tensor:
        """As `LCGAR.forward`."""
        features = self.body(windows[:, : self.channels])
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return self.output(torch.cat([features, logits], 1) if self.appended else features)


class LocalUNet(LocalNetwork):
    """U-Net in place of LCGAR: its loss counts IDK pixels alone.

    Parameters
    ----------
    n_classes, context, inputs
        Of `LCGAR`; logits enter as further channels.
    side : int
        Margin of the slices is half of it, and is cropped.
    widths : sequence of int
        Channels at each resolution.
    """

    def __init__(self, n_classes: int, *, context: int, side: int, inputs: Inputs, widths: Sequence[int]) -> None:
        super().__init__(
            {"n_classes": n_classes, "context": context, "side": side, "inputs": inputs, "widths": list(widths)},
            window=side,
        )  # fmt: skip
        self.stride = 2 ** (len(widths) - 1)
        first = self.channels + self.appended
        self.encoders = nn.ModuleList([Block(a, b) for a, b in itertools.pairwise((first, *widths))])
        upper = list(itertools.pairwise(widths))
        self.ups = nn.ModuleList([nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in upper])
        self.decoders = nn.ModuleList([Block(2 * a, a) for a, _ in upper])
        self.output = nn.Linear(widths[0], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, channel, row, col) slices of `slice_inputs` into (n, row, col, n_classes) logits."""
        rows, cols = x.shape[-2:]
        below, right = (-side % self.stride for side in (rows, cols))
        x = F.pad(x, (0, right, 0, below), mode="replicate").contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoders):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            x = self.decoders[level](torch.cat([skips[level], self.ups[level](x)], 1))
        with torch.autocast(x.device.type, enabled=False):
            return self.output(x.float().permute(0, 2, 3, 1))[:, :rows, :cols]


def slice_inputs(model: LocalUNet, padded: Padded, numbers: Tensor) -> Tensor:
    """Input (n, channel, row, col) of the local U-Net for some slices: images, classes and logits as `inputs` says."""
    margin = padded.side // 2
    _, rows, cols = padded.shape
    inner = (..., slice(margin, margin + rows), slice(margin, margin + cols))
    parts = [padded.image[padded.neighbours[numbers]][inner]]
    if model.channels > parts[0].shape[1]:
        classes = padded.classes[numbers][inner]
        parts.append(torch.stack([(classes == index).float() for index in range(padded.logits.shape[-1])], 1))
    if model.appended:
        parts.append(padded.logits[numbers].permute(0, 3, 1, 2))
    return torch.cat(parts, 1)


def slice_targets(padded: Padded, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Labels (n, row, col) int64 of the slices with any of these pixels, `IGNORED` elsewhere; and their numbers.

    Parameters
    ----------
    padded : Padded
    pixels : (m,) int64
        Flat indices (`windows.gather`).
    labels : (m,) integer
    """
    n, rows, cols = padded.shape
    target = torch.full((n * rows * cols,), IGNORED, dtype=torch.int64, device=labels.device)
    target[pixels] = labels.long()
    target = target.view(n, rows, cols)
    numbers = (target != IGNORED).flatten(1).any(1).nonzero()[:, 0]
    return target[numbers], numbers


def slice_batches(
    model: LocalUNet, padded: Padded, target: Tensor, numbers: Tensor, order: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and labels of some slices at a time."""
    for rows in order:
        yield slice_inputs(model, padded, numbers[rows]), target[rows]


def masked_loss(found: Tensor, target: Tensor, weight: Tensor | None) -> dict[str, Tensor]:
    """Weighted cross-entropy and accuracy over the pixels that are not `IGNORED`."""
    known = target != IGNORED
    loss = F.cross_entropy(found[known], target[known], weight=weight)
    return {"loss": loss, "accuracy": (found[known].argmax(1) == target[known]).float().mean()}


def predict_unet(model: LocalUNet, padded: Padded, pixels: Tensor, *, precision: str) -> Tensor:
    """Compute logits (n, n_classes) float32 of pixels, as `local_prediction.predict_local` does."""
    device = padded.image.device
    model = model.to(device).eval()
    _, rows, cols = padded.shape
    bfloat = resolve_precision(precision, device) == "bf16-mixed"
    pixels = pixels.to(device)
    found = torch.empty(len(pixels), model.architecture["n_classes"])
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat):
        slices = pixels // (rows * cols)
        for number in slices.unique():
            own = slices == number
            logits = model(slice_inputs(model, padded, number[None]))[0].flatten(0, 1)
            found[own.cpu()] = logits[pixels[own] % (rows * cols)].cpu()
    return found
