"""FEI and Thermo Fisher: the TIFF tags 34680 and 34682, sections of keys, or XML."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from cathodeflow.io.instruments.values import KV, MM, NM, TIMES, known, number, parse_time, quantity
from cathodeflow.io.instruments.xml_text import found, local_name, parse_xml, text_of

TAGS = (34680, 34682)
#: First words of the text at the end of files without tags.
MARK = "[User]"
# Rows by which sizes may differ when they are scaled.
_ROUNDING = 1.5


def settings(sections: Mapping[str, Any], shape: tuple[int, int] | None = None) -> dict[str, Any]:
    """Read the settings from sections of keys as returned by tifffile.

    The pixel size in the tag is that of the scan. Where an image was scaled when it was saved, its pixels are another
    fraction of the field of view.
    """

    def get(*places: str) -> str | None:
        for location in places:
            section, key = location.split("/")
            value = (sections.get(section) or {}).get(key) if isinstance(sections.get(section), Mapping) else None
            if value not in (None, ""):
                return str(value)
        return None

    detector = get("Detectors/Name")
    own = detector or "Detectors"
    width = quantity(get("Scan/PixelWidth", "EScan/PixelWidth"), NM, 1e9)
    height = quantity(get("Scan/PixelHeight", "EScan/PixelHeight"), NM, 1e9)
    field = quantity(get("Scan/HorFieldsize", "EScan/HorFieldsize", "EBeam/HFW"), NM, 1e9)
    scan = number(get("Image/ResolutionY")), number(get("Image/ResolutionX"))
    bar, scaled = _bar_rows(number(get("PrivateFei/DatabarHeight")), scan, shape)
    return known(
        {
            "time": parse_time(get("PrivateFei/TimeOfCreation")) or parse_time(get("User/Date"), get("User/Time")),
            "magnification": quantity(get("Image/Magnification", "EScan/Magnification"), TIMES),
            "voltage_kv": quantity(get("Beam/HV", "EBeam/HV"), KV, 1e-3),
            "detector": detector,
            "pixel_nm": _pixel_size(width, height, field / shape[1] if field and scaled and shape else None),
            "brightness": quantity(get(f"{own}/BrightnessDB", f"{own}/Brightness"), {}),
            "contrast": quantity(get(f"{own}/ContrastDB", f"{own}/Contrast"), {}),
            "focus": quantity(get("EBeam/WD", "Beam/WD", "Stage/WorkingDistance"), MM, 1e3),
            "maker": f"FEI {get('System/SystemType') or ''}".strip(),
            "bar_rows": bar,
        }
    )


def sections(text: str) -> dict[str, dict[str, str]]:
    """Split a text of sections, `[Beam]`, and keys, `HV=5000`."""
    result: dict[str, dict[str, str]] = {}
    keys: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            keys = result.setdefault(line[1:-1], {})
        elif "=" in line:
            key, _, value = line.partition("=")
            keys[key.strip()] = value.strip()
    return result


def _pixel_size(width: float | None, height: float | None, of_file: float | None) -> float | None:
    """Find the pixel size of the saved image [nm].

    Parameters
    ----------
    width, height : float, optional
        Pixel size of the scan along both axes.
    of_file : float, optional
        Field of view over the columns of the file, where that shows the whole scan.
    """
    if of_file:
        return of_file
    # Pixels are square: where they are not, the lines of the scan were joined, and its columns when it was saved.
    return max((size for size in (width, height) if size), default=None)


def _bar_rows(
    height: float | None, scan: tuple[float | None, float | None], shape: tuple[int, int] | None
) -> tuple[int | None, bool]:
    """Find the rows of the information bar, and whether the file shows the whole scan, scaled or not.

    None where the height in the tag is not that in this file.
    """
    scan_rows, scan_cols = scan
    if not scan_rows or not scan_cols or shape is None:
        return (0 if height == 0 else None), False
    scale = shape[1] / scan_cols
    # The bar keeps its height where the image above it was scaled, or is scaled with it, or was cropped.
    for bar in (height or 0, (height or 0) * scale, 0):
        if abs(scan_rows * scale + bar - shape[0]) <= _ROUNDING:
            return round(bar), True
    return (0 if height == 0 else None), False


def xml_settings(tag: str | bytes, shape: tuple[int, int] | None = None) -> dict[str, Any]:
    """Read the settings from XML, plain or in base64; nothing from other text."""
    root = parse_xml(tag)
    if root is None:
        return {}
    if local_name(root) == "MementoItemCollection":
        return _memento(root)
    pixel = quantity(_part(root, "PixelSize", "X"), NM, 1e9)
    field = quantity(_part(root, "ScanFieldOfView", "X"), NM, 1e9)
    scan = number(_part(root, "ImageSize", "Y")), number(_part(root, "ImageSize", "X"))
    if shape and scan[1] and _bar_rows(None, scan, shape)[1]:
        pixel = field / shape[1] if field else pixel * scan[1] / shape[1] if pixel else None
    maker = " ".join(filter(None, (text_of(root, "Manufacturer") or "FEI", text_of(root, "InstrumentClass"))))
    return known(
        {
            "time": parse_time(text_of(root, "AcquisitionDatetime", "AcquisitionDate")),
            "voltage_kv": quantity(text_of(root, "AccelerationVoltage"), KV, 1e-3),
            "detector": text_of(root, "DetectorName", "Signal"),
            "pixel_nm": pixel,
            "brightness": number(text_of(root, "Brightness")),
            "contrast": number(text_of(root, "Contrast")),
            "focus": quantity(text_of(root, "WorkingDistance"), MM, 1e3),
            "maker": maker,
        }
    )


def _part(root: ElementTree.Element, name: str, axis: str) -> str | None:
    """Return the text along an axis, X or Y, of the first element of a name, with its unit."""
    parts = [part for element in found(root, name) for part in element if local_name(part) == axis]
    return f"{parts[0].text} {parts[0].get('unit') or ''}".strip() if parts else None


def _memento(root: ElementTree.Element) -> dict[str, Any]:
    """Read the settings from a collection of items, each with name, unit and value; lengths are in metres."""
    values: dict[str, str] = {}
    for item in found(root, "MementoItem"):
        parts = {local_name(part): (part.text or "").strip() for part in item}
        if parts.get("anyType"):
            values.setdefault(parts.get("Name", ""), parts["anyType"])
    return known(
        {
            "time": parse_time(values.get("TimeOfCreation") or values.get("AcquisitionTime")),
            "magnification": number(values.get("Magnification")),
            "voltage_kv": quantity(values.get("HighVoltage") or values.get("HV"), KV, 1e-3),
            "detector": values.get("DetectorName"),
            "pixel_nm": quantity(values.get("PixelWidth") or values.get("PixelSize"), NM, 1e9),
            "brightness": number(values.get("Brightness")),
            "contrast": number(values.get("Contrast")),
            "focus": quantity(values.get("WorkingDistance") or values.get("WD"), MM, 1e3),
            "maker": "FEI",
        }
    )
