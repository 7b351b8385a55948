"""Rendering of label volumes as FIB-SEM slices: low contrast, noise and the artefacts of such images."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, distance_transform_edt, gaussian_filter

from cathodeflow.errors import InputError
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.structure import PORE

Floats = NDArray[np.float32]

# Width of the streaks of curtaining, as the standard deviation of a Gaussian [px].
_STREAK = 1.0
# Size of the features of the texture in all three directions, as the standard deviation of a Gaussian [px].
_TEXTURE_SIZE = 2.0
# Distance from the edge of a pore in which charging falls to 1/e [px].
_CHARGING_REACH = 2.0
# Streams of random numbers: each effect has its own, so that no effect changes the numbers of another.
_TEXTURE, _SHADING, _CURTAINS, _GAIN, _NOISE = range(5)


class LabelVolume(Protocol):
    """Array of labels (slice, row, col) that is read slice by slice: of NumPy, Zarr or Dask."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of slices, rows, columns."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one slice."""


def render(labels: LabelVolume, options: Simulate, *, seed: int) -> NDArray[Any]:
    """Render all slices of a label volume; see `render_slice`.

    Returns
    -------
    (slice, row, col) uint8 or uint16

    Examples
    --------
    >>> effects = ["texture", "shine_through", "charging", "psf_sigma", "shading", "curtaining", "gain_drift"]
    >>> plain = Simulate(**dict.fromkeys([*effects, "shot", "read"], 0))
    >>> render(np.array([[[0, 1, 2]]]), plain, seed=0)
    array([[[102, 153, 121]]], dtype=uint8)
    """
    return np.stack([render_slice(labels, index, options, seed=seed) for index in range(labels.shape[0])])


def render_slice(labels: LabelVolume, index: int, options: Simulate, *, seed: int) -> NDArray[Any]:
    """Render one slice of a label volume; only this slice and the one that shines through are read.

    Texture, shine-through and charging belong to the specimen and are blurred by the point spread function; shading,
    curtaining, drift of the intensity and noise follow it. The variance of the noise is
    shot * grey level + read**2. The result does not depend on which other slices are rendered, so a volume can be
    rendered in any chunks.

    Parameters
    ----------
    labels : (slice, row, col) integer
        0 is pore.
    index : int
        Of the slice.
    options : Simulate
        Grey levels, artefacts and bits of a pixel; an artefact of 0 is off.
    seed : int
        Random seed; that of the options is not used.

    Returns
    -------
    (row, col) uint8 or uint16
        Grey level 1 is the largest index.

    Raises
    ------
    InputError
        A label has no grey level in `options.means`.
    """
    below = min(index + options.shine_depth, labels.shape[0] - 1)
    here = _labels(labels, index, options)
    grey = _specimen(here, index, options, seed)
    pores = here == PORE
    if options.shine_through and below != index:
        deep = _specimen(_labels(labels, below, options), below, options, seed)
        grey[pores] += np.float32(options.shine_through) * (deep - grey)[pores]
    if options.charging and pores.any():
        edge = np.exp((1 - distance_transform_edt(~pores)) / _CHARGING_REACH)
        grey += np.float32(options.charging) * np.where(pores, 0, edge).astype(np.float32)
    if options.psf_sigma:
        grey = gaussian_filter(grey, options.psf_sigma, mode="nearest")
    grey *= _gain(here.shape, index, options, seed)
    if options.shot or options.read:
        deviation = np.sqrt(options.shot * np.maximum(grey, 0) + options.read**2)
        grey += deviation * _generator(seed, _NOISE, index).standard_normal(here.shape, dtype=np.float32)
    kind = np.uint8 if options.bits == 8 else np.uint16
    return np.rint(np.clip(grey, 0, 1) * np.iinfo(kind).max).astype(kind)


def class_greys(options: Simulate) -> Floats:
    """Return the grey level of every class after `contrast`.

    Examples
    --------
    >>> class_greys(Simulate(means=(0.4, 0.6, 0.5), contrast=0.5))
    array([0.45, 0.55, 0.5 ], dtype=float32)
    """
    means = np.array(options.means, dtype=np.float64)
    return (means.mean() + options.contrast * (means - means.mean())).astype(np.float32)


def _labels(volume: LabelVolume, index: int, options: Simulate) -> NDArray[np.intp]:
    labels = np.asarray(volume[index]).astype(np.intp)
    outside = np.unique(labels[(labels < 0) | (labels >= len(options.means))])
    if outside.size:
        found = f"class{'es' if outside.size > 1 else ''} {', '.join(map(str, outside))}"
        raise InputError(f"labels of slice {index}", found, f"0 to {len(options.means) - 1}, which have a grey level")
    return labels


def _specimen(labels: NDArray[np.intp], index: int, options: Simulate, seed: int) -> Floats:
    """Grey levels of a section of the specimen (row, col) with the texture, which is continuous over the slices."""
    grey = class_greys(options)[labels]
    if options.texture:
        taps = _taps(_TEXTURE_SIZE)
        noise = np.zeros(labels.shape, dtype=np.float32)
        for step, weight in enumerate(taps):
            white = _generator(seed, _TEXTURE, index + step).standard_normal(labels.shape, dtype=np.float32)
            noise += np.float32(weight) * white
        for axis in (0, 1):
            noise = correlate1d(noise, taps, axis=axis, mode="wrap")
        grey += np.float32(options.texture) * noise
    return grey


def _gain(shape: tuple[int, ...], index: int, options: Simulate, seed: int) -> Floats:
    """Return the factors on the intensity (row, col): shading, curtaining and drift."""
    rows, cols = shape
    streaks = _generator(seed, _CURTAINS, index).standard_normal(cols)
    streaks = correlate1d(streaks, _taps(_STREAK), mode="wrap")
    drift = _generator(seed, _GAIN, index).standard_normal()
    gain = (1 + options.shading * _shading(rows, cols, seed)) * (1 + options.curtaining * streaks)
    return (gain * (1 + options.gain_drift * drift)).astype(np.float32)


def _shading(rows: int, cols: int, seed: int) -> NDArray[np.float64]:
    """Return a tilted, bent plane (row, col) of mean 0 and largest value 1."""
    tilt_row, tilt_col, bend_row, bend_col = _generator(seed, _SHADING, 0).standard_normal(4)
    down, across = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, cols)
    field = tilt_row * down + tilt_col * across + 0.5 * (bend_row * down**2 + bend_col * across**2)
    field -= field.mean()
    return field / max(np.abs(field).max(), 1e-6)


def _taps(size: float) -> NDArray[np.float64]:
    """Gaussian weights with a sum of squares of 1: they smooth noise and keep its standard deviation."""
    reach = int(np.ceil(2.5 * size))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / size) ** 2)
    return taps / np.sqrt(np.sum(taps**2))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
