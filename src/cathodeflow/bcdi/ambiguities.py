"""Ambiguities of a diffraction pattern: shift, global phase and twin; resolved here and nowhere else.

An object o(r), its shifted copies, o(r) exp(i c) and its twin conj(o(-r)) have the same diffraction amplitude.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from torch import Tensor

from cathodeflow.bcdi.operators import VOLUME, fourier, inverse_fourier
from cathodeflow.errors import InputError

# Steps and reaches [voxel] of the search for the shift: each reaches a little further than the step before it.
_ZOOM = ((1 / 8, 6), (1 / 64, 9), (1 / 512, 9))


def align(objects: Tensor, reference: Tensor, *, twin: bool = True) -> tuple[Tensor, Tensor]:
    """Align objects to the position, the global phase and the orientation of a reference.

    The maximum of the cross-correlation is found on whole voxels by FFT, then refined by matrix products on finer grids
    [1]_, down to 1/512 voxel. The object or its twin is kept, whichever correlates better.

    Parameters
    ----------
    objects : (n, z, y, x) complex64
    reference : (z, y, x) complex64
    twin : bool
        Whether the twin is compared, too.

    Returns
    -------
    aligned : (n, z, y, x) complex64
        Not scaled: only shifted (cyclically), multiplied by a global phase factor and conjugate-inverted.
    correlation : (n,) float32
        |<reference, aligned>| / (|reference| |aligned|); 0 where one of them is 0 everywhere.

    Raises
    ------
    InputError
        Shapes that do not fit.

    References
    ----------
    .. [1] M. Guizar-Sicairos, S. T. Thurman, J. R. Fienup, Opt. Lett. 33, 156 (2008)
    """
    if reference.ndim != 3 or objects.shape[1:] != reference.shape:
        expected = f"(n, {', '.join(map(str, reference.shape))})" if reference.ndim == 3 else "(n, z, y, x)"
        raise InputError("objects", f"shape {tuple(objects.shape)}", f"{expected}, as the reference")
    spectra = fourier(objects)
    # The twin of an object has the conjugate transform.
    candidates = torch.stack([spectra, spectra.conj()] if twin else [spectra]).flatten(0, 1)
    shift, height = _peaks(candidates * fourier(reference).conj())
    height, shift = height.unflatten(0, (-1, len(objects))), shift.unflatten(0, (-1, len(objects)))
    best = height.abs().argmax(0)
    row = torch.arange(len(objects), device=best.device)
    chosen = candidates.unflatten(0, (-1, len(objects)))[best, row] * _ramp(objects.shape[1:], shift[best, row])
    overlap = height[best, row]
    turn = torch.polar(torch.ones_like(overlap.real), -overlap.angle())
    aligned = inverse_fourier(chosen * turn[:, None, None, None])
    return aligned, correlation(aligned, reference)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return |<a, b>| / (|a| |b|) over the last three axes: 1 for objects that differ only by a factor.

    Parameters
    ----------
    a, b : (..., z, y, x) complex64
        One of them may have fewer leading axes.

    Returns
    -------
    (...) float32
        0 where one of them is 0 everywhere.

    Examples
    --------
    >>> a = torch.ones(1, 1, 2)
    >>> correlation(a, 3j * a).item(), round(correlation(a, torch.tensor([[[1.0, 0.0]]])).item(), 3)
    (1.0, 0.707)
    """
    a, b = a.to(torch.complex128), b.to(torch.complex128)
    norms = torch.linalg.vector_norm(a, dim=VOLUME) * torch.linalg.vector_norm(b, dim=VOLUME)
    overlap = (a.conj() * b).sum(VOLUME).abs()
    return (overlap / norms.clamp_min(torch.finfo(norms.dtype).tiny)).float()


def shifted(objects: Tensor, shift: Tensor | Sequence[float]) -> Tensor:
    """Shift objects cyclically by any fraction of a voxel, with a phase ramp on their Fourier transforms.

    Parameters
    ----------
    objects : (..., z, y, x) complex64
    shift : (..., 3) float32
        Along z, y, x [voxel].
    """
    amount = torch.as_tensor(shift, dtype=torch.float32, device=objects.device)
    return inverse_fourier(fourier(objects) * _ramp(objects.shape[-3:], amount))


