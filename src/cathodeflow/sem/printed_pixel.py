"""Pixel size by the printed scale bar of a micrograph, and whether the settings of the instrument agree with it."""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.io.text_recognition import Text, recognizer
from cathodeflow.sem.scale_bar import Recognizer, ScaleBar, read_scale_bar
from cathodeflow.sem.usable_area import UsableArea

#: Largest relative difference of two pixel sizes that agree.
TOLERANCE = 0.03
#: Columns of a table of images.
COLUMNS = ("pixel_source", "printed_bar", "printed_nm", "printed_error_nm", "printed_check")

DIFFERS = "differs"
#: What is said of images without a scale bar that was read.
NOT_READ, NOT_INSTALLED, NOT_WANTED = "not read", "not read: needs the extra ocr", "not read: scale_bar is off"

_known: dict[bytes, Text] = {}
_lock = threading.Lock()
# Labels that are remembered; those of one session are alike.
_MOST = 4096


def read_printed(image: NDArray[Any], area: UsableArea) -> ScaleBar | None:
    """Read the scale bar in the information bar of a micrograph or, without an information bar, in the picture.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
    area : UsableArea
        What the information bar leaves.

    Returns
    -------
    ScaleBar or None
        None if there is none, or it cannot be read; always without the extra `ocr`.
    """
    recognize = recognizer()
    if recognize is None:
        return None

    def remembered(label: NDArray[np.uint8]) -> Text:
        # Compression changes labels little: not what is darker or brighter than the middle.
        key = str(label.shape).encode() + np.packbits(label > label.max() // 2).tobytes()
        with _lock:
            found = _known.get(key)
        if found is None:
            found = recognize(label)
            with _lock:
                if len(_known) < _MOST:
                    _known[key] = found
        return found

    return _in_bar_or_picture(image, area, remembered)


def printed_columns(
    found: ScaleBar | None, from_file: float | None, given: float | None, *, wanted: bool = True
) -> dict[str, Any]:
    """Return the pixel size of an image, what says so, and what its printed scale bar says.

    Parameters
    ----------
    found : ScaleBar, optional
        Printed scale bar.
    from_file : float, optional
        Pixel size by the instrument [nm].
    given : float, optional
        Pixel size that the user gave for images whose files have none [nm].
    wanted : bool
        Whether the scale bar was to be read.

    Returns
    -------
    dict
        `pixel_nm` and the `COLUMNS`.
    """
    sources = {"instrument": from_file, "option": given, "printed bar": found.pixel_nm if found else None}
    source = next((name for name, value in sources.items() if value), None)
    pixel_nm = sources[source] if source else None
    if found is None:
        check = NOT_WANTED if not wanted else NOT_READ if recognizer() else NOT_INSTALLED
    elif source == "printed bar":
        check = "alone"
    else:
        assert pixel_nm is not None
        agrees = abs(found.pixel_nm / pixel_nm - 1) <= TOLERANCE + found.error / found.pixels
        check = "agrees" if agrees else DIFFERS
    return {
        "pixel_nm": pixel_nm,
        "pixel_source": source,
        "printed_bar": found.text if found else None,
        "printed_nm": found.pixel_nm if found else None,
        "printed_error_nm": found.error_nm if found else None,
        "printed_check": check,
    }


def _in_bar_or_picture(image: NDArray[Any], area: UsableArea, recognize: Recognizer) -> ScaleBar | None:
    white = max(float(image.max()), 1.0)
    grey = image if image.dtype == np.uint8 else (image * (255 / white)).astype(np.uint8)
    bar = area.bar(grey)
    if not bar.size:
        return read_scale_bar(np.ascontiguousarray(grey), recognize, burnt_in=True)
    ways: list[NDArray[Any]] = [bar]
    if area.col0 or area.col1 < image.shape[1]:
        # A bar at the left or right may be read from either side, or upright.
        ways += [np.rot90(bar, 2), grey[:, : area.col0] if area.col0 else grey[:, area.col1 :]]
    found = (read_scale_bar(np.ascontiguousarray(way), recognize) for way in ways)
    return next((scale for scale in found if scale), None)
