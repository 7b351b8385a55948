"""What is counted in a slice of labels against the truth, and the figures of merit that follow from sums of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.statistics import confidence_bins

Float64 = NDArray[np.float64]
Labels = NDArray[np.integer]

# Regions hang together by corners too, so that a film one pixel thick is one region whatever its direction.
_CORNERS = np.ones((3, 3), dtype=bool)
# Probabilities of half precision may add up to a little more than 1.
_ABOVE_ONE = 2e-3


class Counts(NamedTuple):
    """Counts of slices; leading axes `...` are slices, or samples of a bootstrap.

    slices : (...), 1 for a slice, so that sums hold their number.
    confusion : (..., k, k), pixels by class in the truth and class in the prediction.
    boundary : (..., k, 4), for each class pixels on the predicted boundary, those of them near the true one, pixels on
        the true boundary, those of them near the predicted one.
    specks : (..., 3), specks predicted, those of them with no right pixel, specks in the truth.
    calibration : (..., bins, 3), in bins of confidence the pixels, the sum of their confidences, the right ones; all 0
        where there are no probabilities.
    """

    slices: Float64
    confusion: Float64
    boundary: Float64
    specks: Float64
    calibration: Float64


def count_slice(
    truth: Labels,
    prediction: Labels,
    probabilities: NDArray[np.floating] | None = None,
    *,
    n_classes: int,
    tolerance_px: float,
    speck_px: int,
    bins: int,
) -> Counts:
    """Count one slice.

    Parameters
    ----------
    truth, prediction : (row, col) int
        Labels 0..n_classes - 1.
    probabilities : (n_classes, row, col), optional
    n_classes : int
    tolerance_px : float
        Distance up to which boundaries agree [px].
    speck_px : int
        Most pixels of a speck [px].
    bins : int
        Of confidence.

    Raises
    ------
    InputError
        Shapes that differ, labels that are no classes, or values that are no probabilities.
    """
    for where, labels in (("truth", truth), ("prediction", prediction)):
        if labels.shape != truth.shape or labels.ndim != 2 or not labels.size:
            raise InputError(where, f"a slice of shape {labels.shape}", f"(row, col), as in the truth {truth.shape}")
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(where, f"labels of type {labels.dtype}", "integers")
        if labels.min() < 0 or labels.max() >= n_classes:
            strange = np.unique(labels[(labels < 0) | (labels >= n_classes)])
            raise InputError(where, f"the labels {', '.join(map(str, strange[:5]))}", f"0 to {n_classes - 1}")
    return Counts(
        np.ones(()),
        confusion(truth, prediction, n_classes),
        boundary_counts(truth, prediction, n_classes, tolerance_px=tolerance_px),
        speck_counts(truth, prediction, n_classes, speck_px=speck_px),
        np.zeros((bins, 3)) if probabilities is None else _calibration(truth, prediction, probabilities, bins),
    )


def confusion(truth: Labels, prediction: Labels, n_classes: int) -> Float64:
    """Count pixels by class in the truth (rows) and class in the prediction (columns): (k, k).

    Examples
    --------
    >>> confusion(np.array([[0, 0, 1]]), np.array([[0, 1, 1]]), 2)
    array([[1., 1.],
           [0., 1.]])
    """
    pairs = truth.astype(np.intp) * n_classes + prediction.astype(np.intp)
    return np.bincount(pairs.ravel(), minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.float64)


def boundary_counts(truth: Labels, prediction: Labels, n_classes: int, *, tolerance_px: float) -> Float64:
    """Count boundary pixels of each class, and those no further than `tolerance_px` from the other boundary [1]_.

    A pixel is on the boundary of its class when one of its four neighbours has another class; the edge of the slice is
    no boundary.

    Returns
    -------
    (k, 4) float64
        As `Counts.boundary`.

    References
    ----------
    .. [1] G. Csurka et al., BMVC 2013, doi:10.5244/C.27.32, section 2
    """
    reach = int(tolerance_px)
    rows, cols = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disc = rows**2 + cols**2 <= tolerance_px**2
    counts = np.zeros((n_classes, 4))
    for number in range(n_classes):
        true, found = (_boundary(labels == number) for labels in (truth, prediction))
        near_true, near_found = (ndimage.binary_dilation(one, disc) for one in (true, found))
        counts[number] = found.sum(), (found & near_true).sum(), true.sum(), (true & near_found).sum()
    return counts


def speck_counts(truth: Labels, prediction: Labels, n_classes: int, *, speck_px: int) -> Float64:
    """Count specks: regions of a class of `speck_px` pixels at most, which do not touch the edge of the slice.

    Pixels hang together by sides and corners. A region at the edge may go on outside, hence it counts for none.

    Returns
    -------
    (3,) float64
        As `Counts.specks`.
    """
    counts = np.zeros(3)
    for number in range(n_classes):
        right = truth == number
        counts[:2] += _specks(prediction == number, right, speck_px)
        counts[2] += _specks(right, right, speck_px)[0]
    return counts


def figures(counts: Counts, classes: Sequence[str]) -> dict[str, Float64]:
    """Figures of merit of counts, each in the shape of the counts' leading axes.

    - `miu`, `fiu`: mean of the classes' intersection over union, and the same weighted by the classes' true pixels
      [1]_. For class c with t_c true pixels, n_cc of them found, and n_jc of class j taken for it, it is
      n_cc / (t_c + sum over j != c of n_jc). The MatPhase paper has this formula too, but words n_jc the other way
      round, which would leave wrong finds out of account.
    - `f1_<class>`, `accuracy`: over pixels.
    - `boundary_f1`: mean over the classes of the harmonic mean of the shares of the predicted boundary near the true
      one and the other way round [2]_.
    - `specks`: small regions per slice (`speck_counts`); `false_specks`: those of them with no right pixel, the
      artefacts; `true_specks`: those in the truth.
    - `ece`: expected calibration error [3]_.
    - `fraction_<class>`, `true_fraction_<class>`, `fraction_error_<class>`: share of a phase in the prediction and in
      the truth, and the former less the latter.

    A class that is neither in the truth nor in the prediction has NaN and no part in means.

    References
    ----------
    .. [1] J. Long et al., CVPR 2015, arXiv:1411.4038, section 5
    .. [2] G. Csurka et al., BMVC 2013, doi:10.5244/C.27.32, section 2
    .. [3] C. Guo et al., ICML 2017, arXiv:1706.04599, eq. 3
    """
    confusion, boundary, calibration = counts.confusion, counts.boundary, counts.calibration
    right, true, found = np.einsum("...ii->...i", confusion), confusion.sum(-1), confusion.sum(-2)
    pixels = true.sum(-1)
    f1, iou = _ratio(2 * right, true + found), _iou(confusion)
    edge_found, near_true, edge_true, near_found = np.moveaxis(boundary, -1, 0)
    # 2 P R / (P + R) of the shares P = near_true / edge_found and R = near_found / edge_true; 0 where one is missing.
    edges = _ratio(2 * near_true * near_found, near_true * edge_true + near_found * edge_found)
    edges = np.where((edge_found + edge_true > 0) & np.isnan(edges), 0.0, edges)
    result = {"miu": mean_iu(confusion), "fiu": _ratio((true * np.nan_to_num(iou)).sum(-1), pixels)}
    result |= {f"f1_{name}": f1[..., place] for place, name in enumerate(classes)}
    result |= {"accuracy": _ratio(right.sum(-1), pixels), "boundary_f1": _mean_of_known(edges)}
    for place, name in enumerate(("specks", "false_specks", "true_specks")):
        result[name] = _ratio(counts.specks[..., place], counts.slices)
    gaps = np.abs(calibration[..., 1] - calibration[..., 2]).sum(-1)
    result["ece"] = _ratio(gaps, calibration[..., 0].sum(-1))
    for kind, part in (("fraction", found), ("true_fraction", true), ("fraction_error", found - true)):
        result |= {f"{kind}_{name}": _ratio(part[..., place], pixels) for place, name in enumerate(classes)}
    return result


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def _specks(mask: NDArray[np.bool_], right: NDArray[np.bool_], speck_px: int) -> tuple[int, int]:
    """Numbers of specks in a mask, and of those without a pixel that is right."""
    region, n = ndimage.label(mask, _CORNERS)
    small = np.bincount(region.ravel(), minlength=n + 1) <= speck_px
    for edge in (region[0], region[-1], region[:, 0], region[:, -1]):
        small[edge] = False
    small[0] = False
    wrong = np.bincount(region[right], minlength=n + 1) == 0
    return int(small.sum()), int((small & wrong).sum())


def _calibration(truth: Labels, prediction: Labels, probabilities: NDArray[np.floating], bins: int) -> Float64:
    if probabilities.ndim != 3 or probabilities.shape[1:] != truth.shape:
        raise InputError("probabilities", f"a slice of shape {probabilities.shape}", f"(class, *{truth.shape})")
    chosen = prediction[None].astype(np.intp)
    if probabilities.shape[0] <= int(chosen.max()):
        raise InputError("probabilities", f"{probabilities.shape[0]} classes", "one for each label")
    confidence = np.take_along_axis(probabilities, chosen, axis=0).ravel().astype(np.float64)
    # Written so that NaN fails it too.
    if not (confidence.min() >= 0 and confidence.max() <= 1 + _ABOVE_ONE):
        raise InputError("probabilities", f"values from {confidence.min():g} to {confidence.max():g}", "0 to 1")
    place, right = confidence_bins(confidence, bins), (truth == prediction).ravel()
    weights = (None, confidence, right)
    return np.stack([np.bincount(place, one, minlength=bins) for one in weights], axis=1).astype(np.float64)


def mean_iu(confusion: Float64) -> Float64:
    """Mean of the classes' intersections over unions, from counts (..., truth, prediction): see `figures`.

    Examples
    --------
    >>> float(mean_iu(np.array([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])))
    0.775
    """
    return _mean_of_known(_iou(confusion))


def _iou(confusion: Float64) -> Float64:
    right = np.einsum("...ii->...i", confusion)
    return _ratio(right, confusion.sum(-1) + confusion.sum(-2) - right)


def _ratio(part: Float64, whole: Float64) -> Float64:
    """Ratio, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) != 0)


def _mean_of_known(values: Float64) -> Float64:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))
