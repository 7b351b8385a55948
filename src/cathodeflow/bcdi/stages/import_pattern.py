"""Stage: take over a diffraction pattern that another program has prepared."""

import logging

from cathodeflow.bcdi.exchange_options import ImportPattern
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import write_pattern
from cathodeflow.io.phasing_exchange import read_foreign_pattern
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.import_pattern")
def import_pattern(
    pattern: InputFile, *, out: OutputFile, mask: InputFile | None = None, options: ImportPattern
) -> Metrics:
    """Convert a PATTERN that PyNX, bcdi or cdiutils has prepared to diffraction amplitudes for `phase`.

    Parameters
    ----------
    pattern : path
        npz file with the intensity `data`, or CXI file. It should be corrected, with its peak in the middle.
    out : path
        File of the diffraction amplitudes to write (prepared.h5).
    mask : path
        npz file with the `mask`, 0 at measured pixels. Default: the mask in PATTERN; without one, all pixels that are
        not negative or NaN are measured.

    Raises
    ------
    InputError
        A file cannot be used, or the mask does not belong to the pattern.
    """
    found = read_foreign_pattern(pattern, mask)
    frames, rows, cols = options.binning
    if min(options.binning) < 1:
        raise InputError("--binning", str(options.binning), "numbers of at least 1")
    write_pattern(out, found._replace(binning=(frames, rows, cols)))
    merits = {"counts": float((found.amplitude.astype("float64") ** 2).sum()), "known": float(found.mask.mean())}
    log.info("%s: %.4g counts, %.1f %% of the pixels measured", pattern, merits["counts"], 100 * merits["known"])
    return Metrics(merits)
