"""How far features get on a split that are not of the particles: what an accuracy has to be read against.

Classes are often imaged in one sitting each. Then brightness, contrast or the focus tell the class as well as the
particles do, and a network may have learnt these. Every method here gives a table with a row per test image: name and
p_<class>, the higher the likelier; a network's predictions have the same columns and are counted the same way.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.statistics import wilson

Floats = NDArray[np.floating]

#: Columns of settings that are numbers, and those that are words.
NUMBERS = ("magnification", "voltage_kv", "pixel_nm", "brightness", "contrast", "focus")
WORDS = ("detector", "maker")
#: Least share of an image that training images show for it to count as seen.
SEEN = 0.05
# Distances are told apart from here on, so that rounding does not decide between equal ones.
_DECIMALS = 6


def settings_features(table: pd.DataFrame) -> NDArray[np.float64] | None:
    """Return the instrument settings of images as numbers that can be compared.

    Numbers have mean 0 and deviation 1 over the training images; where one is missing it is 0, and a further feature
    says so. Words are a feature each. A column that is missing throughout is left out.

    Parameters
    ----------
    table : DataFrame
        Columns split and those of `NUMBERS` and `WORDS` that are known.

    Returns
    -------
    (rows, features) float64 or None
        None where no setting of any image is known.
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
    """Tell the class of every test image by the nearest training image of each class.

    Parameters
    ----------
    features : (rows, ...)
        Of the images, in the order of the table; compared by the root of the sum of squared differences.
    table : DataFrame
        Columns name, label, split.

    Returns
    -------
    DataFrame
        A row per test image: name and p_<class>, the softmax of minus the distances; the highest is the nearest
        neighbour's class (of equally near ones the first).
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
    """Tell the class of every test image by features that are not of the particles.

    Parameters
    ----------
    table : DataFrame
        Columns name, label, split, mean, deviation, and the settings (`NUMBERS`, `WORDS`) that are known.
    histograms : (rows, bins)
        `grey_histogram` of each image, in the order of the table; compared by their roots (Hellinger's distance).
    bars : (rows, side, side), optional
        `bar_thumbnail` of each image.
    matched : (rows, bins), optional
        `grey_histogram` of each image after `match_histogram`.

    Returns
    -------
    dict
        By the name of the method, a row per test image (`nearest_scores`). Methods whose input is not known are absent.
    """
    train = table[table["split"] == "train"]
    shares = train["label"].value_counts(normalize=True).reindex(_classes(table), fill_value=0.0).to_numpy()
    grey = table[["mean", "deviation"]].to_numpy(np.float64)
    settings = settings_features(table)
    methods = {
        "majority class": _scores(table, np.tile(shares, (int((table["split"] == "test").sum()), 1))),
        "mean and deviation": nearest_scores(grey, table),
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
    seen: pd.DataFrame | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Count how many test images each method tells right: all, within sessions, and by whether training shows them.

    Parameters
    ----------
    scores : mapping
        By the name of the method, a table with the columns name and p_<class> and a row per test image, or more rows,
        of which those of other images do not count (`trivial_scores`; predictions of a network per original).
    table : DataFrame
        Columns name, label, split, session (None: unknown).
    seen : DataFrame, optional
        Columns name and seen, as `overlap.shared_area` gives them.
    confidence : float
        Level of the intervals.

    Returns
    -------
    DataFrame
        A row per method and scope: method, scope, classes (how many an answer may be; their mean where sessions
        differ), n (images), accuracy, low, high (Wilson's interval [1]_, which takes images for independent), chance
        (of an answer by lot). Scopes are

        - all: every test image, every class an answer;
        - within sessions: as far as a session has several classes, only these are answers to its images;
        - session <s>: its test images, every class an answer;
        - session <s>, its classes: its test images, the classes of that session's images alone are answers;
        - seen in training, not seen in training: by whether at least `SEEN` of the image shows in training images.

    Raises
    ------
    InputError
        When a method lacks a test image, or a class; all methods at fault at once.

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
    for method, table_of in scores.items():
        p = table_of.set_index("name").loc[tests["name"], [f"p_{label}" for label in classes]].to_numpy(np.float64)
        for scope, images, answers in scopes:
            if not images.any():
                continue
            best = np.where(answers, p, -np.inf)[images].argmax(axis=1)
            right = np.asarray(classes)[best] == truth[images]
            count = answers[images].sum(axis=1)
            low, high = wilson(int(right.sum()), len(right), confidence=confidence)
            rows.append((method, scope, count.mean(), len(right), right.mean(), low, high, (1 / count).mean()))
    return pd.DataFrame(rows, columns=["method", "scope", "classes", "n", "accuracy", "low", "high", "chance"])


def _classes(table: pd.DataFrame) -> list[str]:
    return sorted(table.loc[table["split"].isin(["train", "test"]), "label"].unique())


def _scores(table: pd.DataFrame, p: Floats) -> pd.DataFrame:
    names = table.loc[table["split"] == "test", "name"].reset_index(drop=True)
    return pd.concat([names, pd.DataFrame(p, columns=[f"p_{label}" for label in _classes(table)])], axis=1)


def _session_classes(table: pd.DataFrame, tests: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.bool_]:
    """Classes of the session of each test image, (tests, classes); those of an unknown session are none."""
    used = table[table["split"].isin(["train", "validation", "test"])]
    pairs = set(zip(used["session"], used["label"], strict=True))
    return np.array([[pd.notna(one) and (one, label) in pairs for label in classes] for one in tests["session"]], bool)


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