def centred(objects: Tensor) -> Tensor:
    """Remove shift, phase ramp and global phase without a reference, which gives each object a standard form.

    The centre of mass of |o|^2 is moved to index n // 2, the mean of |F|^2 to zero frequency (both to a fraction of a
    voxel), and the mean of exp(i phase), weighted by |o|^2, becomes real and positive: the mean phase is 0.

    Parameters
    ----------
    objects : (..., z, y, x) complex64
        May extend across the edges of the volume.

    Returns
    -------
    (..., z, y, x) complex64
        The twin ambiguity remains; resolving it needs a reference (`align`).

    Notes
    -----
    The ramp is determined from the mean of |F|^2, which is the mean phase gradient over the crystal weighted by |o|^2:
    the mean strain becomes 0, and the mean of the peak gives the lattice parameter. The brightest voxel of the peak
    instead would leave the part with the lowest strain flat, but it depends on a single fringe of a strongly strained
    crystal, and moves in whole voxels. Removing a ramp shifts the diffraction pattern: to compare an object with the
    measurement, use the original object.
    """
    # Whole voxels first, since the ramp must be continuous in an object that extends across the edges.
    objects = shifted(objects, -_centre_of_mass(objects).round())
    objects = _without_ramp(objects)
    objects = shifted(objects, -_centre_of_mass(objects))
    phase = (objects * objects.abs()).sum(VOLUME, keepdim=True).angle()
    return objects * torch.polar(torch.ones_like(phase), -phase)


