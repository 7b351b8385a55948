"""Stage: write pattern and object as other programs read them."""

import torch

from cathodeflow.bcdi.ambiguities import centred
from cathodeflow.bcdi.exchange_options import EXPORT_FILES, Export
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import read_pattern, read_starts
from cathodeflow.io.phasing_exchange import write_cxi_pattern, write_npz_object, write_npz_pattern
from cathodeflow.io.reconstructions import Reconstruction, read_cxi, write_cxi
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage


@stage("bcdi.export")
def export(
    pattern: InputFile,
    *,
    out: OutputFolder,
    objects: InputFile | None = None,
    reconstruction: InputFile | None = None,
    sample: str = "scan",
    options: Export,
) -> Metrics:
    """Write a prepared PATTERN, and its best object, as files for PyNX, bcdi and cdiutils.

    npz: pynx_data.npz, pynx_mask.npz and object.npz. CXI: pattern.cxi and object.cxi. Objects are on the voxels of the
    measurement, centred and without phase ramp, with the sign of numpy's fftn from object to detector.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    out : path
        Folder for the files.
    objects : path
        Objects of `phase` or `refine` (objects.h5). Default: only the pattern is written.
    reconstruction : path
        CXI file of `strain`, for energy, distance and pixel size in the CXI file of the pattern.
    sample : str
        Name of the scan.

    Raises
    ------
    InputError
        No format is given, or a file cannot be read.
    """
    if not options.formats:
        raise InputError("--formats", "nothing", f"at least one of {', '.join(EXPORT_FILES)}")
    measured = read_pattern(pattern)
    geometry = read_cxi(reconstruction).geometry if reconstruction else {}
    written = 0
    if "npz" in options.formats:
        write_npz_pattern(f"{out}/pynx_data.npz", f"{out}/pynx_mask.npz", measured)
        written += 2
    if "cxi" in options.formats:
        write_cxi_pattern(f"{out}/pattern.cxi", measured, geometry)
        written += 1
    if objects:
        best = centred(torch.from_numpy(read_starts(objects).objects[0]))
        volume, support = best.numpy(), support_of(best, threshold=SUPPORT_THRESHOLD).numpy()
        if "npz" in options.formats:
            write_npz_object(f"{out}/object.npz", volume, support)
        if "cxi" in options.formats:
            named = {"sample": sample, "binning": list(measured.binning)}
            write_cxi(
                f"{out}/object.cxi", Reconstruction(volume, support, frame="scan", geometry=geometry, process=named)
            )
        written += len(options.formats)
    return Metrics({"files": written})
