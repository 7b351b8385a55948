"""Padding of fixed size, for networks that only take images of one size.

Networks that were trained by TensorFlow pad unevenly, and timm computes by how much anew for every image. A runtime can
join a convolution with a padding before it that is fixed.
"""

from typing import Any

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn


class PaddedConvolution(nn.Module):  # type: ignore[misc]
    """Convolution of images of one size that gives the result of a `Conv2dSame`, whose weights it shares."""

    def __init__(self, convolution: Conv2dSame, size: tuple[int, int]) -> None:
        super().__init__()
        like = convolution
        of_size = zip(size, like.kernel_size, like.stride, like.dilation, strict=True)
        rows, cols = (get_same_padding(*numbers) for numbers in of_size)
        self.padding = nn.ZeroPad2d((cols // 2, cols - cols // 2, rows // 2, rows - rows // 2))
        self.convolution = nn.Conv2d(
            like.in_channels, like.out_channels, like.kernel_size, like.stride, 0, like.dilation, like.groups,
            like.bias is not None,
        )  # fmt: skip
        self.convolution.weight, self.convolution.bias = like.weight, like.bias

    def forward(self, images: Tensor) -> Tensor:
        """Convolve images (n, channels, row, col) of this size."""
        return self.convolution(self.padding(images))


def fix_padding(network: nn.Module, example: Tensor) -> None:
    """Replace all `Conv2dSame` of a network by convolutions for images of the size of an example.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; it is changed.
    example : Tensor
        Input of the network.
    """
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        sizes[module] = tuple(inputs[0].shape[-2:])

    uneven = {name: module for name, module in network.named_modules() if isinstance(module, Conv2dSame)}
    hooks = [module.register_forward_pre_hook(note) for module in uneven.values()]
    with torch.no_grad():
        network(example)
    for hook in hooks:
        hook.remove()
    for name, module in uneven.items():
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, PaddedConvolution(module, sizes[module]))
