"""Counts that compare a slice of labels with the reference, and the figures of merit computed from their sums."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.options import Metrics
from cathodeflow.statistics import confidence_bins

Float64 = NDArray[np.float64]
Labels = NDArray[np.integer]

# Regions are also connected by corners, so that a film one pixel thick is one region in any direction.
_CORNERS = np.ones((3, 3), dtype=bool)
# Probabilities of half precision may add up to a little more than 1.
_ABOVE_ONE = 2e-3


class Counts(NamedTuple):
    """Counts of slices; the leading axes `...` are slices or bootstrap samples.

    slices : (...), 1 for a slice, so that sums contain their number.
    confusion : (..., k, k), pixels by reference class and predicted class.
    boundary : (..., k, 4), for each class: pixels on the predicted boundary, those of them near the true boundary,
        pixels on the true boundary, those of them near the predicted boundary.
    specks : (..., 3), predicted specks, those of them without a correct pixel, specks in the reference.
    calibration : (..., bins, 3), for each confidence bin: number of pixels, sum of their confidences, number of correct
        pixels; all 0 without probabilities.
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
    options: Metrics,
) -> Counts:
    """Count one slice.

    Parameters
    ----------
    truth, prediction : (row, col) int
        Labels 0..n_classes - 1; `labels.UNLABELLED` for pixels of the truth that do not count.
    probabilities : (n_classes, row, col), optional
    n_classes : int
    options : Metrics
        `tolerance_px`, `speck_px` and `bins`.

    Raises
    ------
    InputError
        Shapes that differ, labels outside the classes, or values that are not probabilities.
    """
    for where, labels in (("truth", truth), ("prediction", prediction)):
        if labels.shape != truth.shape or labels.ndim != 2 or not labels.size:
            raise InputError(where, f"a slice of shape {labels.shape}", f"(row, col), as in the truth {truth.shape}")
        if not np.issubdtype(labels.dtype, np.integer):
            raise InputError(where, f"labels of type {labels.dtype}", "integers")
        valid = (labels >= 0) & (labels < n_classes)
        if not (valid | (labels == UNLABELLED) if where == "truth" else valid).all():
            unknown = np.unique(labels[~valid])
            raise InputError(where, f"the labels {', '.join(map(str, unknown[:5]))}", f"0 to {n_classes - 1}")
    return Counts(
        np.ones(()),
        confusion(truth, prediction, n_classes),
        boundary_counts(truth, prediction, n_classes, tolerance_px=options.tolerance_px),
        speck_counts(truth, prediction, n_classes, speck_px=options.speck_px),
        np.zeros((options.bins, 3))
        if probabilities is None
        else _calibration(truth, prediction, probabilities, options.bins),
    )


def confusion(truth: Labels, prediction: Labels, n_classes: int) -> Float64:
    """Count pixels by reference class (rows) and predicted class (columns): (k, k); unlabelled ones do not count.

    Examples
    --------
    >>> confusion(np.array([[0, 0, 1]]), np.array([[0, 1, 1]]), 2)
    array([[1., 1.],
           [0., 1.]])
    """
    known = truth != UNLABELLED
    pairs = truth[known].astype(np.intp) * n_classes + prediction[known].astype(np.intp)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.float64)


