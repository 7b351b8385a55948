"""Global networks that the paper compares with and that no library here has: FCN, SegNet, and a 3D U-Net."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.unet import Block, DropoutKind, DropoutWhere


class _Baseline(GlobalNetwork):
    """Base of networks with `widths`: parameters of `UNet`; dropout after every block, or after the two lowest ones."""

    def __init__(
        self,
        n_classes: int,
        *,
        context: int,
        widths: Sequence[int],
        dropout: float,
        dropout_where: DropoutWhere,
        dropout_kind: DropoutKind,
    ) -> None:
        super().__init__(
            {"n_classes": n_classes, "context": context, "widths": list(widths), "dropout": dropout,
             "dropout_where": dropout_where, "dropout_kind": dropout_kind}
        )  # fmt: skip
        if len(widths) < 3 or min(widths) < 1:
            raise InputError("widths", str(list(widths)), "channels of three or more resolutions")
        if not 0 <= dropout < 1:
            raise InputError("dropout", str(dropout), "at least 0, below 1")
        kind = nn.Dropout if dropout_kind == "element" else nn.Dropout2d
        levels = range(len(widths))
        deep = [dropout_where == "blocks" or level >= len(widths) - 2 for level in levels]
        self.dropouts = nn.ModuleList([kind(dropout if dropped else 0.0) for dropped in deep])


class FCN(_Baseline):
    """FCN-8s (Long et al., CVPR 2015): scores of the three lowest resolutions, each upsampled and added to the next."""

    def __init__(self, n_classes: int, *, widths: Sequence[int], context: int, **options: object) -> None:
        super().__init__(n_classes, widths=widths, context=context, **options)  # type: ignore[arg-type]
        # Every block is followed by pooling, as in VGG.
        self.stride = 2 ** len(widths)
        self.blocks = nn.ModuleList([Block(a, b) for a, b in itertools.pairwise((context, *widths))])
        self.scores = nn.ModuleList([nn.Conv2d(width, n_classes, 1) for width in widths[-3:]])

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in one stochastic pass; as `UNet.forward`."""
        rows, cols = x.shape[-2:]
        x = self.prepared(x)
        side = x.shape[-2:]
        levels = []
        for block, dropout in zip(self.blocks, self.dropouts, strict=True):
            x = dropout(F.max_pool2d(block(x), 2))
            levels.append(x)
        with torch.autocast(x.device.type, enabled=False):
            scores = [score(level.float()) for score, level in zip(self.scores, levels[-3:], strict=True)]
            found = scores[-1]
            for score in reversed(scores[:-1]):
                found = score + F.interpolate(found, score.shape[-2:], mode="bilinear", align_corners=False)
            return F.interpolate(found, side, mode="bilinear", align_corners=False)[..., :rows, :cols]


class SegNet(_Baseline):
    """SegNet (Badrinarayanan et al., IEEE TPAMI 39, 2481, 2017): the decoder puts features where the maxima were."""

    def __init__(self, n_classes: int, *, widths: Sequence[int], context: int, **options: object) -> None:
        super().__init__(n_classes, widths=widths, context=context, **options)  # type: ignore[arg-type]
        self.stride = 2 ** len(widths)
        self.encoders = nn.ModuleList([Block(a, b) for a, b in itertools.pairwise((context, *widths))])
        above = (widths[0], *widths[:-1])
        self.decoders = nn.ModuleList([Block(width, upper) for width, upper in zip(widths, above, strict=True)])
        self.head = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in one stochastic pass; as `UNet.forward`."""
        rows, cols = x.shape[-2:]
        x = self.prepared(x)
        places = []
        for block, dropout in zip(self.encoders, self.dropouts, strict=True):
            x, place = F.max_pool2d(block(x), 2, return_indices=True)
            x = dropout(x)
            places.append(place)
        for level in reversed(range(len(places))):
            x = self.decoders[level](F.max_unpool2d(x, places[level], 2))
            # The last block has lost no resolution to the dropout of a level below.
            x = self.dropouts[level](x) if level else x
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x.float())[..., :rows, :cols]


class Block3d(nn.Module):  # type: ignore[misc]
    """Two 3x3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(before, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True),
            nn.Conv3d(after, after, 3, padding=1, bias=False), nn.BatchNorm3d(after), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, before, d, h, w) into (n, after, d, h, w)."""
        return self.layers(x)


class UNet3D(_Baseline):
    """3D U-Net (Cicek et al., MICCAI 2016) on 3 or 5 neighbouring slices (`context`): classes of the middle slice.

    Only rows and columns are pooled, as slices are few and thicker than pixels; labels are needed in the middle alone.
    """

    def __init__(self, n_classes: int, *, widths: Sequence[int], context: int, **options: object) -> None:
        super().__init__(n_classes, widths=widths, context=context, **options)  # type: ignore[arg-type]
        if context == 1:
            raise InputError("context", "1 slice for a 3D network", "3 or 5")
        self.stride = 2 ** (len(widths) - 1)
        self.encoders = nn.ModuleList([Block3d(a, b) for a, b in itertools.pairwise((1, *widths))])
        upper = list(itertools.pairwise(widths))
        self.ups = nn.ModuleList([nn.ConvTranspose3d(b, a, (1, 2, 2), stride=(1, 2, 2)) for a, b in upper])
        self.decoders = nn.ModuleList([Block3d(2 * a, a) for a, _ in upper])
        self.head = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in one stochastic pass; as `UNet.forward`."""
        rows, cols = x.shape[-2:]
        x = self.prepared(x).unsqueeze(1).contiguous()
        skips = []
        for level, block in enumerate(self.encoders):
            x = self._dropped(block(F.max_pool3d(x, (1, 2, 2)) if level else x), level)
            skips.append(x)
        for level in reversed(range(len(self.ups))):
            x = self._dropped(self.decoders[level](torch.cat([skips[level], self.ups[level](x)], 1)), level)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(x[:, :, x.shape[2] // 2].float())[..., :rows, :cols]

    def _dropped(self, x: Tensor, level: int) -> Tensor:
        # Layers of 2D dropout take the slices one by one.
        folded = self.dropouts[level](x.transpose(1, 2).flatten(0, 1))
        return folded.unflatten(0, (len(x), -1)).transpose(1, 2)
