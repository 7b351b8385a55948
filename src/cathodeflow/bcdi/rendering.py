"""Crystals and their diffraction computed in batches by torch, on a GPU or a CPU: the physics of `simulation`.

The results equal those of `simulation.block` up to rounding, except for the random numbers of the counting noise.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.fields import DISLOCATIONS, KINDS
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.outlines import Outlines
from cathodeflow.errors import InputError

# Further Newton steps change nothing: the function is convex and piecewise linear.
_STEPS = 30
# Poisson's ratio, as in `displacement.dislocation`.
_POISSON = 0.3


class Rendered(NamedTuple):
    """Crystals and their measured amplitudes, all on one device.

    Attributes
    ----------
    amplitudes : (n, z, y, x) float32
        Square roots of counts, zero frequency at index n // 2.
    objects : (n, z, y, x) complex64
        Crystals, centred at index n // 2.
    """

    amplitudes: Tensor
    objects: Tensor


def render(
    outlines: Outlines, *, size: int, device: torch.device | str, generator: torch.Generator | None = None
) -> Rendered:
    """Compute crystals and their counts.

    Parameters
    ----------
    outlines : Outlines
        Drawn for this size.
    size : int
        Side of the window [voxel].
    device : torch.device or str
    generator : torch.Generator, optional
        Generator of the counting noise, on the device. Default: that of torch.
    """
    amplitude, phase = render_crystals(outlines, size=size, device=device)
    objects = torch.polar(amplitude, phase)
    counts = torch.poisson(render_intensity(outlines, objects, size=size), generator=generator)
    before = size // 2 - objects.shape[-1] // 2
    after = size - before - objects.shape[-1]
    return Rendered(counts.sqrt(), F.pad(objects, (before, after) * 3))


def render_crystals(outlines: Outlines, *, size: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Amplitude and phase [rad] (n, side, side, side) float32 in the centre of the window, which contains all crystals.

    Index side // 2 is the middle of the window. Amplitudes are as in `polyhedra.amplitude`, phases as in
    `simulation.Crystal`; if the phase range of a dislocation is larger than the drawn one, it is used instead.
    """
    target = torch.device(device)
    half = min(size // 4 + 2, (size - 1) // 2)
    axis = torch.arange(-half, half + 1, device=target, dtype=torch.float32)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flatten(0, 2)
    # Its fields as tensors on the device.
    on: Any = Outlines(*(torch.as_tensor(field).to(target) for field in outlines))
    share = _shares(points, on)
    inside = share >= 0.5
    field, defect = _fields(points, axis, on, outlines.kind)
    if not bool(inside.any(1).all()):
        raise InputError("crystal", "no voxel that it fills by half", "a larger crystal or smaller voxels")
    phase = _scaled(field, defect, inside, on, outlines.kind)
    weight = inside.double()
    mean = (phase.double() * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
    phase = torch.where(share > 0, (mean - phase).float(), 0.0)
    shape = (len(share), len(axis), len(axis), len(axis))
    return share.view(shape), phase.view(shape)


def render_intensity(outlines: Outlines, objects: Tensor, *, size: int) -> Tensor:
    """Mean counts (n, z, y, x) float32 of objects (n, side, side, side): `diffraction.expected_intensity`."""
    device = objects.device
    photons, background = (
        torch.as_tensor(level, dtype=torch.float32, device=device)[:, None, None, None]
        for level in (outlines.photons, outlines.background)
    )
    power = objects.abs().square().sum(VOLUME, keepdim=True, dtype=torch.float64).float()
    # The position of the object does not affect the intensity, so zeros are appended.
    waves = torch.fft.fftn(objects, s=(size, size, size), dim=VOLUME, norm="ortho")
    intensity = (waves.real.square() + waves.imag.square()) * (photons / power)
    intensity = _blurred(intensity, outlines.coherence) + background
    return torch.fft.fftshift(intensity, VOLUME)


def _shares(points: Tensor, on: Any) -> Tensor:
    """Fraction of every voxel that is inside (n, voxel)."""
    rounding = on.rounding.clamp_min(0.5)[:, None, None]
    beyond = (points @ on.normals.transpose(1, 2) - on.distances[:, None] + rounding).clamp_min_(0)
    return (0.5 - (beyond.square_().sum(-1).sqrt_() - rounding[..., 0])).clamp_(0, 1)


def _fields(points: Tensor, axis: Tensor, on: Any, kinds: NDArray[np.int8]) -> tuple[Tensor, Tensor]:
    """Compute the part of the phase that is scaled, and that of a dislocation (or 0): (n, voxel) float32 each."""
    field = _smooth(axis, on)
    defect = torch.zeros_like(field)
    for number, kind in enumerate(KINDS):
        # Taken from the copy in main memory: a copy from the GPU would have to be waited for.
        rows = torch.from_numpy(np.flatnonzero(kinds == number)).to(points.device)
        if not len(rows):
            continue
        some: Any = Outlines(*(field[rows] for field in on))
        if kind == "surface":
            inward = (points @ some.normals.transpose(1, 2) - some.distances[:, None]).clamp_max_(0)
            moved = (inward / some.depth[:, None, None]).exp_() @ some.pulls[..., None]
            field[rows] = 0.3 * field[rows] + 3 * moved[..., 0]
        elif kind == "twin":
            field[rows] = 0.3 * field[rows] + _from_plane(points, some).abs() * (2 / some.near)[:, None]
        elif kind == "fault":
            field[rows] = 0.5 * field[rows] + 3 * (_from_plane(points, some) > 0).float()
        elif kind == "domains":
            nearest = (points[:, None] - some.centres[:, None]).square().sum(-1).argmin(-1)
            field[rows] = 0.3 * field[rows] + 4 * some.levels.gather(1, nearest)
        elif kind in DISLOCATIONS:
            defect[rows] = _dislocation(points, some)
    return field, defect


def _smooth(axis: Tensor, on: Any) -> Tensor:
    """Sum of plane waves, products of factors along the axes: (n, voxel)."""
    z, y, x = _waves(axis, on)
    zy = (z[:, :, None] * y[:, None]).flatten(1, 2)
    real = zy.real @ x.real.transpose(1, 2) - zy.imag @ x.imag.transpose(1, 2)
    return real.flatten(1) * math.sqrt(2 / on.phases.shape[1])


def _waves(axis: Tensor, on: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Factors (n, side, wave) complex64 along each axis; the phases are in the first."""
    # (n, side, wave) for each of three axes.
    angles = [axis[:, None] * on.vectors[:, None, :, number] for number in range(3)]
    angles[0] = angles[0] + on.phases[:, None]
    z, y, x = (torch.polar(torch.ones_like(angle), angle) for angle in angles)
    return z, y, x


def _from_plane(points: Tensor, on: Any) -> Tensor:
    """Distance of the points from the crystals' planes (n, voxel)."""
    normal = on.across / torch.linalg.vector_norm(on.across, dim=1, keepdim=True)
    return (points @ normal.T).T - (on.through * normal).sum(1)[:, None]


def _dislocation(points: Tensor, on: Any) -> Tensor:
    """Phase of straight dislocations (n, voxel): `displacement.dislocation`."""
    b, q = on.burgers, on.q
    line = on.line / torch.linalg.vector_norm(on.line, dim=1, keepdim=True)
    edge = b - (b * line).sum(1, keepdim=True) * line
    size = torch.linalg.vector_norm(edge, dim=1)
    length = torch.linalg.vector_norm(b, dim=1)
    pure = size <= 1e-9 * length
    # For a pure screw dislocation, the direction across the line of `displacement.dislocation`.
    least = F.one_hot(line.abs().argmin(1), 3).to(line.dtype)
    across = torch.where(pure[:, None], torch.linalg.cross(line, least), edge)
    x_axis = across / torch.linalg.vector_norm(across, dim=1, keepdim=True)
    y_axis = torch.linalg.cross(line, x_axis)
    x, y = (((points @ to.float().T).T - (on.through * to.float()).sum(1)[:, None]) for to in (x_axis, y_axis))
    square = torch.maximum(x * x + y * y, length.square().float()[:, None])
    along, aside = (torch.where(size > 0, size / (2 * math.pi) * (q * to).sum(1), 0.0) for to in (x_axis, y_axis))
    factors = [
        (q * b).sum(1) / (2 * math.pi), along / (2 * (1 - _POISSON)),
        aside * (1 - 2 * _POISSON) / (4 * (1 - _POISSON)), aside / (4 * (1 - _POISSON)),
    ]  # fmt: skip
    turn, shear, spread, bend = (factor.float()[:, None] for factor in factors)
    return turn * torch.atan2(y, x) + shear * x * y / square - spread * square.log() - bend * (x * x - y * y) / square


def _scaled(field: Tensor, defect: Tensor, inside: Tensor, on: Any, kinds: NDArray[np.int8]) -> Tensor:
    """Defect plus the scaled field that gives the drawn phase range in the crystal: (n, voxel)."""
    ranges = torch.tensor(list(REGIMES.values()), dtype=torch.float64, device=field.device)[on.regime.long()]
    least = _extent(defect, inside)
    lowest, highest = torch.maximum(ranges[:, 0], least), ranges[:, 1]
    wanted = torch.maximum(highest - (highest - lowest) * on.drawn, least)
    share = wanted / _extent(field, inside)
    rows = torch.from_numpy(np.flatnonzero(np.isin(kinds, [KINDS.index(kind) for kind in DISLOCATIONS])))
    if len(rows):
        rows = rows.to(field.device)
        share[rows] = _newton(field[rows].double(), defect[rows].double(), inside[rows], wanted[rows], least[rows])
    return defect + share[:, None].float() * field


def _newton(field: Tensor, defect: Tensor, inside: Tensor, wanted: Tensor, least: Tensor) -> Tensor:
    """Find the factor of the field for which `defect + factor * field` has a range: `displacement.share_for_range`."""
    share = (wanted + least) / _extent(field, inside)
    for _ in range(_STEPS):
        phase = defect + share[:, None] * field
        ends = [phase.masked_fill(~inside, -math.inf).argmax(1), phase.masked_fill(~inside, math.inf).argmin(1)]
        high, low = (end[:, None] for end in ends)
        excess = (phase.gather(1, high) - phase.gather(1, low))[:, 0] - wanted
        slope = (field.gather(1, high) - field.gather(1, low))[:, 0]
        # The slope may be 0 where the range is already reached.
        share = torch.where(excess.abs() < 1e-9 * wanted, share, share - excess / slope)
    return share


def _extent(field: Tensor, inside: Tensor) -> Tensor:
    """Range of the values in the crystal (n,) float64."""
    high, low = field.masked_fill(~inside, -math.inf).amax(1), field.masked_fill(~inside, math.inf).amin(1)
    return high.double() - low.double()


def _blurred(intensity: Tensor, deviations: NDArray[np.float64]) -> Tensor:
    """Convolve each volume cyclically with its Gaussian, truncated at 4 standard deviations as in SciPy."""
    radius = int(4 * float(deviations.max()) + 0.5)
    if radius == 0:
        return intensity
    steps = np.arange(-radius, radius + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.exp(-0.5 * (steps / deviations[:, None]) ** 2)
    weights[np.abs(steps) > np.floor(4 * deviations[:, None] + 0.5)] = 0
    weights[:, radius] = 1
    taps = torch.as_tensor(weights / weights.sum(1, keepdims=True), dtype=torch.float32, device=intensity.device)
    for axis in VOLUME:
        parts = enumerate(steps.tolist())
        rolled = (taps[:, index, None, None, None] * intensity.roll(step, axis) for index, step in parts)
        intensity = sum(rolled, torch.zeros_like(intensity))
    return intensity
