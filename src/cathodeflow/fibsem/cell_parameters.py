"""Parameters of a positive electrode from its measured properties, with their errors, as a BPX file.

BPX is the Battery Parameter eXchange, a standard of the Faraday Institution: https://bpxstandard.com
"""

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.cell_options import Cell
from cathodeflow.fibsem.intervals import scaled, slope, unscaled

Float64 = NDArray[np.float64]

#: Parameters of BPX that are measured, and their names in tables.
PARAMETERS = {
    "porosity": "Porosity",
    "transport_efficiency": "Transport efficiency",
    "particle_radius": "Particle radius [m]",
    "specific_surface_area": "Surface area per unit volume [m-1]",
}
_ELECTRODE = "Positive electrode"
_METRES = 1e-6
# Columns of the standard errors, by kind of error.
_ERRORS = {"both": "standard_error", "segmentation": "segmentation_error", "sampling": "sampling_error"}


class Electrode(NamedTuple):
    """Measured properties, or arrays of drawn ones.

    porosity, active_fraction : float
    tortuosity : float, of the pores.
    surface : float, of the active material per volume of the electrode [1/m].
    """

    porosity: Any
    active_fraction: Any
    tortuosity: Any
    surface: Any

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of BPX by the names of `PARAMETERS`.

        The transport efficiency is porosity / tortuosity factor. The particle radius is 3 active fraction / surface,
        that of spheres with the measured fraction and surface: models take surface * radius / 3 for the fraction.

        Examples
        --------
        >>> round(Electrode(0.4, 0.5, 2.0, 3e5).parameters()["particle_radius"] * 1e6, 3)
        5.0
        """
        radius = 3 * self.active_fraction / self.surface
        efficiency = self.porosity / self.tortuosity
        return dict(zip(PARAMETERS, (self.porosity, efficiency, radius, self.surface), strict=True))


def electrode_of(table: pd.DataFrame, options: Cell, where: str) -> Electrode:
    """Read the properties of an electrode from a table of properties.

    Raises
    ------
    InputError
        A property is missing or not finite, or lengths are in voxels.
    """
    rows = _rows(table, options, where)
    tortuosity = 1 / float(np.mean([1 / row["value"] for row in rows["tortuosity"]]))
    return Electrode(
        rows["porosity"][0]["value"], rows["active"][0]["value"], tortuosity, rows["surface"][0]["value"] / _METRES
    )


def drawn_electrodes(
    table: pd.DataFrame, options: Cell, where: str, *, error: str, count: int, rng: np.random.Generator
) -> Electrode | None:
    """Draw electrodes from the error bars: arrays of `count` values.

    Porosity, tortuosity factor and surface are drawn independently, on the scales on which their errors are symmetric.
    The solid is made of the same mixture, so the active fraction follows the porosity: the two are measured on the same
    voxels, and more pores are less solid.

    Parameters
    ----------
    table : DataFrame
    options : Cell
    where : str
        The file, for messages.
    error : str
        `both`, `segmentation` or `sampling`.
    count : int
    rng : Generator

    Returns
    -------
    Electrode, or None if the table has not this error.
    """
    column = _ERRORS[error]
    if column not in table.columns:
        return None
    rows, central = _rows(table, options, where), electrode_of(table, options, where)

    def draw(name: str, value: float, errors: list[float]) -> Float64:
        known = [one for one in errors if np.isfinite(one)]
        deviation = float(np.sqrt(np.mean(np.square(known)))) / slope(name, value) if known else 0.0
        values = scaled(name, value) + deviation * rng.standard_normal(count)
        return np.array([unscaled(name, one) for one in values])

    porosity = draw("volume_fraction", central.porosity, [rows["porosity"][0][column]])
    relative = [row[column] / row["value"] for row in rows["tortuosity"]]
    tortuosity = draw("tortuosity_factor", central.tortuosity, [central.tortuosity * one for one in relative])
    surface = draw("specific_surface_area", central.surface, [rows["surface"][0][column] / _METRES])
    active = central.active_fraction * (1 - porosity) / (1 - central.porosity)
    return Electrode(porosity, active, tortuosity, surface)


def bpx_content(
    template: Mapping[str, Any], electrode: Electrode, deviations: Mapping[str, float] | None = None, *, title: str = ""
) -> dict[str, Any]:
    """Put measured parameters into a BPX file.

    The nominal capacity follows the active material of the positive electrode, so that 1C stays an hour.

    Parameters
    ----------
    template : mapping
        A BPX file with all parameters.
    electrode : Electrode
    deviations : mapping, optional
        Standard errors by the names of `PARAMETERS`; written as parameters `<name>, standard error` of the section
        `User-defined`.
    title : str
        Of the header, where given.
    """
    content = copy.deepcopy(dict(template))
    parts = content["Parameterisation"]
    own, cell = parts[_ELECTRODE], parts["Cell"]
    before = own[PARAMETERS["specific_surface_area"]] * own[PARAMETERS["particle_radius"]] / 3
    cell["Nominal cell capacity [A.h]"] *= float(electrode.active_fraction) / before
    own |= {PARAMETERS[name]: float(value) for name, value in electrode.parameters().items()}
    if deviations:
        start = f"{_ELECTRODE}: "
        known = {f"{start}{PARAMETERS[name]}, standard error": float(value) for name, value in deviations.items()}
        parts["User-defined"] = {**parts.get("User-defined", {}), **known}
    if title:
        content["Header"]["Title"] = title
    return content


def validated(content: Mapping[str, Any], where: str) -> Any:
    """Return a BPX object.

    Raises
    ------
    InputError
        The bpx package refuses the content: its first reason.
    """
    import bpx
    from pydantic import ValidationError

    try:
        return bpx.parse_bpx_obj(copy.deepcopy(dict(content)))
    except ValidationError as error:
        first = error.errors()[0]
        place = " / ".join(str(part) for part in first["loc"]) or "file"
        raise InputError(where, f"{place}: {first['msg']}", "a BPX file with the parameters of a DFN model") from None
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(where, f"{error}".splitlines()[0], "a BPX file with the parameters of a DFN model") from None


def require_template(content: Any, where: str) -> dict[str, Any]:
    """Return the content of a template.

    Raises
    ------
    InputError
        It has no positive electrode with one active material.
    """
    parts = content.get("Parameterisation") if isinstance(content, dict) else None
    own = parts.get(_ELECTRODE) if isinstance(parts, dict) else None
    if not isinstance(own, dict) or not set(PARAMETERS.values()) <= set(own):
        raise InputError(where, "no positive electrode with one active material", "a BPX file of a DFN model")
    return dict(content)


def _rows(table: pd.DataFrame, options: Cell, where: str) -> dict[str, list[dict[Any, Any]]]:
    """Rows of the properties that a cell needs."""
    surface = ("specific_surface_area", options.active)
    if options.surface == "pores":
        surface = ("contact_area", f"{options.pore}-{options.active}")
    wanted = {
        "porosity": ("volume_fraction", options.pore),
        "active": ("volume_fraction", options.active),
        "tortuosity": ("tortuosity_factor", options.pore),
        "surface": surface,
    }
    found: dict[str, list[dict[Any, Any]]] = {}
    for name, (key, phase) in wanted.items():
        rows = table[(table["property"] == key) & (table["phase"] == phase)].to_dict("records")
        if name == "tortuosity" and options.direction is not None:
            rows = [row for row in rows if float(row["direction"]) == options.direction]
        if not rows:
            raise InputError(where, f"no {key} of {phase}", "a table with it; see the options `pore` and `active`")
        found[name] = [row for row in rows if np.isfinite(row["value"]) and row["value"] > 0]
        if not found[name]:
            note = next((str(row["note"]) for row in rows if isinstance(row["note"], str)), "not finite")
            raise InputError(where, f"{key} of {phase}: {note}", "a finite value")
    if found["surface"][0]["unit"] != "1/um":
        raise InputError(where, f"lengths in {found['surface'][0]['unit']}", "1/um: measure with a voxel size")
    return found
