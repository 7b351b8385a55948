"""Grey slices as a FIB-SEM records them, rendered from labels: low contrast, and all that disturbs such images."""

from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt, gaussian_filter

from cathodeflow.errors import InputError
from cathodeflow.fibsem.structure import PORE

Floats = NDArray[np.float32]

# Width of the streaks of curtaining, as the deviation of a Gauss curve [px].
_STREAK = 1.0
# What random numbers are for: each has a stream of its own, so that no effect changes what is drawn for another.
_TEXTURE, _SHADING, _CURTAINS, _GAIN, _NOISE = range(5)


class Look(NamedTuple):
    """How phases appear and what disturbs the image; grey in 0..1, and an effect of 0 is off.

    The first ones belong to the specimen and are blurred by the point spread, the others follow it.
    """

    #: Grey of each class, in the order of the labels.
    means: tuple[float, ...] = (0.40, 0.60, 0.475)
    #: Factor on the distances of the means from their average.
    contrast: float = 1.0
    #: Deviation of the texture within a phase, and the size of its features in all three directions [px].
    texture: float = 0.012
    texture_size: float = 2.0
    #: Share of what a pore shows that comes from below it, and how many slices below.
    shine_through: float = 0.30
    shine_depth: int = 3
    #: Extra brightness of solid at the edge of a pore, and the distance in which it falls to 1/e [px].
    charging: float = 0.02
    charging_reach: float = 2.0
    #: Deviation of the point spread, a Gauss curve within the slice [px].
    psf_sigma: float = 1.5
    #: Largest relative change by uneven brightness, the same in every slice.
    shading: float = 0.03
    #: Relative deviation of vertical streaks, new in every slice.
    curtaining: float = 0.012
    #: Relative deviation of the brightness from slice to slice.
    gain_drift: float = 0.015
    #: Variance of the noise is shot * grey + read**2.
    shot: float = 0.001
    read: float = 0.02


DEFAULT = Look()
#: Classes at their grey, nothing else.
QUIET = Look(texture=0, shine_through=0, charging=0, psf_sigma=0, shading=0, curtaining=0, gain_drift=0, shot=0, read=0)


class Volume(Protocol):
    """What gives slices (row, col) by number: a numpy, Zarr or dask array (slice, row, col)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of slices, rows, columns."""

    def __getitem__(self, number: int, /) -> Any:
        """Return one slice."""


def render(labels: Volume, look: Look = DEFAULT, *, bits: Literal[8, 16] = 8, seed: int) -> NDArray[Any]:
    """Render all slices of a label volume.

    Parameters
    ----------
    labels : (slice, row, col) integer
        0 is pore.
    look : Look
    bits : {8, 16}
        Of a pixel.
    seed : int

    Returns
    -------
    (slice, row, col) uint8 or uint16
        Grey 1 is the largest number.

    Raises
    ------
    InputError
        A label has no grey value in `look.means`.

    Examples
    --------
    >>> labels = np.array([[[0, 1, 2]]])
    >>> render(labels, QUIET, seed=0)
    array([[[102, 153, 121]]], dtype=uint8)
    """
    slices = [render_slice(labels, number, look, bits=bits, seed=seed) for number in range(labels.shape[0])]
    return np.stack(slices)


