"""Positions in binned pixels and in the detector's own; pixel centres are at integers in both."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Position = TypeVar("Position", float, NDArray[np.floating])


def to_detector(position: Position, binning: int) -> Position:
    """Turn a position in binned pixels into one in the detector's own.

    Examples
    --------
    >>> to_detector(0.0, 2)  # the first binned pixel covers pixels 0 and 1
    0.5
    """
    return (position + 0.5) * binning - 0.5
