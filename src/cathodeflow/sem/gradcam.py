"""Class activation maps, which show the evidence for a class in an image: Grad-CAM and Grad-CAM++."""

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.sem.model import SemNetwork, as_input
from cathodeflow.sem.tiles import Tiles

Float32 = NDArray[np.float32]
# Crops per batch.
_TOGETHER = 32


def activation_maps(
    model: SemNetwork,
    crops: NDArray[np.uint8],
    targets: ArrayLike,
    *,
    method: str,
    device: torch.device | str,
) -> Float32:
    """Compute the class activation maps of crops.

    Parameters
    ----------
    model : SemNetwork
        Moved to `device` and set to evaluation mode.
    crops : (n, side, side) uint8
    targets : (n,) int
        Class of each crop whose logit is explained.
    method : {"gradcam", "gradcam++"}
        Feature maps weighted by the mean of their gradients [1]_, or by a mean in which all positions with evidence for
        the class have the same weight, independent of their area [2]_.
    device : torch.device or str

    Returns
    -------
    (n, h, w) float32
        Non-negative, of the size of the network's feature maps (`enlarged` resizes them). Comparable between crops.

    References
    ----------
    .. [1] R. R. Selvaraju et al., ICCV 2017, arXiv:1610.02391
    .. [2] A. Chattopadhay et al., WACV 2018, arXiv:1710.11063
    """
    model = model.to(device, memory_format=torch.channels_last).eval()
    wanted = torch.from_numpy(np.array(targets, dtype=np.int64))
    parts = []
    for start in range(0, len(crops), _TOGETHER):
        with torch.no_grad():
            maps = model.maps(as_input(crops[start : start + _TOGETHER], device)).float()
        # Only the layers after the maps are differentiated, so a map costs little more than a prediction.
        maps.requires_grad_()
        scores = model.logits(model.pool(maps)).gather(1, wanted[start : start + _TOGETHER, None].to(device))
        (gradient,) = torch.autograd.grad(scores.sum(), maps)
        weights = _weights(maps.detach(), gradient, method)
        parts.append(torch.relu((weights * maps.detach()).sum(1)).cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 1, 1), dtype=np.float32)


def _weights(maps: Tensor, gradient: Tensor, method: str) -> Tensor:
    """Weight (n, c, 1, 1) of each feature map."""
    if method == "gradcam":
        return gradient.mean((2, 3), keepdim=True)
    below = 2 * gradient**2 + (maps * gradient**3).sum((2, 3), keepdim=True)
    factor = torch.where(below.abs() > torch.finfo(below.dtype).tiny, gradient**2 / below, 0.0)
    return (factor * torch.relu(gradient)).sum((2, 3), keepdim=True)


def enlarged(maps: Float32, shape: tuple[int, int]) -> Float32:
    """Resize maps (n, h, w) to n images of `shape`, by linear interpolation between pixel centres."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None]
    return F.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[:, 0].numpy()


def whole_map(model: SemNetwork, tiles: Tiles, target: int, *, method: str, device: torch.device | str) -> Float32:
    """Compute the map of a whole image, blended from those of its tiles so that their edges are not visible.

    Parameters
    ----------
    model : SemNetwork
    tiles : Tiles
        Of `image_predictions.cut_tiles`; the more they overlap, the smoother the map.
    target : int
        Class whose logit is explained.
    method, device
        Of `activation_maps`.

    Returns
    -------
    (row, col) float32
        Of the area that the tiles cover, without information bar and margin.
    """
    maps = activation_maps(model, tiles.crops, np.full(len(tiles.crops), target), method=method, device=device)
    rows, cols = tiles.places.max(axis=0) + tiles.extent
    # Tiles are weighted by a pyramid, highest in the centre and positive everywhere.
    ramps = [(1 - np.abs((np.arange(side) + 0.5) / side * 2 - 1)).astype(np.float32) for side in tiles.extent]
    window: Float32 = ramps[0][:, None] * ramps[1]
    total: Float32 = np.zeros((rows, cols), dtype=np.float32)
    weight = np.zeros_like(total)
    for tile, (row, col) in zip(maps, tiles.places, strict=True):
        area = np.s_[row : row + tiles.extent[0], col : col + tiles.extent[1]]
        total[area] += window * enlarged(tile[None], tiles.extent)[0]
        weight[area] += window
    # Where tiles without particles were left out there is no evidence.
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def choose_crops(predictions: pd.DataFrame, *, per_class: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose correctly and incorrectly classified crops of each class, from as many originals as possible.

    Parameters
    ----------
    predictions : DataFrame
        Of `predictions.crop_predictions`.
    per_class : int
        Maximum number of correct, and of incorrect, crops of each class.
    rng : Generator

    Returns
    -------
    DataFrame
        Rows of `predictions`, by label, correct ones first.
    """
    parts = []
    for _, group in predictions.groupby(["label", "correct"], sort=True):
        mixed = group.iloc[rng.permutation(len(group))]
        # The first crop of every original comes before the second of any.
        order = mixed.groupby("name").cumcount().to_numpy()
        parts.append(mixed.iloc[np.argsort(order, kind="stable")[:per_class]])
    chosen = pd.concat(parts) if parts else predictions
    return chosen.sort_values(["label", "correct"], ascending=[True, False], kind="stable", ignore_index=True)


def choose_originals(predictions: pd.DataFrame, *, whole: int, rng: np.random.Generator) -> pd.DataFrame:
    """Choose originals for maps of whole images: incorrect ones first, then correct ones of every class in turn.

    Parameters
    ----------
    predictions : DataFrame
        Of `predictions.original_predictions`.
    whole : int
        Number of originals.
    rng : Generator

    Returns
    -------
    DataFrame
        Rows of `predictions`.
    """
    mixed = predictions.iloc[rng.permutation(len(predictions))]
    turn = mixed.groupby(["correct", "label"]).cumcount().to_numpy()
    order = np.lexsort((turn, mixed["correct"].to_numpy(bool)))
    return mixed.iloc[order[:whole]].reset_index(drop=True)
