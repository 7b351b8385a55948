"""Preparation of a measured scan for phasing: correct, centre on the peak, bin, crop."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.aliens import find_aliens, leave_out_regions, rocking_peaks
from cathodeflow.bcdi.corrections import (
    Counts,
    Region,
    accept,
    clip_negative,
    divide_by_whitefield,
    drop_background,
    find_flat_top,
    leave_out,
    leave_out_blocks,
    leave_out_hot,
    leave_out_silent,
    subtract_dark,
)
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.rocking_positions import regridded
from cathodeflow.bcdi.sampling import (
    LEAST,
    LOST,
    binned,
    covering_size,
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
        True where a pixel was measured; the amplitude is 0 elsewhere.
    steps : list of dict
        Name (`step`) and figures of each step, and a `warning` where something needs attention.
    """

    amplitude: Floats
    mask: Bools
    steps: list[dict[str, Any]]


def prepare_scan(
    frames: NDArray[Any],
    options: Prepare,
    *,
    dark_frame: NDArray[Any] | None = None,
    whitefield: NDArray[Any] | None = None,
    mask: NDArray[Any] | None = None,
    detector_region: Region | None = None,
    positions: NDArray[np.float64] | None = None,
) -> Prepared:
    """Correct a scan, centre its peak, bin it as far as its oversampling allows, and crop it to size.

    Parameters
    ----------
    frames : (frame, row, col) real
        Raw counts.
    options : Prepare
        Its `region` is not used: give `detector_region`.
    dark_frame, whitefield : (row, col), optional
        Images of the size of the frames, or of the whole detector with `detector_region`.
    mask : (row, col) or (frame, row, col), optional
        0 at pixels to exclude: beam stop, gaps, other crystals.
    detector_region : (slice, slice), optional
        Rows and columns of the detector that the frames show.
    positions : (frame,) float64, optional
        True place of each frame on even positions, as a number of frames
        (`cathodeflow.bcdi.rocking_positions.even_scan`): the frames are interpolated onto these.

    Raises
    ------
    InputError
        A correction has another size than the frames, all frames are 0, or the window is outside the scan.
    """
    counts, steps = _corrected(frames, options, dark_frame, whitefield, mask, detector_region, positions)
    values, known = counts.values, counts.known
    saturated, found = find_flat_top(values, known)
    steps.append(found)
    centre, figures = find_centre(values)
    edge = cut_share(values, centre)
    # A whole pattern is taken as it is, as the other side of a strained one is only similar.
    whole = "warning" not in edge and known.all()
    measured = estimate_oversampling(values, known, None if whole else centre)
    # Where a detector saturates, a pattern is not as high on both sides.
    if options.aliens != "keep" and not saturated.any():
        alien, found = find_aliens(values, known, centre, measured)
        steps.append(found)
        if options.aliens == "remove" and alien.any():
            values, known = np.where(alien, 0, values).astype(np.float32), known & ~alien
            centre, figures = find_centre(values)
            edge, measured = cut_share(values, centre), estimate_oversampling(values, known, centre)
    steps.append(rocking_peaks(values, measured[0]))
    steps.append(figures)
    steps.append(_on_detector(figures["at"], options, detector_region))
    steps.append(edge)
    # Until here saturated counts serve to find the peak.
    if saturated.any() and options.saturation is None:
        values, known = np.where(saturated, 0, values).astype(np.float32), known & ~saturated
    binning = options.bins or tuple(max(1, int(value // options.oversampling)) for value in measured)
    coarse = [n // b for n, b in zip(values.shape, binning, strict=True)]
    frames_side = covering_size(coarse[0], centre[0] // binning[0], options.divisor)
    sides = options.size or (frames_side, *(good_size(n, options.divisor) for n in coarse[1:]))
    figures = {"step": "oversampling", "estimated": measured, "binning": list(binning)}
    figures["after"] = [value / b for value, b in zip(measured, binning, strict=True)]
    low = [f"{value:.2f}" for value in measured if value < LEAST]
    if low:
        figures["warning"] = (
            f"oversampling of {' and '.join(low)}, less than {LEAST:g}: the crystal is too large, or its peak is cut"
        )
    steps.append(figures)
    starts = [c - b // 2 - (n // 2) * b for c, b, n in zip(centre, binning, sides, strict=True)]
    lengths = [n * b for n, b in zip(sides, binning, strict=True)]
    total = float(values.sum(dtype=np.float64))
    values, known = window_of(values, starts, lengths), window_of(known, starts, lengths)
    lost = 1 - float(values.sum(dtype=np.float64)) / total
    figures = {"step": "size", "shape": list(sides), "starts": starts, "share_lost": lost}
    if lost > LOST:
        figures["warning"] = (
            f"{100 * lost:.1f} % of the intensity lies outside the volume of {' x '.join(map(str, sides))} voxels"
        )
    steps.append(figures)
    values, known = binned(values, known, binning)
    steps.append({"step": "result", "counts": float(values.sum(dtype=np.float64)), "known": float(known.mean())})
    return Prepared(np.sqrt(values), known, steps)


def _corrected(
    frames: NDArray[Any],
    options: Prepare,
    dark: NDArray[Any] | None,
    whitefield: NDArray[Any] | None,
    mask: NDArray[Any] | None,
    region: Region | None,
    positions: NDArray[np.float64] | None,
) -> tuple[Counts, list[dict[str, Any]]]:
    """Correct the counts of the detector; return them and the figures of each step."""
    counts = accept(frames, saturation=options.saturation)
    steps = [counts.figures]

    def then(step: Any, *arguments: Any, **keywords: Any) -> None:
        nonlocal counts
        counts = step(counts.values, counts.known, *arguments, **keywords)
        steps.append(counts.figures)

    if dark is not None:
        then(subtract_dark, dark, region=region, limit=options.dark_limit)
    then(clip_negative)
    # Empty frames and the threshold refer to the measured counts, before division by the whitefield.
    then(leave_out_silent)
    if options.threshold > 0:
        then(drop_background, threshold=options.threshold)
    if whitefield is not None:
        then(divide_by_whitefield, whitefield, region=region)
    if mask is not None:
        then(leave_out, mask, region=region)
    if options.hot_ratio is not None:
        then(leave_out_hot, ratio=options.hot_ratio)
        then(leave_out_blocks, ratio=options.hot_ratio)
    if options.exclude:
        then(leave_out_regions, options.exclude)
    if positions is not None:
        values, known, figures = regridded(counts.values, counts.known, positions)
        counts = Counts(values, known, figures)
        steps.append(figures)
    window = tuple(slice(*ends) if ends else slice(None) for ends in (options.frames, options.rows, options.cols))
    part = counts.values[window]
    if 0 in part.shape:
        raise InputError("window", "nothing", f"a part of {' x '.join(map(str, counts.values.shape))} voxels")
    steps.append({"step": "window", "shape": list(part.shape)})
    counts = Counts(part, counts.known[window], {})
    return counts, steps


def _on_detector(at: list[float], options: Prepare, region: Region | None) -> dict[str, Any]:
    """Frame of the scan, and row and column of the detector, of a place in the window."""
    starts = [ends[0] if ends else 0 for ends in (options.frames, options.rows, options.cols)]
    first = (0, 0) if region is None else (region[0].start or 0, region[1].start or 0)
    frame, row, col = (float(place + start) for place, start in zip(at, starts, strict=True))
    return {"step": "peak", "frame": frame, "row": row + first[0], "col": col + first[1]}


def step_metrics(steps: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Flatten the figures of the steps to numbers with names such as `oversampling_estimated_rows`.

    Lists of three numbers refer to frames, rows and columns; of any other list the length is returned.
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
