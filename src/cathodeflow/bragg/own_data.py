"""Proposed configuration for detector frames with Bragg peaks."""

import os

from cathodeflow.errors import InputError
from cathodeflow.init.files import Contents, Group
from cathodeflow.init.proposal import Names, Proposal, correction, nearest
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.text import read_yaml

_COLUMNS = ("sample", "role", "frames", "dark", "mask", "flat", "geometry", "omega", "state_of_charge")


def propose(groups: list[Group], contents: Contents, why: str) -> Proposal:
    """Propose scans, each with the dark image, mask, flat field and geometry that lie nearest."""
    names, rows, found, options = Names(), [], [], []
    unknown = ["the state of charge of each scan: column state_of_charge, 0 (discharged) to 1 (charged)"]
    detector: str | None = None
    by_file = len({group.folder for group in groups}) < len(groups)
    without = []
    for number, group in enumerate(groups):
        row = {"sample": names.give(group, by_file=by_file), "role": "measure" if number else "train"}
        row["frames"] = group.source
        found.append(f"scan {row['sample']}: {group.text()}")
        for word in ("dark", "mask", "flat"):
            if source := correction(contents.groups, word, group):
                row[word] = source
                found.append(f"scan {row['sample']}: {word} {source}")
        place, name, problem = _geometry(contents, group)
        if place:
            row["geometry"], detector = place, name or detector
            found.append(f"scan {row['sample']}: geometry {place}" + f", detector {name}" * bool(name))
        else:
            without.append(row["sample"])
            if problem:
                unknown.append(problem)
        rows.append(row)
    if detector:
        options += ["geometry:", f"  detector: {detector}"]
    if without:
        unknown.append(f"the geometry of the detector for {', '.join(without)}: column geometry (.poni, hexrd, NeXus)")
    unknown.append("the phases: cell parameters or a CIF file in bragg.lattice.cell, for lattice parameters and strain")
    unknown.append("the noise: raise bragg.find_peaks.min_persistence if noise is taken for peaks [counts]")
    options += [
        "# find_peaks: {min_persistence: 10}      # if noise is taken for peaks: height above the next saddle [counts]",
        "# lattice: {cell: {file: phase.cif}}     # for lattice parameters and strain: the cell of the phase",
    ]
    return Proposal("bragg", why, _used(_COLUMNS, rows), rows, options, found, unknown)


def _used(columns: tuple[str, ...], rows: list[dict[str, str]]) -> tuple[str, ...]:
    """Return the columns that have a cell; state_of_charge stays, to be filled in."""
    return tuple(name for name in columns if name == "state_of_charge" or any(row.get(name) for row in rows))


def _geometry(contents: Contents, group: Group) -> tuple[str | None, str | None, str | None]:
    """Return the geometry file of frames of this size, the detector in it, or why no file nearby can be used."""
    pending, problem = list(contents.geometries), None
    while (path := nearest(pending, group.folder)) is not None:
        pending.remove(path)
        for detector in (None, *_detectors(path, group)):
            try:
                read_detector_geometry(path, detector=detector, shape=group.shape)
                return path, detector, None
            except InputError as error:
                reason = error
        if os.path.splitext(path)[1].lower() == ".poni" or _detectors(path, group):
            problem = f"whether {path} is the geometry of {group.source}: found {reason.found}"
    return None, None, problem


def _detectors(path: str, group: Group) -> list[str]:
    """List the detectors of an instrument file, first those whose names are in the name of the frames."""
    try:
        named = read_yaml(path).get("detectors") if path.lower().endswith((".yml", ".yaml", ".hexrd")) else None
    except InputError:
        return []
    names = list(map(str, named)) if isinstance(named, dict) else []
    return sorted(names, key=lambda name: name not in os.path.basename(group.files[0]))
