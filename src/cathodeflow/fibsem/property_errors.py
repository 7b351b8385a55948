"""Properties with both errors: sampling, and segmentation."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cathodeflow.fibsem.intervals import ScaledError, interval, slope
from cathodeflow.fibsem.microstructure.property_table import NAN, Property
from cathodeflow.fibsem.sampling_error import Key
from cathodeflow.fibsem.segmentation_error import Corrected

#: Notes on the error of a property.
SAMPLING_ONLY, NO_SAMPLING = "sampling error only", "segmentation error only"


class Measured(NamedTuple):
    """A property with its error and the two terms of the error.

    row : Property, with the value without the bias of the segmentation, standard error and intervals.
    as_segmented : float, value of the segmentation, as it is.
    sampling_error, segmentation_error : float, standard errors in the unit of the property; NaN if unknown.
    """

    row: Property
    as_segmented: float
    sampling_error: float
    segmentation_error: float


def combined(
    properties: Iterable[Property], sampling: Mapping[Key, ScaledError], corrected: Mapping[Key, Corrected]
) -> list[Measured]:
    """Combine both errors: variances add up, degrees of freedom by Welch and Satterthwaite.

    A property with only one of them has this one, and a note that says so.

    Parameters
    ----------
    properties : iterable of Property
        Of the segmentation.
    sampling : mapping
        Of `sampling_error.sampling_errors`.
    corrected : mapping
        Of `segmentation_error.correct`.
    """
    return [_measured(row, sampling, corrected) for row in properties]


def _measured(row: Property, sampling: Mapping[Key, ScaledError], corrected: Mapping[Key, Corrected]) -> Measured:
    key = (row.property, row.phase, row.direction)
    own, better = sampling.get(key), corrected.get(key)
    value = row.value if better is None else better.value
    second = None if better is None else better.error
    both = own.plus(second) if own is not None and second is not None else own or second
    missing = SAMPLING_ONLY if second is None else NO_SAMPLING if own is None else ""
    note = "; ".join(text for text in (row.note, missing if both else "") if text)
    terms = [NAN if one is None else slope(row.property, value) * one.error for one in (own, second)]
    return Measured(row._replace(value=value, note=note, **interval(row.property, value, both)), row.value, *terms)
