"""Baselines: classifiers by features unrelated to the particles, with which the accuracy of a network is compared.

Each class is often imaged in a single session. Then brightness, contrast or focus identify the class as well as the
particles do, and a network may have learnt these. Every method gives a table with a row per test image: name and
p_<class>, higher for more likely classes; predictions of a network have the same columns and are evaluated in the same
way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.sem.intensity import bar_thumbnail, intensity_histogram
from cathodeflow.sem.options import Audit
from cathodeflow.sem.overlap import shrink
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.statistics import wilson

Floats = NDArray[np.floating]

#: Numeric and text columns of instrument settings.
NUMBERS = ("magnification", "voltage_kv", "pixel_nm", "brightness", "contrast", "focus")
WORDS = ("detector", "maker")
#: Minimum fraction of an image that training images show for it to count as seen.
SEEN = 0.05
# Digits of distances, so that rounding does not decide between equal ones.
_DECIMALS = 6


class ImageFeatures(NamedTuple):
    """Features of an image, without its information bar except for `bar`.

    histogram : (bins,) float64, intensity histogram.
    fine : (256,) float64, intensity histogram of single grey levels.
    bar : (bar_pixels, bar_pixels) float32, thumbnail of the information bar.
    small : (rows, cols) float32, the image, shrunk.
    """

    histogram: NDArray[np.float64]
    fine: NDArray[np.float64]
    bar: NDArray[np.float32]
    small: NDArray[np.float32]


def image_features(image: NDArray[Any], area: UsableArea, options: Audit, *, factor: int) -> ImageFeatures:
    """Compute the features of an image that are compared.

    Parameters
    ----------
    image : (rows, cols)
        As stored.
    area : UsableArea
        Part beside its information bar.
    options : Audit
    factor : int
        By which `small` is shrunk (`overlap.shrink`).
    """
    image = to_uint8(image, area=area)
    particles = area.of(image)
    return ImageFeatures(
        intensity_histogram(particles, options.bins),
        intensity_histogram(particles, 256),
        bar_thumbnail(area.bar(image), options.bar_pixels),
        shrink(particles, factor),
    )


def settings_features(table: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the instrument settings of images as numeric features.

    Numbers are normalised to mean 0 and standard deviation 1 over the training images; a missing one is 0, with a
    further feature that marks it. Texts are one-hot encoded. A column without any value is left out.

    Parameters
    ----------
    table : DataFrame
        Columns split and the known ones of `NUMBERS` and `WORDS`.

    Returns
    -------
    (rows, features) float64 or None
        None if no setting of any image is known.
    """
    train = (table["split"] == "train").to_numpy()
    features: list[NDArray[np.float64]] = []
    for name in NUMBERS:
        values = pd.to_numeric(table[name]).to_numpy(np.float64) if name in table else np.full(len(table), np.nan)
        known = np.isfinite(values)
        if not known.any():
            continue
        base = values[known & train] if (known & train).any() else values[known]
        features.append(np.where(known, (values - base.mean()) / (base.std() or 1.0), 0.0))
        features.append((~known).astype(np.float64))
    for name in WORDS:
        if name in table and table[name].notna().any():
            features += [(table[name] == word).to_numpy(np.float64) for word in sorted(set(table[name].dropna()))]
    return np.stack(features, axis=1) if features else None


def nearest_scores(features: ArrayLike, table: pd.DataFrame) -> pd.DataFrame:
    """Classify every test image by the nearest training image of each class.

    Parameters
    ----------
    features : (rows, ...)
        Features of the images, in the order of the table; compared by Euclidean distance.
    table : DataFrame
        Columns name, label, split.

    Returns
    -------
    DataFrame
        A row per test image: name and p_<class>, the softmax of the negative distances; the highest is the class of the
        nearest neighbour (of equally near ones the first).
    """
    flat = np.asarray(features, np.float64).reshape(len(table), -1)
    splits, labels = table["split"].to_numpy(), table["label"].to_numpy()
    test, classes = splits == "test", _classes(table)
    distance = np.empty((int(test.sum()), len(classes)))
    for k, label in enumerate(classes):
        known = flat[(splits == "train") & (labels == label)]
        distance[:, k] = [np.linalg.norm(known - image, axis=1).min(initial=np.inf) for image in flat[test]]
    near = np.exp(-np.round(distance - distance.min(axis=1, keepdims=True), _DECIMALS))
    return _scores(table, near / near.sum(axis=1, keepdims=True))


def trivial_scores(
    table: pd.DataFrame,
    histograms: ArrayLike,
    *,
    bars: ArrayLike | None = None,
    matched: ArrayLike | None = None,
) -> dict[str, pd.DataFrame]:
    """Classify every test image by features unrelated to the particles.

    Parameters
    ----------
    table : DataFrame
        Columns name, label, split, mean, deviation, and the known settings (`NUMBERS`, `WORDS`).
    histograms : (rows, bins)
        `intensity_histogram` of each image, in the order of the table; compared by their roots (Hellinger distance).
    bars : (rows, side, side), optional
        `bar_thumbnail` of each image; all 0 without information bars.
    matched : (rows, bins), optional
        `intensity_histogram` of each image after `match_histogram`.

    Returns
    -------
    dict
        By the name of the method, a row per test image (`nearest_scores`). Methods without input are absent.
    """
    train = table[table["split"] == "train"]
    frequencies = train["label"].value_counts(normalize=True).reindex(_classes(table), fill_value=0.0).to_numpy()
    moments = table[["mean", "deviation"]].to_numpy(np.float64)
    settings = settings_features(table)
    methods = {
        "majority class": _scores(table, np.tile(frequencies, (int((table["split"] == "test").sum()), 1))),
        "mean and deviation": nearest_scores(moments, table),
        "grey histogram": nearest_scores(np.sqrt(np.asarray(histograms)), table),
    }
    if settings is not None:
        methods["instrument settings"] = nearest_scores(settings, table)
    if bars is not None and np.any(bars):
        methods["information bar"] = nearest_scores(np.asarray(bars) / 255, table)
    if matched is not None:
        methods["grey histogram, matched"] = nearest_scores(np.sqrt(np.asarray(matched)), table)
    return methods


