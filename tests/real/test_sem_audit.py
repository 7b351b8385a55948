"""What a split of the measured micrographs lets through, and what features that are not of the particles make of it."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from cathodeflow.io.instrument_settings import parse_sidecar
from cathodeflow.io.micrographs import read_micrograph, sidecar_text
from cathodeflow.sem.baselines import (
    accuracy_table,
    trivial_scores,
)
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.intensity import bar_thumbnail, intensity_histogram, match_histogram, reference_quantiles
from cathodeflow.sem.overlap import MIN_SCORE, find_overlap, shared_area, shrink
from cathodeflow.sem.splits import split_originals

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "sem_ncm"
BAR_ROWS = 64

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.fixture(scope="module")
def images():
    """Table of all images, with what the audit needs of each: thumbnail, histogram and bar."""
    rows = []
    for path in sorted(DATA.glob("*/*.jpg")):
        image = read_micrograph(path)
        grey = image[: -BAR_ROWS - 1]
        rows.append(
            {
                "name": f"{path.parent.name}/{path.name}",
                "label": path.parent.name,
                "time": pd.NaT,
                **parse_sidecar(sidecar_text(path) or ""),
                "mean": grey.mean() / 255,
                "deviation": grey.std() / 255,
                "thumbnail": np.rint(shrink(grey, 4)).astype(np.uint8),
                "histogram": intensity_histogram(grey, 32),
                "bar": bar_thumbnail(image[-BAR_ROWS:], 64),
            }
        )
    return pd.DataFrame(rows).assign(session=None, duplicate_of=None)


@pytest.fixture(scope="module")
def splits(images):
    """Split and shared area, by the kind of split."""
    tables = {by: split_originals(images, Split(by=by, seed=1)) for by in ("time-block", "image")}
    tables["gap"] = split_originals(images, Split(by="time-block", gap=3, seed=1))
    return {by: (table, shared_area(list(table["thumbnail"]), table)) for by, table in tables.items()}


def test_images_of_different_classes_never_overlap(images):
    random = np.random.default_rng(0)
    pairs = random.integers(0, len(images), (300, 2))
    labels, thumbnails = images["label"].to_numpy(), images["thumbnail"].to_numpy()
    scores = [find_overlap(thumbnails[a], thumbnails[b]).score for a, b in pairs if labels[a] != labels[b]]
    assert len(scores) > 200 and max(scores) < MIN_SCORE - 0.15


def test_images_at_random_show_what_training_shows_and_blocks_of_time_less_and_least_with_gaps(splits):
    _, at_random = splits["image"]
    assert at_random["seen"].mean() > 0.9
    table, blocks = splits["time-block"]
    # The stage moves so little that images right after the training's last ones still show much of it.
    _, apart = splits["gap"]
    assert blocks["seen"].mean() < at_random["seen"].mean() - 0.3 and apart["seen"].mean() < blocks["seen"].mean() - 0.2
    # What is reported lies as it says: the two parts show the same grey, but for the pixel that a shift may be wrong by.
    thumbnails = table.set_index("name")["thumbnail"]
    for row in blocks[blocks["shared"] > 0].sample(10, random_state=0).itertuples():
        a, b = (gaussian_filter(thumbnails[name].astype(float), 1) for name in (row.name, row.shared_with))
        found = find_overlap(thumbnails[row.name], thumbnails[row.shared_with])
        shift_row, shift_col = int(found.shift_row), int(found.shift_col)
        on_a = tuple(slice(max(0, by), None if by >= 0 else by) for by in (shift_row, shift_col))
        on_b = tuple(slice(max(0, -by), None if by <= 0 else -by) for by in (shift_row, shift_col))
        assert a[on_a].size / a.size == pytest.approx(row.shared)
        assert np.corrcoef(a[on_a].ravel(), b[on_b].ravel())[0, 1] > 0.5


def test_the_microscope_tells_the_class_until_histograms_are_matched(splits):
    table, seen = splits["time-block"]
    quantiles = reference_quantiles([intensity_histogram(image, 256) for image in table["thumbnail"]])
    matched = [intensity_histogram(match_histogram(image, quantiles), 32) for image in table["thumbnail"]]
    scores = trivial_scores(
        table, np.stack(table["histogram"].to_list()), bars=np.stack(table["bar"].to_list()), matched=np.stack(matched)
    )
    result = accuracy_table(scores, table, confidence=0.95, seen=seen).set_index(["method", "scope"])
    accuracy = result["accuracy"]
    assert accuracy["instrument settings", "all"] > 0.98
    assert accuracy["grey histogram", "all"] > 0.65
    assert accuracy["information bar", "all"] > 0.3
    assert result.loc[("grey histogram, matched", "all"), "low"] < 1 / 12
    assert accuracy["grey histogram, matched", "all"] < 0.2
    # A good part of it is that the test shows particles of the training.
    assert accuracy["grey histogram", "seen in training"] > accuracy["grey histogram", "not seen in training"] + 0.2
    assert result.xs("all", level="scope")["n"].eq(85).all()
