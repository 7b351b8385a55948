"""Proposed configuration for rocking scans of Bragg coherent diffraction."""

import re

from cathodeflow.bcdi.beamlines import DEFAULT, read_beamline
from cathodeflow.bcdi.scan_geometry import recorded
from cathodeflow.errors import InputError
from cathodeflow.init.files import Contents, Group
from cathodeflow.init.proposal import Names, Proposal, correction, nearest
from cathodeflow.io.scan_logs import read_scan_log
from cathodeflow.io.spec import SpecScan, read_spec_scan, spec_scans

_COLUMNS = ("sample", "role", "frames", "dark", "whitefield", "mask", "spec", "scan", "geometry")
_GEOMETRY = ("energy_kev", "distance_m", "pixel_um", "delta_deg", "gamma_deg", "theta_deg", "chi_deg", "phi_deg",
             "rocking_axis", "rocking_step_deg")  # fmt: skip


def propose(groups: list[Group], contents: Contents, why: str) -> Proposal:
    """Propose rocking scans, each with dark frame, flat field, mask and scan of a SPEC file that lie nearest."""
    names, rows, found, unknown, without = Names(), [], [], [], []
    by_file = len({group.folder for group in groups}) < len(groups)
    for group in groups:
        row = {"sample": names.give(group, by_file=by_file), "role": "phase", "frames": group.source}
        found.append(f"scan {row['sample']}: {group.text()}")
        for word, column in (("dark", "dark"), ("flat", "whitefield"), ("mask", "mask")):
            if source := correction(contents.groups, word, group):
                row[column] = source
                found.append(f"scan {row['sample']}: {column} {source}")
        spec = nearest(contents.spec, group.folder)
        scan = _scan(spec, group) if spec else None
        if spec and scan:
            row["spec"], row["scan"] = spec, scan.where.rpartition(" ")[2]
            found.append(f"scan {row['sample']}: {scan.where}: {scan.command}")
            found.extend(_energy(spec, scan, row["sample"]))
        else:
            without.append(row["sample"])
            if spec:
                unknown.append(f"which scan of {spec} is {row['sample']}: columns spec and scan")
        if "mask" in row:
            unknown.append(f"whether the mask of {row['sample']} is 0 at bad pixels, as it must be")
        rows.append(row)
    options = [
        "# prepare: {threshold: 2}   # set lower intensities to 0: the background of your detector [counts]",
    ]
    if without:
        unknown.append(f"the geometry of {', '.join(without)}: columns spec and scan, or the lines of bcdi.strain")
        options += ["# strain:   # fill in for strain in the laboratory frame (config/README.md has the units)"]
        options += [f"#   {key}: " for key in _GEOMETRY]
    unknown.append("whether the sampling suffices: bcdi.prepare.oversampling and size")
    columns = tuple(name for name in _COLUMNS if any(row.get(name) for row in rows))
    return Proposal("bcdi", why, columns, rows, options, found, unknown)


def _scan(spec: str, group: Group) -> SpecScan | None:
    """Find the scan with as many points as frames: by the number in the names, otherwise the only one."""
    try:
        known = spec_scans(spec)
    except InputError:
        return None
    text = f"{group.folder} {group.files[0]}"
    numbers = [int(digits) for digits in re.findall(r"(?:[Ss]can[_-]?|(?<![A-Za-z])[Ss]#?)0*(\d+)", text)]
    named = [scan for number in dict.fromkeys(numbers) if number in known and (scan := _fitting(spec, number, group))]
    if named:
        return named[0]
    fitting = [scan for number in known if (scan := _fitting(spec, number, group))]
    return fitting[0] if len(fitting) == 1 else None


def _fitting(spec: str, number: int, group: Group) -> SpecScan | None:
    try:
        scan = read_spec_scan(spec, number)
    except InputError:
        return None
    return scan if len(scan.positions) == group.n else None


def _energy(spec: str, scan: SpecScan, sample: str) -> list[str]:
    try:
        known = recorded(read_scan_log(spec, int(scan.where.rpartition(" ")[2])), read_beamline(DEFAULT)).values
    except InputError as error:
        return [f"scan {sample}: not of {DEFAULT} (found {error.found}): give bcdi.strain.beamline"]
    if not {"energy_kev", "distance_m"} <= known.keys():
        return [f"scan {sample}: no energy and distance of {DEFAULT} in the SPEC file: give bcdi.strain.beamline"]
    return [
        f"scan {sample}: {known['energy_kev']:g} keV, detector at {known['distance_m']:g} m, as {DEFAULT} writes it"
    ]
