"""A measured scan made ready for phasing: corrected, its peak in the middle, binned as far as may be, cut to size."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.corrections import (
    Counts,
    Region,
    accept,
    clip_negative,
    divide_by_whitefield,
    drop_background,
    leave_out,
    leave_out_hot,
    leave_out_silent,
    subtract_dark,
)
from cathodeflow.bcdi.sampling import (
    LEAST,
    LOST,
    Triple,
    binned,
    cut_share,
    estimate_oversampling,
    find_centre,
    good_size,
    window_of,
)
from cathodeflow.errors import InputError

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
_AXES = ("frames", "rows", "cols")


class Prepared(NamedTuple):
    """A scan ready for phasing.

    Attributes
    ----------
    amplitude : (z, y, x) float32
        Square root of counts, axes (rocking, detector row, detector column), zero frequency at n // 2.
    mask : (z, y, x) bool
        True where something was measured; the amplitude is 0 elsewhere.
    steps : list of dict
        Figures of each step under its name `step`; where something should be looked at also a `warning`.
    """

    amplitude: Floats
    mask: Bools
    steps: list[dict[str, Any]]


def prepare_scan(
    frames: NDArray[Any],
    *,
    dark: NDArray[Any] | None = None,
    whitefield: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    detector_region: Region | None = None,
    window: tuple[slice, slice, slice] | None = None,
    saturation: float | None = None,
    dark_limit: float = 10.0,
    hot_ratio: float | None = 10.0,
    threshold: float = 0.0,
    oversampling: float = 3.0,
    size: Triple | None = None,
    divisor: int = 2,
) -> Prepared:
    """Correct a scan, bring its peak to the middle, bin it as far as its oversampling allows, and cut it to size.

    Parameters
    ----------
    frames : (frame, row, col) real
        Raw counts.
    dark, whitefield : (row, col), optional
        Of the frames, or of the whole detector with `detector_region`.
    mask : (row, col) or (frame, row, col), optional
        0 where nothing can be used: beam stop, gaps, other crystals.
    detector_region : (slice, slice), optional
        Rows and columns of the detector that the frames show.
    window : (slice, slice, slice), optional
        Frames, rows and columns to use; by default all.
    saturation, dark_limit, hot_ratio, threshold
        As of `cathodeflow.bcdi.corrections`; `hot_ratio` None leaves hot pixels alone.
    oversampling : float
        Wanted along each axis, at least 2: frames or pixels are joined as long as it stays above.
    size : (int, int, int), optional
        Of the result; by default about all that was measured.
    divisor : int
        Of each side of the result, where there is no `size`; even.

    Raises
    ------
    InputError
        A correction is of another size than the frames, all frames are 0, the window is outside, or a setting is out of
        its range.
    """
    if oversampling < LEAST:
        raise InputError("oversampling", f"{oversampling:g}", f"at least {LEAST:g}")
    if divisor < 2 or divisor % 2:
        raise InputError("divisor", f"{divisor}", "an even number")
    if size is not None and any(n < 2 or n % 2 for n in size):
        raise InputError("size", " x ".join(map(str, size)), "even numbers")
    counts, steps = _corrected(
        frames, dark, whitefield, mask, detector_region, window, saturation, dark_limit, hot_ratio, threshold
    )
    values, known = counts.values, counts.known
    centre, figures = find_centre(values)
    steps.append(figures)
    steps.append(cut_share(values, centre))
    measured = estimate_oversampling(values)
    binning = tuple(max(1, int(value // oversampling)) for value in measured)
    sides = size or tuple(good_size(n // b, divisor) for n, b in zip(values.shape, binning, strict=True))
    figures = {"step": "oversampling", "estimated": measured, "binning": list(binning)}
    figures["after"] = [value / b for value, b in zip(measured, binning, strict=True)]
    low = [f"{value:.2f}" for value in measured if value < LEAST]
    if low:
        figures["warning"] = f"oversampling of {' and '.join(low)}, less than {LEAST:g}: the crystal is too large"
    steps.append(figures)
    starts = [c - b // 2 - (n // 2) * b for c, b, n in zip(centre, binning, sides, strict=True)]
    lengths = [n * b for n, b in zip(sides, binning, strict=True)]
    total = float(values.sum(dtype=np.float64))
    values, known = window_of(values, starts, lengths), window_of(known, starts, lengths)
    lost = 1 - float(values.sum(dtype=np.float64)) / total
    figures = {"step": "size", "shape": list(sides), "starts": starts, "share_lost": lost}
    if lost > LOST:
        figures["warning"] = f"{lost:.1%} of the intensity lie outside the size of {' x '.join(map(str, sides))}"
    steps.append(figures)
    values, known = binned(values, known, binning)
    steps.append({"step": "result", "counts": float(values.sum(dtype=np.float64)), "known": float(known.mean())})
    return Prepared(np.sqrt(values), known, steps)


def _corrected(
    frames: NDArray[Any],
    dark: NDArray[Any] | None,
    whitefield: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    region: Region | None,
    window: tuple[slice, slice, slice] | None,
    saturation: float | None,
    dark_limit: float,
    hot_ratio: float | None,
    threshold: float,
) -> tuple[Counts, list[dict[str, Any]]]:
    """Do all that concerns the detector; give the counts and the figures of each step."""
    counts = accept(frames, saturation=saturation)
    steps = [counts.figures]

    def then(step: Any, *arguments: Any, **options: Any) -> None:
        nonlocal counts
        counts = step(counts.values, counts.known, *arguments, **options)
        steps.append(counts.figures)

    if dark is not None:
        then(subtract_dark, dark, region=region, limit=dark_limit)
    then(clip_negative)
    # What is silent, and the threshold, are told by counts as they were counted.
    then(leave_out_silent)
    if threshold > 0:
        then(drop_background, threshold=threshold)
    if whitefield is not None:
        then(divide_by_whitefield, whitefield, region=region)
    if mask is not None:
        then(leave_out, mask, region=region)
    if hot_ratio is not None:
        then(leave_out_hot, ratio=hot_ratio)
    if window is not None:
        part = counts.values[window]
        if 0 in part.shape:
            raise InputError("window", "nothing", f"a part of {' x '.join(map(str, counts.values.shape))} voxels")
        steps.append({"step": "window", "shape": list(part.shape)})
        counts = Counts(part, counts.known[window], {})
    return counts, steps


def step_metrics(steps: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Flatten the figures of the steps to numbers with names such as `oversampling_estimated_rows`.

    Three numbers are those of the frames, rows and columns; of any other list the length is given.
    """
    found: dict[str, float] = {}
    for step in steps:
        for key, value in step.items():
            name = f"{step['step']}_{key}"
            if isinstance(value, int | float):
                found[name] = value
            elif isinstance(value, list) and len(value) == len(_AXES) and key != "zero_frames":
                found |= {f"{name}_{axis}": number for axis, number in zip(_AXES, value, strict=True)}
            elif isinstance(value, list):
                found[name] = len(value)
    return found
