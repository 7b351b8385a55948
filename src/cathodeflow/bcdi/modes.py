"""Ranking of several reconstructions, and their common modes."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.noise import counting_noise
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD
from cathodeflow.bcdi.retrieval import Retrieval
from cathodeflow.errors import InputError


class Modes(NamedTuple):
    """Orthogonal modes of several objects.

    modes : (n, z, y, x) complex64
        Strongest first, on the scale of the objects: for n equal objects the first mode is that object.
    fractions : (n,) float32
        Fractions of the objects' power, sum 1.
    """

    modes: Tensor
    fractions: Tensor


def best_of(found: Retrieval, count: int = 1) -> list[int]:
    """Rank the starts by their free log-likelihood, or by their last error if no pixel was excluded.

    The error favours supports that are too large; the free log-likelihood does not.

    Parameters
    ----------
    found : Retrieval
    count : int
        Number of starts to return.

    Returns
    -------
    list of int
        Indices of the starts, best first.

    Raises
    ------
    InputError
        There are fewer starts.
    """
    if not 1 <= count <= len(found.objects):
        raise InputError("count", f"{count} of {len(found.objects)} starts", "at least 1 and at most all starts")
    held_out = not bool(found.free_log_likelihood.isnan().any())
    order = (-found.free_log_likelihood if held_out else found.errors[:, -1]).argsort()
    return [int(number) for number in order[:count]]


def mode_decomposition(objects: Tensor) -> Modes:
    """Decompose objects into orthogonal modes: the first is common to all, the others describe their differences.

    The objects are aligned to the first one (shift, global phase, twin); the modes are the singular value decomposition
    of their matrix (object, voxel) (V. Favre-Nicolin, S. Leake, Y. Chushkin, Sci. Rep. 10, 2664 (2020)).

    Parameters
    ----------
    objects : (n, z, y, x) complex64
        Best first.

    Returns
    -------
    Modes
        With the global phase of the first object.

    Raises
    ------
    InputError
        There is no object, or all are 0.
    """
    if objects.ndim != 4 or not len(objects) or not bool(objects.abs().amax() > 0):
        raise InputError("objects", f"shape {tuple(objects.shape)}, or 0 everywhere", "(n, z, y, x), n at least 1")
    aligned, _ = align(objects, objects[0])
    flat = aligned.flatten(1)
    _, strengths, vectors = torch.linalg.svd(flat, full_matrices=False)
    overlap = vectors.conj() @ flat[0]
    modes = vectors * (torch.polar(strengths / len(flat) ** 0.5, overlap.angle()))[:, None]
    power = strengths.square()
    return Modes(modes.reshape(objects.shape), power / power.sum())


def summary(found: Retrieval, order: list[int], *, amplitude: Tensor, mask: Tensor) -> dict[str, Any]:
    """Figures of merit of the best start, and its agreement with the others.

    Parameters
    ----------
    found : Retrieval
    order : list of int
        Starts, the best first (`best_of`).
    amplitude : (z, y, x) float32
        Measured amplitude, the square root of counts.
    mask : (z, y, x) bool
        True where a pixel was measured.
    """
    best = order[0]
    objects = found.objects[order]
    metrics = {
        "starts": len(order),
        "best_start": best,
        "error": float(found.errors[best, -1]),
        "counting_noise": counting_noise(amplitude, valid=mask),
        "support_fraction": float(support_fraction(objects[:1], threshold=SUPPORT_THRESHOLD)[0]),
    }
    if not bool(found.free_log_likelihood.isnan().any()):
        metrics["free_log_likelihood"] = float(found.free_log_likelihood[best])
    if len(order) > 1:
        metrics["median_correlation_with_best"] = float(align(objects[1:], objects[0])[1].median())
    return metrics
