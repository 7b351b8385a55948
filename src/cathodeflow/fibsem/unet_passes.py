"""Stochastic passes of a trained U-Net over the same slice, with everything computed once that does not change."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.fibsem.unet import UNet, keep_mask

#: (level, features) -> the features with some of them dropped, in place.
Thin = Callable[[int, Tensor], Tensor]


class Kernel(NamedTuple):
    """Weight and bias of a convolution, with batch normalisation and the scale of dropout folded in."""

    weight: Tensor
    bias: Tensor


class Shared(NamedTuple):
    """Features that all passes over a slice share.

    first : int
        Level of the first block that is followed by dropout.
    start : (n, channels, h, w), features of that block before dropout.
    halves : list of (n, width, h, w), for each level above `first` the skip connection's part of the next convolution.
    """

    first: int
    start: Tensor
    halves: list[Tensor]


class FoldedUNet:
    """`global_network.StochasticPasses` of a `UNet`, several times as fast as calls of it.

    The same function in three steps: `shared` once, `features` for every pass, `logits` of their mean.

    - Before the first dropout all passes are equal and computed once. The convolution after a skip connection is a sum
      over the channels of the skip connection and of the lower level; the part of a skip connection that comes from
      above the first dropout is computed once, too.
    - The head after the last block is linear: the mean of logits is the logits of the mean features. For the same
      reason, dropout after the last block is replaced by its expectation, which does not change the expectation of the
      mean and reduces its variance.
    - Batch normalisation and the factor 1 / (1 - rate) of dropout are folded into the weights; dropout itself is
      clearing bits.

    Parameters
    ----------
    network : UNet
        Trained; not changed.
    dtype : torch.dtype
        bfloat16 or float32.
    """

    def __init__(self, network: UNet, dtype: torch.dtype = torch.float32) -> None:
        self.network, self.dtype = network, dtype
        self.n_classes, self.context = network.architecture["n_classes"], network.architecture["context"]
        self.stride, self.stochastic = network.stride, network.stochastic
        levels = range(len(network.encoders))
        self.first = next((level for level in levels if network.rate(level) > 0), levels[-1])
        scales = [1 / (1 - network.rate(level)) for level in levels]
        self.encoders = [self._block(block, scales[level]) for level, block in enumerate(network.encoders)]
        self.ups = [Kernel(up.weight.detach().to(dtype), up.bias.detach().to(dtype)) for up in network.ups]
        self.decoders = [self._block(block, scales[level] if level else 1.0) for level, block in
                         enumerate(network.decoders)]  # fmt: skip

    def _block(self, block: nn.Module, scale: float) -> tuple[Kernel, Kernel]:
        layers = block.layers
        return self._folded(layers[0], layers[1], 1.0), self._folded(layers[3], layers[4], scale)

    def _folded(self, convolution: nn.Conv2d, norm: nn.Module, scale: float) -> Kernel:
        if isinstance(norm, nn.Identity):
            weight, bias = (scale * part.detach() for part in (convolution.weight, convolution.bias))
            return Kernel(weight.to(self.dtype, memory_format=torch.channels_last), bias.to(self.dtype))
        assert norm.running_var is not None and norm.running_mean is not None
        factor = scale * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        weight = (convolution.weight * factor[:, None, None, None]).detach()
        bias = (scale * norm.bias - norm.running_mean * factor).detach()
        return Kernel(weight.to(self.dtype, memory_format=torch.channels_last), bias.to(self.dtype))

    def passes(self, x: Tensor, seeds: Sequence[int], together: int) -> Iterator[Tensor]:
        """Sum the features of the last block over some passes at a time; see `StochasticPasses`."""
        rows, cols = x.shape[-2:]
        prepared = self.network.prepared(x)
        shared = self.shared(prepared)
        batch = max(together // prepared.shape[-2:].numel(), 1)
        for start in range(0, len(seeds), batch):
            yield self._sum(shared, seeds[start : start + batch])[..., :rows, :cols]

    def _sum(self, shared: Shared, seeds: Sequence[int]) -> Tensor:
        device, kind = shared.start.device, self.network.architecture["dropout_kind"]
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

        def thin(level: int, features: Tensor) -> Tensor:
            # A feature and its mask are read as integers of the same width.
            integers = features.view(torch.int16 if features.dtype == torch.bfloat16 else torch.int32)
            for part, generator in zip(integers.split(1), generators, strict=True):
                mask = keep_mask(part.shape, self.network.rate(level), kind, device, generator)
                part.bitwise_and_(mask.to(part.dtype))
            return features

        # One by one: torch sums bfloat16 over the first axis several times slower.
        first, *others = self.features(shared, len(seeds), thin).split(1)
        total = first.float()
        for other in others:
            total += other
        return total

    def shared(self, x: Tensor) -> Shared:
        """Compute the features without dropout, for prepared (n, context, h, w) slices (`UNet.prepared`)."""
        x = x.to(self.dtype, memory_format=torch.channels_last)
        halves = []
        for level in range(self.first):
            x = _run(x, self.encoders[level])
            weight, bias = self.decoders[level][0]
            halves.append(F.conv2d(x, weight[:, : x.shape[1]], bias, padding=1))
            x = F.max_pool2d(x, 2)
        return Shared(self.first, _run(x, self.encoders[self.first]), halves)

    def features(self, shared: Shared, passes: int, thin: Thin) -> Tensor:
        """Features of the last block in some passes.

        Parameters
        ----------
        shared : Shared
            Of n slices.
        passes : int
            Passes over each.
        thin : (level, features) -> features
            Dropout without its factor, called once for each block that it follows, in the order of the network; the
            features' first axis has all passes of one slice after another.

        Returns
        -------
        (n * passes, widths[0], h, w)
            All passes of one slice after another.
        """
        rate = self.network.rate
        # Repeated with the channels last, as the copy would lose its memory format otherwise.
        x = shared.start.permute(0, 2, 3, 1).repeat_interleave(passes, 0).permute(0, 3, 1, 2)
        skips = {}
        for level in range(self.first, len(self.encoders)):
            if level > self.first:
                x = _run(F.max_pool2d(x, 2), self.encoders[level])
            x = skips[level] = thin(level, x) if rate(level) > 0 else x
        for level in reversed(range(len(self.ups))):
            x = F.conv_transpose2d(x, self.ups[level].weight, self.ups[level].bias, stride=2)
            kernels = self.decoders[level]
            if level < self.first:
                weight = kernels[0].weight
                x = F.conv2d(x, weight[:, weight.shape[1] // 2 :], padding=1)
                x = x.unflatten(0, (-1, passes)).add_(shared.halves[level][:, None]).flatten(0, 1).relu_()
                x = _convolved(x, kernels[1])
            else:
                x = _run(torch.cat([skips[level], x], 1), kernels)
            if level > 0 and rate(level) > 0:
                x = thin(level, x)
        return x

    def logits(self, features: Tensor) -> Tensor:
        """Logits (n, n_classes, h, w) float32 of mean features."""
        return F.conv2d(features.float(), self.network.head.weight, self.network.head.bias)


def _run(x: Tensor, kernels: tuple[Kernel, Kernel]) -> Tensor:
    return _convolved(_convolved(x, kernels[0]), kernels[1])


def _convolved(x: Tensor, kernel: Kernel) -> Tensor:
    return F.conv2d(x, kernel.weight, kernel.bias, padding=1).relu_()
