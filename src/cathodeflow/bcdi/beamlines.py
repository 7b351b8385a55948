"""Diffractometers of beamlines as data: circles, detector mounting, names and units in files. See `beamlines.yaml`."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, field_validator

from cathodeflow.bcdi.geometry import Floats, rotation
from cathodeflow.errors import InputError
from cathodeflow.io.text import read_yaml
from cathodeflow.options import Options, from_config, option

#: Beamline of the options `theta_deg`, `chi_deg`, ... and of SPEC files that nothing else is said of.
DEFAULT = "34-ID-C"
TABLE = Path(__file__).with_name("beamlines.yaml")
Axis = Literal["x+", "x-", "y+", "y-", "z+", "z-"]
_FACTORS = {"keV": 1.0, "eV": 1e-3, "m": 1.0, "mm": 1e-3, "cm": 1e-2, "um": 1e-6}


class Logged(Options):
    """Names of a quantity in the files of a beamline, and its unit there."""

    names: tuple[str, ...] = option((), "Names in the files, the preferred one first.")
    unit: Literal["keV", "eV", "m", "mm", "cm", "um"] = option(..., "Unit in the files.")

    @property
    def factor(self) -> float:
        """Factor from the unit of the files to keV or m."""
        return _FACTORS[self.unit]


class Beamline(Options):
    """A diffractometer and its detectors; circles from the outermost to the innermost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: dict[str, Axis] = option(..., "Circles of the sample with their axes at zero angles.")
    arm: dict[str, Axis] = option({}, "Circles of the detector arm with their axes at zero angles.")
    slides: dict[str, Axis] = option({}, "Translations of the detector on its arm with their axes.", unit="mm")
    rows: Axis = option("y-", "Direction in which row numbers increase, at zero angles of the arm.")
    cols: Axis = option("x+", "Direction in which column numbers increase, at zero angles of the arm.")
    detectors: dict[str, float] = option({}, "Side of a pixel by detector; the first one is the default.", unit="um")
    names: dict[str, tuple[str, ...]] = option({}, "Other names of the circles in files.")
    energy: Logged = option(Logged(unit="keV"), "Photon energy in files.")
    distance: Logged = option(Logged(unit="m"), "Distance from sample to detector in files.")

    @field_validator("sample")
    @classmethod
    def _some(cls, circles: dict[str, Axis]) -> dict[str, Axis]:
        if not circles:
            raise ValueError("at least one circle")
        return circles

    @property
    def motors(self) -> list[str]:
        """Names of all circles and slides, each once."""
        return list(dict.fromkeys([*self.sample, *self.arm, *self.slides]))

    def names_of(self, motor: str) -> tuple[str, ...]:
        """Names of a circle in files."""
        return (motor, *self.names.get(motor, ()))


def read_beamline(name: str) -> Beamline:
    """Read the entry of a beamline, or a user's own file with the words of an entry.

    Parameters
    ----------
    name : str
        Name such as `P10`, in upper or lower case and with or without hyphens; or the path of a YAML file.

    Raises
    ------
    InputError
        There is no such beamline, or the file is not an entry.
    """
    if name.lower().endswith((".yaml", ".yml")):
        return from_config(Beamline, read_yaml(name), name)
    table = read_yaml(str(TABLE))
    found = {_plain(each): each for each in table}.get(_plain(name))
    if found is None:
        raise InputError("beamline", name, f"one of {', '.join(table)}, or a YAML file of your own (mine.yaml)")
    return from_config(Beamline, table[found], f"beamline {found}")


def vector(axis: str) -> Floats:
    """Return the unit vector of a signed axis.

    Examples
    --------
    >>> vector("y-").tolist()
    [-0.0, -1.0, -0.0]
    """
    return np.eye(3)["xyz".index(axis[0])] * (1 if axis[1] == "+" else -1)


def orientation(circles: dict[str, Any], angles: dict[str, float]) -> Floats:
    """Return the rotation matrix (3, 3) of circles, the outermost first, at their angles [degrees], else 0."""
    turned = np.eye(3)
    for name, axis in circles.items():
        turned = turned @ rotation(vector(axis), angles.get(name, 0.0))
    return turned


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")
