"""Stage: compare the scans of one particle over the state of charge, time, temperature or voltage."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.ambiguities import centred
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import Geometry, ScanVectors, restored
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.series_alignment import aligned_particles
from cathodeflow.bcdi.series_options import CONDITIONS, Series
from cathodeflow.bcdi.series_values import QUANTITIES, ScanValues, peak_offset, scan_values
from cathodeflow.bcdi.strain_fields import Particle, particle
from cathodeflow.errors import InputError
from cathodeflow.io.aligned_series import AlignedSeries, write_aligned_series
from cathodeflow.io.phasing import Starts, read_pattern, read_starts, read_steps
from cathodeflow.io.reconstructions import read_cxi
from cathodeflow.io.tables import write_csv
from cathodeflow.options import from_config
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")

# Difference of the correlations of both orientations below which it is said that the orientation is uncertain.
_UNCERTAIN = 0.01


@stage("bcdi.series")
def series(
    objects: Sequence[InputFile],
    *,
    out: OutputFile,
    aligned: OutputFile,
    prepared: Sequence[InputFile],
    reconstruction: Sequence[InputFile],
    scan: Sequence[str],
    state_of_charge: Sequence[float] = (),
    time: Sequence[float] = (),
    temperature: Sequence[float] = (),
    voltage: Sequence[float] = (),
    options: Series,
) -> Metrics:
    """Compare the best of the OBJECTS of several scans of one particle, in the order of a condition.

    Options that are given once for every scan are in the order of OBJECTS.

    Parameters
    ----------
    objects : sequence of path
        Objects of `phase` or `refine` (objects.h5), one file per scan, in the order of the condition.
    out : path
        CSV table to write: one row per scan.
    aligned : path
        HDF5 file to write: amplitude, support and strain of all scans on the same voxels (aligned.h5).
    prepared : sequence of path
        Diffraction amplitudes (prepared.h5) of each scan; give the option once for every scan.
    reconstruction : sequence of path
        CXI file of `strain` of each scan, for its geometry; give the option once for every scan.
    scan : sequence of str
        Name of each scan; give the option once for every scan.
    state_of_charge : sequence of float
        State of charge of each scan; give the option once for every scan. Default: not known.
    time : sequence of float
        Time of each scan; give the option once for every scan. Default: not known.
    temperature : sequence of float
        Temperature of each scan [degC]; give the option once for every scan. Default: not known.
    voltage : sequence of float
        Voltage at each scan [V]; give the option once for every scan. Default: not known.

    Raises
    ------
    InputError
        Numbers of files, names and values differ, no condition is known, or a scan has no geometry.
    """
    given = dict(zip(CONDITIONS, (state_of_charge, time, temperature, voltage), strict=True))
    conditions = {name: list(values) for name, values in given.items() if len(values)}
    lists = {"prepared": prepared, "reconstruction": reconstruction, "scan": scan, **conditions}
    for name, values in lists.items():
        if len(values) != len(objects):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(flag, f"{len(values)} values", f"{len(objects)}, one for each file of objects")
    against: str = options.against or next(iter(conditions), CONDITIONS[0])
    if against not in conditions:
        expected = f"its value for each scan, or another column for against ({', '.join(CONDITIONS)})"
        raise InputError(f"--{against.replace('_', '-')}", "nothing", expected)
    reference = options.reference or scan[0]
    if reference not in scan:
        raise InputError("--reference", reference, f"one of {', '.join(scan)}")
    rows, particles, voxel_nm = [], [], options.voxel_nm
    for number, (starts_file, pattern_file, cxi, name) in enumerate(
        zip(objects, prepared, reconstruction, scan, strict=True)
    ):
        geometry, strained = _geometry(cxi)
        starts = read_starts(starts_file)
        offset = _offset(pattern_file, name)
        with_names = {"scan": name, **{key: values[number] for key, values in conditions.items()}}
        values = scan_values(
            starts.objects,
            geometry,
            strained,
            binning=starts.binning,
            offset=offset,
            min_correlation=options.min_correlation,
        )
        if values.used < 2:
            log.warning("%s: no other start agrees with the best, so there are no errors", name)
        rows.append(with_names | {"starts": values.starts, "starts_used": values.used} | _pairs(values))
        made = _best(starts, geometry, strained.model_copy(update={"voxel_nm": voxel_nm}))
        voxel_nm = made.voxel_nm
        particles.append(made)
    table = pd.DataFrame(rows)
    _add_mean_strain(table, list(scan).index(reference))
    alike = aligned_particles(particles)
    for column in ("twin", "correlation", "margin", "overlap"):
        table[column] = [getattr(each, column) for each in alike]
    for name, each in zip(scan, alike, strict=True):
        if each.margin < _UNCERTAIN:
            log.warning("%s: object and twin fit the scan before equally well (%.4f)", name, each.correlation)
    write_csv(out, table, float_format="%.9g")
    write_aligned_series(
        aligned,
        AlignedSeries(
            np.stack([np.abs(each.volume) / np.abs(each.volume).max() for each in alike]),
            np.stack([each.strain for each in alike]),
            np.stack([each.support for each in alike]),
            list(scan),
            table[against].to_numpy(np.float64),
            against,
            float(particles[0].voxel_nm),
        ),
    )
    merits = {
        "scans": len(table),
        "mean_strain_range": float(np.ptp(table["mean_strain"])),
        "volume_ratio": float(table["volume_nm3"].max() / table["volume_nm3"].min()),
        "lowest_correlation": float(table["correlation"].min()),
        "lowest_overlap": float(table["overlap"].min()),
    }
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in merits.items()))
    return Metrics(merits)


def _geometry(cxi: str) -> tuple[Geometry | ScanVectors, Strain]:
    """Geometry of a reconstruction, and the options with which its strain was computed."""
    found = read_cxi(cxi)
    if not found.geometry:
        raise InputError(cxi, "no geometry", "one in every scan of a series, for lattice spacing and strain")
    return restored(found.geometry), from_config(Strain, dict(found.process.get("options", {})), cxi)


def _offset(pattern_file: str, name: str) -> Any:
    pattern = read_pattern(pattern_file)
    shape = (pattern.amplitude.shape[0], pattern.amplitude.shape[1], pattern.amplitude.shape[2])
    offset = peak_offset(read_steps(pattern_file), shape, pattern.binning)
    if offset is None:
        log.warning("%s: the position of the peak in the frames is not known; the lattice spacing is that of the"
                    " middle of the frames", name)  # fmt: skip
        return np.zeros(3)
    return offset


def _best(starts: Starts, geometry: Geometry | ScanVectors, options: Strain) -> Particle:
    best = centred(torch.from_numpy(starts.objects[0]))
    support = support_of(best, threshold=options.threshold).numpy()
    return particle(best.numpy(), support, geometry, options, binning=starts.binning)


def _pairs(values: ScanValues) -> dict[str, float]:
    """Columns of the quantities, each followed by its error."""
    named: dict[str, float] = {}
    for name in QUANTITIES:
        named |= {name: values.best[name], f"{name}_err": values.errors[name]}
    return named


def _add_mean_strain(table: pd.DataFrame, first: int) -> None:
    """Add the relative change of the lattice spacing from the reference scan, and its error."""
    spacing, error = table["d_spacing"], table["d_spacing_err"] / table["d_spacing"]
    mean = spacing / spacing[first] - 1
    both = np.hypot(error, error[first]) * (1 + mean)
    both[first] = 0.0
    table.insert(list(table.columns).index("d_spacing_err") + 1, "mean_strain", mean)
    table.insert(list(table.columns).index("mean_strain") + 1, "mean_strain_err", both)