def boundary_counts(truth: Labels, prediction: Labels, n_classes: int, *, tolerance_px: float) -> Float64:
    """Count boundary pixels of each class, and those no further than `tolerance_px` from the other boundary [1]_.

    A pixel is on the boundary of its class if one of its four neighbours has another class; the edge of the slice is
    not a boundary. Pixels without a label, and those beside them, do not count.

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
    inner, filled = ndimage.binary_erosion(truth != UNLABELLED, border_value=1), _filled(truth, prediction)
    for number in range(n_classes):
        true, found = (_boundary(labels == number) for labels in (filled, prediction))
        near_true, near_found = (ndimage.binary_dilation(edge, disc) for edge in (true, found))
        true, found = true & inner, found & inner
        counts[number] = found.sum(), (found & near_true).sum(), true.sum(), (true & near_found).sum()
    return counts


def speck_counts(truth: Labels, prediction: Labels, n_classes: int, *, speck_px: int) -> Float64:
    """Count specks: regions of a class with at most `speck_px` pixels that do not touch the edge of the slice.

    Pixels are connected by sides and corners. A region at the edge may continue outside, so it is not counted, and
    neither is one without a labelled pixel.

    Returns
    -------
    (3,) float64
        As `Counts.specks`.
    """
    counts = np.zeros(3)
    known, filled = truth != UNLABELLED, _filled(truth, prediction)
    for number in range(n_classes):
        right = filled == number
        counts[:2] += _specks(prediction == number, right, known, speck_px)
        counts[2] += _specks(right, right, known, speck_px)[0]
    return counts


def figures_of_merit(counts: Counts, classes: Sequence[str]) -> dict[str, Float64]:
    """Compute the figures of merit of counts, each in the shape of the counts' leading axes.

    - `miu`, `fiu`: mean of the classes' intersection over union, and the same weighted by the classes' true pixels
      [1]_. For class c with t_c true pixels, n_cc of them predicted as c, and n_jc pixels of class j predicted as c, it
      is n_cc / (t_c + sum over j != c of n_jc). The MatPhase paper calls the mean mIU; it has the same formula, but
      describes n_jc in reverse, which would ignore false positives.
    - `f1_<class>`, `accuracy`: over pixels.
    - `boundary_f1`: mean over the classes of the harmonic mean of the fraction of the predicted boundary near the true
      one and the reverse [2]_.
    - `specks`: small regions per slice (`speck_counts`); `false_specks`: those of them without a correct pixel
      (artefacts); `true_specks`: small regions in the reference.
    - `ece`: expected calibration error [3]_.
    - `fraction_<class>`, `true_fraction_<class>`, `fraction_error_<class>`: phase fraction in the prediction, in the
      reference, and their difference.

    A class that is neither in the reference nor in the prediction is NaN and ignored in means.

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
    # 2 P R / (P + R) of the fractions P = near_true / edge_found and R = near_found / edge_true; 0 if one is missing.
    edges = _ratio(2 * near_true * near_found, near_true * edge_true + near_found * edge_found)
    edges = np.where((edge_found + edge_true > 0) & np.isnan(edges), 0.0, edges)
    result = {"miu": mean_iou(confusion), "fiu": _ratio((true * np.nan_to_num(iou)).sum(-1), pixels)}
    result |= {f"f1_{name}": f1[..., index] for index, name in enumerate(classes)}
    result |= {"accuracy": _ratio(right.sum(-1), pixels), "boundary_f1": _mean_of_known(edges)}
    for index, name in enumerate(("specks", "false_specks", "true_specks")):
        result[name] = _ratio(counts.specks[..., index], counts.slices)
    gaps = np.abs(calibration[..., 1] - calibration[..., 2]).sum(-1)
    result["ece"] = _ratio(gaps, calibration[..., 0].sum(-1))
    for kind, part in (("fraction", found), ("true_fraction", true), ("fraction_error", found - true)):
        result |= {f"{kind}_{name}": _ratio(part[..., index], pixels) for index, name in enumerate(classes)}
    return result


def _filled(truth: Labels, prediction: Labels) -> Labels:
    """Labels with the prediction where there is none, so that the limit of the labelled region is no boundary."""
    return np.where(truth == UNLABELLED, prediction, truth)


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return mask & ~ndimage.binary_erosion(mask, border_value=1)


def _specks(
    mask: NDArray[np.bool_], right: NDArray[np.bool_], known: NDArray[np.bool_], speck_px: int
) -> tuple[int, int]:
    """Numbers of specks in a mask, and of those without a correct pixel."""
    region, n = ndimage.label(mask, _CORNERS)
    small = np.bincount(region.ravel(), minlength=n + 1) <= speck_px
    for edge in (region[0], region[-1], region[:, 0], region[:, -1]):
        small[edge] = False
    small[0] = False
    small &= np.bincount(region[known], minlength=n + 1) > 0
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
    known = (truth != UNLABELLED).ravel()
    chosen_bin, right = confidence_bins(confidence[known], bins), (truth == prediction).ravel()[known]
    weights = (None, confidence[known], right)
    return np.stack([np.bincount(chosen_bin, values, minlength=bins) for values in weights], axis=1).astype(np.float64)


def mean_iou(confusion: Float64) -> Float64:
    """Mean intersection over union (mIoU) of counts (..., reference, prediction): see `figures_of_merit`.

    Examples
    --------
    >>> float(mean_iou(np.array([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])))
    0.775
    """
    return _mean_of_known(_iou(confusion))


def _iou(confusion: Float64) -> Float64:
    right = np.einsum("...ii->...i", confusion)
    return _ratio(right, confusion.sum(-1) + confusion.sum(-2) - right)


def _ratio(part: Float64, whole: Float64) -> Float64:
    """Ratio; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) != 0)


def _mean_of_known(values: Float64) -> Float64:
    """Mean over the last axis, ignoring NaN; NaN where all values are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))