def accuracy_table(
    scores: Mapping[str, pd.DataFrame],
    table: pd.DataFrame,
    *,
    confidence: float,
    seen: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Compute the accuracy of each method: on all test images, within sessions, and on images seen in training or not.

    Parameters
    ----------
    scores : mapping
        By the name of the method, a table with the columns name and p_<class> and a row per test image; rows of other
        images are ignored (`trivial_scores`; predictions of a network per original).
    table : DataFrame
        Columns name, label, split, session (None: unknown), and field, the field of view of each image, without which
        each image is one.
    confidence : float
        Confidence level of the intervals.
    seen : DataFrame, optional
        Columns name and seen, of `overlap.shared_area`.

    Returns
    -------
    DataFrame
        A row per method and scope: method, scope, classes (number of possible predictions; the mean if it differs
        between sessions), n (images), accuracy, low, high (Wilson's interval [1]_ for the number of fields of view, as
        images that overlap are not independent), chance (accuracy of a random prediction). Scopes are

        - all: all test images, all classes are possible;
        - within sessions: test images of sessions with several classes, only the classes of the session are possible;
        - session <s>: its test images, all classes are possible;
        - session <s>, its classes: its test images, only the classes of the session are possible;
        - seen in training, not seen in training: whether training images show at least `SEEN` of the image.

    Raises
    ------
    InputError
        A method lacks a test image or a class: a line for each such method.

    References
    ----------
    .. [1] E. B. Wilson, J. Am. Stat. Assoc. 22, 209 (1927)
    """
    classes = _classes(table)
    tests = table[table["split"] == "test"].reset_index(drop=True)
    _require(scores, tests, classes)
    every = np.ones((len(tests), len(classes)), bool)
    own = _session_classes(table, tests, classes)
    several = own.sum(axis=1) > 1
    scopes: list[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]] = [("all", every[:, 0], every)]
    if several.any():
        scopes.append(("within sessions", several, own))
    for session in sorted(tests["session"].dropna().unique()):
        of = (tests["session"] == session).to_numpy()
        scopes.append((f"session {session}", of, every))
        if several[of].any():
            scopes.append((f"session {session}, its classes", of, own))
    if seen is not None:
        shown = (tests["name"].map(seen.set_index("name")["seen"]) >= SEEN).to_numpy()
        scopes += [("seen in training", shown, every), ("not seen in training", ~shown, every)]
    rows = []
    truth = tests["label"].to_numpy()
    fields = tests[["label", "field" if "field" in tests else "name"]]
    for method, table_of in scores.items():
        p = table_of.set_index("name").loc[tests["name"], [f"p_{label}" for label in classes]].to_numpy(np.float64)
        for scope, images, answers in scopes:
            if not images.any():
                continue
            best = np.where(answers, p, -np.inf)[images].argmax(axis=1)
            right = np.asarray(classes)[best] == truth[images]
            count = answers[images].sum(axis=1)
            independent = len(fields[images].drop_duplicates())
            low, high = wilson(int(right.sum()), len(right), confidence=confidence, independent=independent)
            rows.append((method, scope, count.mean(), len(right), right.mean(), low, high, (1 / count).mean()))
    return pd.DataFrame(rows, columns=["method", "scope", "classes", "n", "accuracy", "low", "high", "chance"])


def _classes(table: pd.DataFrame) -> list[str]:
    return sorted(table.loc[table["split"].isin(["train", "test"]), "label"].unique())


def _scores(table: pd.DataFrame, p: Floats) -> pd.DataFrame:
    names = table.loc[table["split"] == "test", "name"].reset_index(drop=True)
    return pd.concat([names, pd.DataFrame(p, columns=[f"p_{label}" for label in _classes(table)])], axis=1)


def _session_classes(table: pd.DataFrame, tests: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Whether each class occurs in the session of each test image, (tests, classes); never in an unknown session."""
    used = table[table["split"].isin(["train", "validation", "test"])]
    pairs = set(zip(used["session"], used["label"], strict=True))
    return np.array([[pd.notna(own) and (own, label) in pairs for label in classes] for own in tests["session"]], bool)


def _require(scores: Mapping[str, pd.DataFrame], tests: pd.DataFrame, classes: Sequence[str]) -> None:
    errors: list[InputError] = []
    for method, table in scores.items():
        columns = [f"p_{label}" for label in classes if f"p_{label}" not in table]
        if columns:
            errors.append(InputError(method, f"no column {', '.join(columns)}", "one for each class"))
        absent = sorted(set(tests["name"]) - set(table["name"]))
        if absent or table["name"].duplicated().any():
            found = f"no row for {absent[0]}" if absent else "an image in several rows"
            errors.append(InputError(method, found, f"a row for each of the {len(tests)} test images"))
    if errors:
        raise InputErrors.of(errors)
