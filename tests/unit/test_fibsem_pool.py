"""Several volumes are trained on together."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.neighbours import neighbours_of
from cathodeflow.io.volumes import read_volume, write_volume

SHAPES = [(10, 16, 20), (12, 12, 24)]
NO_SMOOTHING = {"neighbours": 0, "gap": 1}


def stores(
    tmp_path: Path, *, dtypes: tuple[type, type] = (np.uint8, np.uint8), sparse: bool = False
) -> list[np.ndarray]:
    rng, made = np.random.default_rng(0), []
    for number, (shape, dtype) in enumerate(zip(SHAPES, dtypes, strict=True)):
        labels = rng.integers(0, 3, shape, np.uint8)
        if sparse:
            # A label in some pixels of every second slice, never in the first pixel.
            labels[1::2] = UNLABELLED
            labels[:, :2] = UNLABELLED
        grey = (labels.astype(int) % 4 * 20 + 40 * number + 30).astype(dtype)
        write_volume(tmp_path / f"s{number}.zarr", grey)
        write_volume(tmp_path / f"l{number}.zarr", labels, attributes={"classes": ["a", "b", "c"]})
        made += [grey, labels]
    return made


def augment(tmp_path: Path, n: int, **options: object) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    fibsem.augment(
        tmp_path / "s0.zarr", tmp_path / "l0.zarr", out=tmp_path / "i.zarr", labels_out=tmp_path / "t.zarr",
        more_slices=[tmp_path / f"s{k}.zarr" for k in range(1, n)],
        more_labels=[tmp_path / f"l{k}.zarr" for k in range(1, n)],
        pairs=tmp_path / "p.parquet", options=fibsem.Augment(**{**NO_SMOOTHING, **options}),
    )  # fmt: skip
    return (
        read_volume(tmp_path / "i.zarr").compute(), read_volume(tmp_path / "t.zarr").compute(),
        pd.read_parquet(tmp_path / "p.parquet"),
    )  # fmt: skip


def test_volumes_of_different_size_are_pooled(tmp_path: Path) -> None:
    made = stores(tmp_path)
    images, labels, pairs = augment(tmp_path, 2, copies=2)
    assert images.shape == labels.shape == (2 * 22, 16, 24)
    for row in pairs[pairs["copy"] == 0].index:
        volume, number = pairs.loc[row, ["volume", "volume_slice"]]
        (rows, cols), grey, truth = SHAPES[volume][1:], made[2 * volume], made[2 * volume + 1]
        np.testing.assert_array_equal(images[row, :rows, :cols], grey[number])
        np.testing.assert_array_equal(labels[row, :rows, :cols], truth[number])
        # Beyond a smaller slice: its reflection, and no label that would be learnt from.
        assert (labels[row, rows:] == UNLABELLED).all() and (labels[row, :, cols:] == UNLABELLED).all()
        if volume == 1:
            np.testing.assert_array_equal(images[row, 12:, :24], grey[number][:-5:-1])
    # Every volume is trained, validated and tested on.
    assert set(map(tuple, pairs[["volume", "role_grouped"]].drop_duplicates().to_numpy())) >= {
        (volume, role) for volume in (0, 1) for role in ("train", "validation", "test")
    }
    near = neighbours_of(pairs["slice"].to_numpy(), pairs["copy"].to_numpy(), 5)
    assert (pairs["volume"].to_numpy()[near] == pairs["volume"].to_numpy()[:, None]).all()


def test_slices_with_some_labels_anywhere_are_used(tmp_path: Path) -> None:
    made = stores(tmp_path, sparse=True)
    images, labels, pairs = augment(tmp_path, 1, copies=1, gap=0)
    # The slices between are neighbours of networks with context, never labelled or divided.
    known = pairs[pairs["role_grouped"] != "neighbour"]
    assert known["slice"].tolist() == [0, 2, 4, 6, 8] and pairs["slice"].tolist() == list(range(10))
    np.testing.assert_array_equal(labels, made[1])
    np.testing.assert_array_equal(images, made[0])
    assert (labels[pairs["role_grouped"] == "neighbour"] == UNLABELLED).all()


def test_volumes_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    stores(tmp_path, dtypes=(np.uint8, np.uint16))
    with pytest.raises(InputError, match=r"uint16.*normalize_slices"):
        augment(tmp_path, 2)
    images = augment(tmp_path, 2, normalize_slices=True, copies=1)[0]
    # Both volumes have the same mean and standard deviation, whatever their intensities.
    assert abs(images[0][:, :20].mean()) < 1e-5 and abs(images[-1][:12].mean()) < 1e-5
