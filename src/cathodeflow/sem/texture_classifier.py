"""Second opinion beside a network: a linear classifier of the texture of crops, by which predictions are judged."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from cathodeflow.sem.calibration import fit_temperature
from cathodeflow.sem.texture import texture_statistics

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Inverse strength of the penalty of the weights, chosen on half of the classes of measured micrographs.
_INVERSE_PENALTY = 10.0
_ITERATIONS = 300
# Statistics are kept within this many standard deviations, so that no single one decides about unlike images.
_FURTHEST = 8.0
_LEAST_DEVIATION = 1e-4


class TextureClassifier(NamedTuple):
    """Linear classifier of `texture_statistics`, with calibrated probabilities.

    mean, scale : (f,) float32, by which the statistics are standardized.
    weights : (f, k) float32, and bias : (k,) float32, of the classes.
    """

    mean: Float32
    scale: Float32
    weights: Float32
    bias: Float32

    def probabilities(self, statistics: ArrayLike) -> Float64:
        """Compute probabilities (n, k) of the classes of crops from their texture (n, f)."""
        rows = _standardized(np.asarray(statistics, np.float64), self.mean, self.scale)
        found: Float64 = softmax(rows @ self.weights + self.bias, axis=1)
        return found

    def of_crops(self, crops: NDArray[np.uint8]) -> Float64:
        """Compute probabilities (n, k) of the classes of crops (n, side, side)."""
        return self.probabilities(texture_statistics(crops))


def fit_texture(
    statistics: ArrayLike, labels: ArrayLike, validation: ArrayLike, validation_labels: ArrayLike
) -> TextureClassifier:
    """Fit the classifier by a logistic regression in which all classes have the same weight, and calibrate it.

    Parameters
    ----------
    statistics : (n, f)
        `texture_statistics` of training crops, as they are and as other sessions of the microscope might image them.
    labels : (n,) int
        Class of each crop, 0..k-1, all of which occur.
    validation, validation_labels : (m, f), (m,)
        Those of validation crops, for the temperature.
    """
    from sklearn.linear_model import LogisticRegression  # only where a network is trained

    values, classes = np.asarray(statistics, np.float64), np.asarray(labels)
    mean, scale = values.mean(0).astype(np.float32), values.std(0).astype(np.float32)
    # What is the same in all training images says nothing about other ones.
    scale = np.where(scale > _LEAST_DEVIATION, scale, np.inf).astype(np.float32)
    layer = LogisticRegression(C=_INVERSE_PENALTY, class_weight="balanced", max_iter=_ITERATIONS)
    layer.fit(_standardized(values, mean, scale), classes)
    weights, bias = layer.coef_.T, layer.intercept_
    # For two classes there is the difference alone.
    if weights.shape[1] == 1:
        weights, bias = np.hstack([-weights / 2, weights / 2]), np.array([-bias[0] / 2, bias[0] / 2])
    logits = _standardized(np.asarray(validation, np.float64), mean, scale) @ weights + bias
    temperature = fit_temperature(logits, validation_labels)
    return TextureClassifier(
        mean, scale, (weights / temperature).astype(np.float32), (bias / temperature).astype(np.float32)
    )


def _standardized(values: Float64, mean: Float32, scale: Float32) -> Float64:
    rows: Float64 = np.clip((values - mean) / scale, -_FURTHEST, _FURTHEST)
    return rows
