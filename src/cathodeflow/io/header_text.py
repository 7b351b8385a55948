"""Sample angle and photon energy from the text headers of detector files.

- Pilatus and Eiger (CBF, TIFF): lines such as `# Start_angle 0.1000 deg.` and `# Wavelength 0.98 A`.
- EDF: names and values; of ESRF motors `motor_mne` and `motor_pos`.
- TIFF of areaDetector (EPICS): a tag `name:value` for each attribute.
"""

import json
import re
from collections.abc import Mapping

from cathodeflow.io.detector_geometry import HC_KEV_ANGSTROM

_NUMBER = re.compile(r"[\s=:]*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-zÅµ]*)")
_LINE = re.compile(r"[#\s]*([A-Za-z_][\w. -]*?)\s*(?:[:=]|\s)\s*([-+.\d].*)")
# Longer lines are not of such a header, and would take long to match.
_LONGEST = 200
_ANGSTROM = {"a": 1.0, "å": 1.0, "angstrom": 1.0, "angstroms": 1.0, "nm": 10.0, "m": 1e10}
_KEV = {"kev": 1.0, "ev": 1e-3}


def text_fields(text: str) -> dict[str, str]:
    r"""Split a text header into names, in lower case, and values; lines of other kinds are left out.

    Examples
    --------
    >>> text_fields("# Start_angle 0.1000 deg.\nOmega:3")
    {'start_angle': '0.1000 deg.', 'omega': '3'}
    """
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if isinstance(values, dict):
        return {str(name).lower(): str(value) for name, value in values.items()}
    lines = (line.strip() for line in re.split(r"[\n\r;]", text))
    found = (_LINE.fullmatch(line) for line in lines if len(line) <= _LONGEST)
    return {match[1].lower(): match[2] for match in found if match}


def motor_fields(header: Mapping[str, object]) -> dict[str, str]:
    """Return the names, in lower case, and values of an EDF header, its motors included."""
    fields = {str(name).lower(): str(value) for name, value in header.items()}
    for names, values in (("motor_mne", "motor_pos"), ("counter_mne", "counter_pos")):
        pairs = zip(fields.get(names, "").split(), fields.get(values, "").split(), strict=False)
        fields |= {name.lower(): value for name, value in pairs}
    return fields


def conditions_of(fields: Mapping[str, str], omega_name: str | None) -> tuple[float, float]:
    """Find the sample angle [deg] and the photon energy [keV] in a header; NaN where there is none.

    Parameters
    ----------
    fields : mapping of str to str
        Names in lower case and values, with or without a unit.
    omega_name : str, optional
        Name of the angle; by default `Start_angle` or `Omega`.

    Returns
    -------
    (float, float)
        The angle at the middle of the exposure, where the header has an increment of that angle.

    Examples
    --------
    >>> conditions_of({"start_angle": "10 deg.", "angle_increment": "0.5 deg.", "wavelength": "1.0 A"}, None)
    (10.25, 12.398419843320026)
    """
    named = [(omega_name.lower(), f"{omega_name.lower()}_increment")] if omega_name else []
    places = named or [("start_angle", "angle_increment"), ("omega", "omega_increment")]
    omega = float("nan")
    for name, increment in places:
        if (value := _quantity(fields.get(name))) is not None:
            step = _quantity(fields.get(increment))
            omega = value[0] + (step[0] / 2 if step else 0.0)
            break
    return omega, _energy(fields)


def _energy(fields: Mapping[str, str]) -> float:
    for name in ("wavelength", "incident_wavelength"):
        found = _quantity(fields.get(name))
        if found is not None and found[0] > 0:
            # EDF files of the ESRF have metres and no unit.
            factor = _ANGSTROM.get(found[1], 1e10 if found[0] < 1e-6 else 1.0)
            return HC_KEV_ANGSTROM / (found[0] * factor)
    for name in ("photon_energy", "incident_energy", "energy"):
        found = _quantity(fields.get(name))
        if found is not None and found[0] > 0:
            return found[0] * _KEV.get(found[1], 1e-3 if found[0] > 1000 else 1.0)
    return float("nan")


def _quantity(text: str | None) -> tuple[float, str] | None:
    found = _NUMBER.match(text or "")
    return (float(found[1]), found[2].lower()) if found else None
