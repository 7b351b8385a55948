"""Whether dark frames, flat fields and masks fit the frames of a rocking scan, from their headers."""

from collections.abc import Iterator, Mapping

from cathodeflow.bcdi.options import Section
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.scans import Scan, scan_log
from cathodeflow.errors import InputError
from cathodeflow.io.correction_images import correction_source, warn_of_levels, warn_of_mask
from cathodeflow.io.frames import FrameSeries, open_series
from cathodeflow.io.rocking_scans import scan_source
from cathodeflow.io.sources import is_remote


def find_problems(section: Section, samples: Mapping[str, Scan]) -> Iterator[InputError]:
    """Find corrections that do not fit the frames of their scan, in a sheet whose frames can be read."""
    for name, scan in samples.items():
        if scan.simulated or is_remote(scan.frames):
            continue
        frames = open_series(scan_source(scan.frames, scan.scan))
        for error in correction_errors(scan, frames, section.prepare):
            yield InputError(f"{section.samples}: scan '{name}': {error.where}", error.found, error.expected)


def correction_errors(scan: Scan, frames: FrameSeries, options: Prepare) -> Iterator[InputError]:
    """Find corrections that fit neither the frames nor the region of the detector; a mask of nearly all is logged.

    Parameters
    ----------
    scan : Scan
    frames : FrameSeries
        The frames of the scan.
    options : Prepare
    """
    sample = f"scan '{scan.sample}'"
    for column in ("dark", "whitefield", "mask"):
        source = getattr(scan, column)
        if source is None or is_remote(source):
            continue
        try:
            series = open_series(correction_source(source, mask=column == "mask"))
        except InputError as error:
            yield from error.errors
            continue
        expected = "{} x {} pixels, the size of the frames".format(*frames.shape)
        found = "{} x {} pixels".format(*series.shape)
        if column == "mask" and series.n_frames not in (1, frames.n_frames):
            yield InputError(f"mask: {source}", f"{series.n_frames} images", f"one, or {frames.n_frames} as the frames")
        elif series.shape != frames.shape:
            region = _region(scan, options)
            if region is None:
                yield InputError(f"{column}: {source}", found, f"{expected}, or bcdi.prepare.region of the detector")
            elif _part(series.shape, region) != frames.shape:
                rows, cols = region
                ends = f"rows {rows.start} to {rows.stop} and columns {cols.start} to {cols.stop}"
                yield InputError(f"{column}: {source}", f"{found}, of which {ends} are the region", expected)
        elif column == "mask" and series.n_frames == 1:
            key = "bcdi.prepare.invert_mask"
            warn_of_mask(source, bad_is_zero=not options.invert_mask, sample=sample, key=key)
        elif column != "mask":
            levels = {"dark": source if column == "dark" else None, "flat": source if column == "whitefield" else None}
            warn_of_levels(frames, **levels, sample=sample)


def _region(scan: Scan, options: Prepare) -> tuple[slice, slice] | None:
    if options.region is not None:
        return slice(*options.region[:2]), slice(*options.region[2:])
    known = None if scan.spec is None or is_remote(scan.spec) else scan_log(scan.spec, scan.scan)
    return None if known is None else known.region


def _part(shape: tuple[int, int], region: tuple[slice, slice]) -> tuple[int, ...]:
    """Return the rows and columns of the region of an image of this shape."""
    return tuple(len(range(*side.indices(size))) for side, size in zip(region, shape, strict=True))
