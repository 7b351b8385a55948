"""BraggNN: the network that predicts the centre of a Bragg peak from a small patch."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.io.models import restore

SLOPE = 0.01
# Three 3x3 convolutions without padding each reduce the side of a patch by 2 pixels; the last one has 8 channels.
BORDER, LAST_CHANNELS = 6, 8


class NonLocal(nn.Module):  # type: ignore[misc]
    """Parameters of the non-local block (Wang et al., CVPR 2018, embedded Gaussian); `BraggNN` does its arithmetic."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.theta_layer = nn.Conv2d(channels, inner, 1)
        self.phi_layer = nn.Conv2d(channels, inner, 1)
        self.g_layer = nn.Conv2d(channels, inner, 1)
        self.out_cnn = nn.Conv2d(inner, channels, 1)


class BraggNN(nn.Module):  # type: ignore[misc]
    """Centre of a Bragg peak, relative to the patch's side (Liu et al., IUCrJ 9, 104, 2022).

    Convolution 1-64, non-local block, leaky ReLU, convolutions 64-32 and 32-8, then dense layers down to 2 numbers.
    Names and shapes of the weights are those of the published implementation, so weights can be exchanged.

    Parameters
    ----------
    patch_size : int
        Odd side of the patches [px], at least 7.
    hidden_units : tuple of int
        Units of each hidden dense layer; (16, 8, 4, 2) as published.
    generator : torch.Generator, optional
        Draws the initial weights (`initialise`).

    Notes
    -----
    There is no nonlinearity between the patch and the softmax of the non-local block, so theta^T phi of two positions
    is a quadratic form in their two 3x3 neighbourhoods, and g a linear form. `forward` multiplies the layers' small
    matrices first and attends over the 9 pixels themselves instead of 32 channels: the same function of the same
    weights at about 60 % of the arithmetic.
    """

    def __init__(
        self, patch_size: int, hidden_units: tuple[int, ...], *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if patch_size < 7 or patch_size % 2 == 0:
            raise InputError("patch_size", str(patch_size), "an odd number, at least 7")
        self.patch_size, self.hidden_units = patch_size, tuple(hidden_units)
        self.cnn_layers = nn.Sequential(
            nn.Conv2d(1, 64, 3), nn.LeakyReLU(SLOPE),
            nn.Conv2d(64, 32, 3), nn.LeakyReLU(SLOPE),
            nn.Conv2d(32, LAST_CHANNELS, 3), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        self.nlb = NonLocal(64, 32)
        widths = (LAST_CHANNELS * (patch_size - BORDER) ** 2, *self.hidden_units)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU(SLOPE)]
        self.dense_layers = nn.Sequential(*layers, nn.Linear(widths[-1], 2))
        if generator is not None:
            initialise(self, generator)

    def forward(self, patches: Tensor) -> Tensor:
        """Locate peaks.

        Parameters
        ----------
        patches : (n, 1, patch_size, patch_size) float
            Prepared patches, in [0, 1] (`cathodeflow.bragg.training_patches.prepare_patches`).

        Returns
        -------
        (n, 2) float
            (col, row) of the peak over patch_size.
        """
        query, query_bias, mix, bias = self.folded()
        side = patches.shape[-1] - 2
        neighbours = F.unfold(patches, 3)
        queries = query @ neighbours + query_bias[:, None]
        attention = torch.softmax(queries.transpose(1, 2) @ neighbours, -1)
        # In this order the gradient of the attention, the largest array, is contiguous for the softmax.
        attended = (attention @ neighbours.transpose(1, 2)).transpose(1, 2)
        both = torch.cat([neighbours, attended], 1).unflatten(2, (side, side))
        features = F.conv2d(both, mix[:, :, None, None], bias)
        return self.dense_layers(self.cnn_layers[1:](features).flatten(1))

    def folded(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Multiply out the linear layers before the first activation.

        Returns
        -------
        query : (9, 9)
        query_bias : (9,)
            The attention of position i to position j is the softmax over j of (query p_i + query_bias)^T p_j, where p
            is a position's 3x3 neighbourhood, row by row. Terms that are equal for all j cancel in a softmax.
        mix : (64, 18)
            Weights of p_i and of the attended neighbourhood in the block's output.
        bias : (64,)
        """
        first, block = self.cnn_layers[0], self.nlb
        assert isinstance(first, nn.Conv2d) and first.bias is not None
        kernel, offset = first.weight.flatten(1), first.bias
        theta, phi = (layer.weight.flatten(1) for layer in (block.theta_layer, block.phi_layer))
        assert block.theta_layer.bias is not None and block.g_layer.bias is not None and block.out_cnn.bias is not None
        key = kernel.T @ phi.T
        query = key @ theta @ kernel
        query_bias = key @ (theta @ offset + block.theta_layer.bias)
        value, back = block.g_layer.weight.flatten(1), block.out_cnn.weight.flatten(1)
        mix = torch.cat([kernel, back @ value @ kernel], 1)
        bias = offset + back @ (value @ offset + block.g_layer.bias) + block.out_cnn.bias
        return query, query_bias, mix, bias


def initialise(model: BraggNN, generator: torch.Generator) -> None:
    """Draw Xavier-uniform weights (Glorot and Bengio, AISTATS 2010); biases are 0, or 0.1 in the hidden dense layers.

    The last hidden layers have 4 and 2 units: if one starts on the flat side of its activation for most patches,
    training stalls; with zero biases this happens for every second seed.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    for module in list(model.dense_layers)[:-1:2]:
        nn.init.constant_(module.bias, 0.1)


def from_weights(weights: Mapping[str, Any], *, patch_size: int | None, where: str) -> BraggNN:
    """Build the network for given weights, trained here or published.

    Parameters
    ----------
    weights : mapping of str to Tensor
        A state_dict; the patch size and the dense layers are read from the shapes.
    patch_size : int or None
        Patch size that the weights must have; None: any.
    where : str
        Name of the weights in errors.

    Raises
    ------
    InputError
        The weights are those of another network or another patch size.
    """
    expected = "the weights of a BraggNN"
    dense: list[Tensor] = []
    while (name := f"dense_layers.{2 * len(dense)}.weight") in weights:
        dense.append(weights[name])
    if not dense or any(layer.ndim != 2 for layer in dense):
        raise InputError(where, "no dense_layers", expected)
    side = (dense[0].shape[1] / LAST_CHANNELS) ** 0.5 + BORDER
    if side != int(side) or int(side) % 2 == 0 or side < 7:
        raise InputError(where, f"a first dense layer of {dense[0].shape[1]} inputs", expected)
    if patch_size is not None and side != patch_size:
        raise InputError(where, f"weights for patch size {int(side)}", str(patch_size))
    # Built only when all shapes are known to fit: they may ask for more memory than there is.
    hidden = tuple(layer.shape[0] for layer in dense[:-1])
    network = restore(lambda: BraggNN(int(side), hidden), weights, where=where, expected=expected)
    assert isinstance(network, BraggNN)
    return network