def unwrapped(phase: NDArray[np.floating], support: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Unwrap a phase inside a support, along the most reliable path [1]_ [2]_.

    Neighbours are linked in the order of their reliability, which is high where the wrapped second differences of the
    phase are small, so that a path avoids noise. The result is exact for any phase range if neighbours differ by less
    than pi and there is no dislocation; at a dislocation the jump stays where the phase is the least reliable.

    Parameters
    ----------
    phase : (z, y, x) float32
        [rad]
    support : (z, y, x) bool

    Returns
    -------
    (z, y, x) float32
        [rad]; 0 outside. The median of each connected part of the support is within -pi..pi.

    References
    ----------
    .. [1] M. A. Herraez et al., Appl. Opt. 41, 7437 (2002)
    .. [2] H. S. Abdul-Rahman et al., Appl. Opt. 46, 6623 (2007)
    """
    if phase.ndim != 3 or phase.shape != support.shape:
        raise InputError("support", f"shape {support.shape}", f"that of the phase, {phase.shape}, (z, y, x)")
    count = int(support.sum())
    result = np.zeros(phase.shape, np.float32)
    if not count:
        return result
    number = np.full(phase.shape, -1)
    number[support] = np.arange(count)
    unreliability = _unreliability(phase, support)[support]
    first, second = _neighbours(number)
    # A weight of 0 would mean that there is no edge.
    weights = unreliability[first] + unreliability[second] + 1.0
    tree = minimum_spanning_tree(coo_array((weights, (first, second)), shape=(count + 1, count + 1)).tocsr())
    parts, part = connected_components(tree[:count, :count], directed=False)
    # An additional root, linked to one voxel of each connected part: one search then visits all voxels.
    starts = np.unique(part, return_index=True)[1]
    links = coo_array((np.ones(parts), (np.full(parts, count), starts)), shape=tree.shape)
    above = breadth_first_order(tree + links.tocsr(), count, directed=False)[1]
    above[count] = count
    values = np.append(np.asarray(phase[support], np.float64), 0.0)
    total = np.where(above == count, values, wrapped(values - values[above]))
    # Sums of the steps up to the root; each pass doubles the number of steps that are summed.
    while (above != count).any():
        total = np.where(above == count, total, total + total[above])
        above = above[above]
    total = total[:count]
    for index in range(parts):
        inside = part == index
        total[inside] -= 2 * np.pi * np.round(np.median(total[inside]) / (2 * np.pi))
    result[support] = total
    return result


def wrapped(phase: NDArray[np.floating]) -> NDArray[np.floating]:
    """Bring a phase into -pi..pi [rad].

    Examples
    --------
    >>> wrapped(np.array([0.5, 4.0, -7.0])).round(3)
    array([ 0.5  , -2.283, -0.717])
    """
    return phase - 2 * np.pi * np.round(phase / (2 * np.pi))


def _places(n: int, device: torch.device) -> Tensor:
    """Distances (n,) from index n // 2."""
    return torch.arange(n, device=device, dtype=torch.float32) - n // 2


def _ramp(shape: Sequence[int], shift: Tensor) -> Tensor:
    """Factor (..., z, y, x) of a Fourier transform that shifts the object by (..., 3)."""
    angles = [_places(n, shift.device) / n * shift[..., axis, None] for axis, n in enumerate(shape)]
    angle = angles[0][..., :, None, None] + angles[1][..., None, :, None] + angles[2][..., None, None, :]
    return torch.polar(torch.ones_like(angle), -2 * torch.pi * angle)


def _peaks(products: Tensor) -> tuple[Tensor, Tensor]:
    """Shifts (m, 3) with the best alignment, and the overlap (m,) at these, from conj(reference) times object."""
    shape = products.shape[-3:]
    shift, value = _highest(fourier(products), [_places(n, products.device) for n in shape])
    for step, reach in _ZOOM:
        offsets = step * torch.arange(-reach, reach + 1, device=products.device)
        part = products
        for axis, n in enumerate(shape):
            angles = _places(n, products.device) / n * (shift[:, axis, None] + offsets)[..., None]
            kernel = torch.polar(torch.ones_like(angles), -2 * torch.pi * angles)
            # Sums over the first axis of space and appends the axis of its offsets: three passes restore the order.
            part = torch.einsum("bkij,bok->bijo", part, kernel)
        fine, value = _highest(part, [offsets] * 3)
        shift = shift + fine
    return shift, value


def _highest(overlap: Tensor, places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    flat = overlap.flatten(1)
    best = flat.abs().argmax(1)
    indices = torch.unravel_index(best, overlap.shape[1:])
    shift = torch.stack([offsets[index] for offsets, index in zip(places, indices, strict=True)], dim=1)
    return shift, flat.gather(1, best[:, None])[:, 0]


def _centre_of_mass(objects: Tensor) -> Tensor:
    """Centre of mass (..., 3) of |o|^2 from index n // 2 [voxel], also of an object that lies across the edges."""
    weights, centre = objects.abs() ** 2, []
    for axis, n in zip(VOLUME, objects.shape[-3:], strict=True):
        profile = weights.sum([other for other in VOLUME if other != axis])
        offset = _places(n, objects.device)
        circle = torch.polar(torch.ones_like(profile), (2 * torch.pi / n * offset).expand_as(profile))
        near = (profile * circle).sum(-1, keepdim=True).angle() * n / (2 * torch.pi)
        # The circular mean is not yet the centre of mass, but shows where the circle can be cut open.
        distance = torch.remainder(offset - near + n / 2, n) - n / 2
        mass = profile.sum(-1, keepdim=True).clamp_min(torch.finfo(profile.dtype).tiny)
        centre.append(near + (profile * distance).sum(-1, keepdim=True) / mass)
    return torch.cat(centre, -1)


def _without_ramp(objects: Tensor) -> Tensor:
    """Remove the mean phase step between neighbours: the angle of the autocorrelation at a distance of 1."""
    for axis, n in zip(VOLUME, objects.shape[-3:], strict=True):
        step = (objects.conj() * objects.roll(-1, axis)).sum(VOLUME, keepdim=True).angle()
        position = _places(n, objects.device).reshape([-1] + [1] * (-axis - 1))
        objects = objects * torch.polar(torch.ones_like(step * position), -step * position)
    return objects


def _unreliability(phase: NDArray[np.floating], support: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Root of the sum of squares of the wrapped second differences, pi for those that extend outside the support."""
    padded, inside = np.pad(np.asarray(phase, np.float64), 1), np.pad(support, 1)
    squares = np.zeros(phase.shape)
    for axis in range(3):
        part = [[slice(1, -1)] * 3 for _ in range(2)]
        part[0][axis], part[1][axis] = slice(None, -2), slice(2, None)
        before, after = (tuple(side) for side in part)
        second = wrapped(padded[before] - phase) - wrapped(phase - padded[after])
        squares += np.where(inside[before] & inside[after], second, np.pi) ** 2
    return np.sqrt(squares)


def _neighbours(number: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Numbers of all pairs of voxels of the support that share a face."""
    pairs = []
    for axis in range(3):
        low, high = (np.moveaxis(number, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        both = (low >= 0) & (high >= 0)
        pairs.append(np.stack([low[both], high[both]]))
    first, second = np.concatenate(pairs, axis=1)
    return first, second