def render_slice(
    labels: Volume, number: int, look: Look = DEFAULT, *, bits: Literal[8, 16] = 8, seed: int
) -> NDArray[Any]:
    """Render one slice (row, col) of a label volume, of which only it and the one that shines through are read.

    The result does not depend on which other slices are rendered, so a volume can be rendered in any chunks. Parameters
    are as of `render`.
    """
    below = min(number + look.shine_depth, labels.shape[0] - 1)
    here = _labels(labels, number, look)
    grey = _specimen(here, number, look, seed)
    pores = here == PORE
    if look.shine_through and below != number:
        deep = _specimen(_labels(labels, below, look), below, look, seed)
        grey[pores] += np.float32(look.shine_through) * (deep - grey)[pores]
    if look.charging and pores.any():
        edge = np.exp((1 - distance_transform_edt(~pores)) / look.charging_reach)
        grey += np.float32(look.charging) * np.where(pores, 0, edge).astype(np.float32)
    if look.psf_sigma:
        grey = gaussian_filter(grey, look.psf_sigma, mode="nearest")
    grey *= _gain(here.shape, number, look, seed)
    if look.shot or look.read:
        deviation = np.sqrt(look.shot * np.maximum(grey, 0) + look.read**2)
        grey += deviation * _generator(seed, _NOISE, number).standard_normal(here.shape, dtype=np.float32)
    kind = np.uint8 if bits == 8 else np.uint16
    return np.rint(np.clip(grey, 0, 1) * np.iinfo(kind).max).astype(kind)


def class_greys(look: Look = DEFAULT) -> Floats:
    """Return the grey of every class after `contrast`.

    Examples
    --------
    >>> class_greys(Look(means=(0.4, 0.6, 0.5), contrast=0.5))
    array([0.45, 0.55, 0.5 ], dtype=float32)
    """
    means = np.array(look.means, dtype=np.float64)
    return (means.mean() + look.contrast * (means - means.mean())).astype(np.float32)


def _labels(volume: Volume, number: int, look: Look) -> NDArray[np.intp]:
    labels = np.asarray(volume[number]).astype(np.intp)
    outside = np.unique(labels[(labels < 0) | (labels >= len(look.means))])
    if outside.size:
        found = f"class{'es' if outside.size > 1 else ''} {', '.join(map(str, outside))}"
        raise InputError(f"labels of slice {number}", found, f"0 to {len(look.means) - 1}, which have a grey value")
    return labels


def _specimen(labels: NDArray[np.intp], number: int, look: Look, seed: int) -> Floats:
    """Grey of a cut through the specimen (row, col) with the texture, which goes on from slice to slice."""
    grey = class_greys(look)[labels]
    if look.texture:
        taps = _taps(look.texture_size)
        noise = np.zeros(labels.shape, dtype=np.float32)
        for step, weight in enumerate(taps):
            white = _generator(seed, _TEXTURE, number + step).standard_normal(labels.shape, dtype=np.float32)
            noise += np.float32(weight) * white
        for axis in (0, 1):
            noise = correlate1d(noise, taps, axis=axis, mode="wrap")
        grey += np.float32(look.texture) * noise
    return grey


def _gain(shape: tuple[int, ...], number: int, look: Look, seed: int) -> Floats:
    """Return the factors on the brightness (row, col): shading, curtaining and drift."""
    rows, cols = shape
    streaks = _generator(seed, _CURTAINS, number).standard_normal(cols)
    streaks = correlate1d(streaks, _taps(_STREAK), mode="wrap")
    drift = _generator(seed, _GAIN, number).standard_normal()
    gain = (1 + look.shading * _shading(rows, cols, seed)) * (1 + look.curtaining * streaks)
    return (gain * (1 + look.gain_drift * drift)).astype(np.float32)


def _shading(rows: int, cols: int, seed: int) -> NDArray[np.float64]:
    """Return a tilted, bent plane (row, col) of mean 0 and largest value 1."""
    tilt_row, tilt_col, bend_row, bend_col = _generator(seed, _SHADING, 0).standard_normal(4)
    down, across = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, cols)
    field = tilt_row * down + tilt_col * across + 0.5 * (bend_row * down**2 + bend_col * across**2)
    field -= field.mean()
    return field / max(np.abs(field).max(), 1e-6)


def _taps(size: float) -> NDArray[np.float64]:
    """Weights of a Gauss curve whose squares add up to 1: they make noise smooth and keep its deviation."""
    reach = int(np.ceil(2.5 * size))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / size) ** 2)
    return taps / np.sqrt(np.sum(taps**2))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
