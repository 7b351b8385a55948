"""Slices and labels as people have them: which labels belong to which slice, classes, voxel size, blank slices."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.options import Section
from cathodeflow.fibsem.pairing import match_labels
from cathodeflow.fibsem.rare_classes import missing_classes
from cathodeflow.fibsem.reading import Reading
from cathodeflow.fibsem.slice_counts import confusion, count_slice, figures_of_merit
from cathodeflow.fibsem.slice_options import Volume
from cathodeflow.fibsem.voxels import used_voxel
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.volumes import read_volume, read_volume_info

N, ROWS, COLS = 9, 16, 20
LABELS = np.random.default_rng(1).integers(0, 3, (N, ROWS, COLS), dtype=np.uint8)
# The number of each slice is in its pixels.
GREY = (20 * LABELS + np.arange(N, dtype=np.uint8)[:, None, None] + 60).astype(np.uint8)


def write(
    folder: Path, images: np.ndarray, pattern: str = "slice_{}", leave: tuple[int, ...] = (), first: int = 1
) -> str:
    folder.mkdir()
    for number, image in enumerate(images, first):
        if number not in leave:
            tifffile.imwrite(folder / f"{pattern.format(number)}.tif", image)
    return str(folder)


def store(
    tmp_path: Path, images: str, labels: str, **options: object
) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    metrics = fibsem.volume(
        images, out=tmp_path / "s.zarr", labels=labels, labels_out=tmp_path / "l.zarr", record=tmp_path / "r.json",
        options=Volume(**options),
    )  # fmt: skip
    assert json.loads((tmp_path / "r.json").read_text())["metrics"] == dict(metrics)
    return read_volume(tmp_path / "s.zarr").compute(), read_volume(tmp_path / "l.zarr").compute(), dict(metrics)


@pytest.mark.parametrize("pattern", ["slice_{}", "FIB2_{:04d}_labels", "2024-11-02_seg3_{}"])
def test_labels_belong_to_the_slice_with_their_number(
    tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    images = write(tmp_path / "images", GREY, leave=(3,))
    labels = write(tmp_path / "labels", LABELS, pattern, leave=(6,))
    with caplog.at_level(logging.WARNING, "cathodeflow"):
        grey, classes, metrics = store(tmp_path, images, labels)
    kept = [number for number in range(N) if number != 2]
    np.testing.assert_array_equal(grey, GREY[kept])
    for position, number in enumerate(kept):
        expected = np.full((ROWS, COLS), UNLABELLED) if number == 5 else LABELS[number]
        np.testing.assert_array_equal(classes[position], expected)
    assert metrics["slices_without_labels"] == "slice_6" and metrics["labels_without_slices"] == pattern.format(3)
    assert "slice_6" in caplog.text and pattern.format(3) in caplog.text and metrics["labelled_slices"] == 7


@pytest.mark.parametrize(
    ("names", "labels", "found"),
    [
        ([f"s{k}" for k in range(9)], [f"l{k}" for k in range(1, 10)], "numbers 1-9, slices with 0-8"),
        ([f"s{k}" for k in range(1, 10)], ["l0", "l4", "l8"], "numbers 0, 4, 8"),
        (["a", "b"], ["c", "d"], "'c', 'd'"),
        ([""] * 4, [f"l{k}" for k in (1, 2, 4, 5)], "gaps (1-2, 4-5)"),
        ([""] * 4, [""] * 3, "3 label images for 4 slices"),
        (["a_1", "b_1", "c_2"], ["x1", "x2", "x3"], "slices with the same number: a_1, b_1"),
    ],
)
def test_labels_that_fit_no_slice_are_refused(names: list[str], labels: list[str], found: str) -> None:
    with pytest.raises(InputError) as caught:
        match_labels(names, labels, "labels", by="name")
    assert found in caught.value.found
    if len(names) == len(labels):
        assert match_labels(names, labels, "labels", by="order").own.tolist() == list(range(len(names)))


def test_labels_are_found_by_the_name_of_their_slice() -> None:
    assert match_labels(["pore", "pore_b"], ["pore_b_mask", "pore_mask"], "l", by="name").own.tolist() == [1, 0]
    assert match_labels([""] * 3, ["l4", "l5", "l6"], "l", by="name").own.tolist() == [0, 1, 2]


def test_pixels_without_a_label_are_ignored_by_option(tmp_path: Path) -> None:
    scribbles = np.where(np.random.default_rng(2).random(LABELS.shape) < 0.3, LABELS, 200).astype(np.uint8)
    images, labels = write(tmp_path / "images", GREY), write(tmp_path / "labels", scribbles)
    with pytest.raises(InputError) as caught:
        store(tmp_path, images, labels)
    # One line for all images, with a hint.
    assert len(str(caught.value).splitlines()) == 1 and "200" in caught.value.found
    assert "`ignore`" in caught.value.expected and "and 5 more" in caught.value.where
    _, classes, metrics = store(tmp_path, images, labels, ignore=200)
    np.testing.assert_array_equal(classes, np.where(scribbles == 200, UNLABELLED, LABELS))
    assert metrics["fraction_pore"] == pytest.approx((scribbles == 0).sum() / (scribbles < 3).sum())


def test_all_unknown_values_are_one_line(tmp_path: Path) -> None:
    values = np.array([0, 127, 255], np.uint8)[LABELS]
    values[4, 0, 0] = 9
    images, labels = write(tmp_path / "images", GREY), write(tmp_path / "labels", values)
    with pytest.raises(InputError) as caught:
        store(tmp_path, images, labels)
    assert str(caught.value).count("\n") == 0 and "9, 127, 255" in caught.value.found
    assert "`label_values`" in caught.value.expected


@pytest.mark.parametrize("kind", ["rgb", "palette", "stack"])
def test_coloured_labels_need_the_colours_of_the_classes(tmp_path: Path, kind: str) -> None:
    colours = np.array([[80, 80, 80], [255, 0, 0], [0, 255, 0]], np.uint8)
    images, folder = write(tmp_path / "images", GREY), tmp_path / "labels"
    folder.mkdir()
    for number, image in enumerate(LABELS, 1):
        if kind == "rgb":
            Image.fromarray(colours[image]).save(folder / f"{number}.png")
        elif kind == "palette":
            # The values are in another order than the classes.
            made = Image.fromarray((2 - image).astype(np.uint8)).convert("P")
            made.putdata((2 - image).ravel().tolist())
            made.putpalette([*colours[::-1].ravel().tolist(), *[0] * 759])
            made.save(folder / f"{number}.png")
    if kind == "stack":
        tifffile.imwrite(folder / "all.tif", colours[LABELS], photometric="rgb")
    if kind != "palette":
        with pytest.raises(InputError) as caught:
            store(tmp_path, images, str(folder))
        assert "#505050" in caught.value.found and "`label_colors`" in caught.value.expected
    classes = store(tmp_path, images, str(folder), label_colors=("505050", "#ff0000", "00ff00"))[1]
    np.testing.assert_array_equal(classes, LABELS)
    classes = store(
        tmp_path, images, str(folder), classes=("a", "b"), label_colors=("505050", "00ff00"), ignore_color="ff0000"
    )[1]
    np.testing.assert_array_equal(classes, np.array([0, UNLABELLED, 1])[LABELS])


@pytest.mark.parametrize("align", [False, True])
def test_blank_slices_are_named_and_left_out_by_option(tmp_path: Path, align: bool) -> None:
    smooth = np.random.default_rng(3).normal(size=(ROWS + 40, COLS + 40))
    grey = np.stack([smooth[20 : 20 + ROWS, 20 : 20 + COLS]] * N).astype(np.float32) + np.arange(N)[:, None, None]
    grey[2, 1, 1], grey[6] = np.nan, 7.0
    images, labels = write(tmp_path / "images", grey), write(tmp_path / "labels", LABELS)
    with pytest.raises(InputError) as caught:
        store(tmp_path, images, labels)
    assert "slice_3, slice_7" in caught.value.where and len(str(caught.value).splitlines()) == 1
    found, classes, metrics = store(tmp_path, images, labels, blank_slices="leave_out", align=align)
    kept = [0, 1, 3, 4, 5, 7, 8]
    assert metrics["slices_left_out"] == "slice_3, slice_7" and metrics["slices"] == metrics["labelled_slices"] == 7
    if not align:
        np.testing.assert_array_equal(found, grey[kept].astype(np.float32))
        np.testing.assert_array_equal(classes, LABELS[kept])


def test_the_voxel_size_of_the_file_is_used_and_that_of_the_options_wins(tmp_path: Path) -> None:
    path = tmp_path / "v.tif"
    tifffile.imwrite(
        path, GREY, imagej=True, metadata={"axes": "ZYX", "spacing": 0.2, "unit": "um"}, resolution=(20, 20)
    )
    metrics = store(tmp_path, str(path), write(tmp_path / "labels", LABELS))[2]
    info = read_volume_info(tmp_path / "l.zarr")
    assert info.scale == pytest.approx((0.2, 0.05, 0.05)) and info.unit == "micrometer"
    assert metrics["voxel_size_from"] == "ImageJ metadata" and metrics["voxel_unit"] == "micrometer"
    metrics = store(tmp_path, str(path), str(tmp_path / "labels"), pixel_nm=40.0)[2]
    info = read_volume_info(tmp_path / "s.zarr")
    assert (info.scale, info.unit) == ((40.0, 40.0, 40.0), "nanometer") and metrics["voxel_size_from"] == "options"
    # A distance of slices alone changes only that.
    store(tmp_path, str(path), str(tmp_path / "labels"), slice_nm=300.0)
    assert read_volume_info(tmp_path / "s.zarr").scale == pytest.approx((0.3, 0.05, 0.05))


def test_units_of_voxel_sizes() -> None:
    bare = VoxelSize((0.2, 0.05, 0.05), None, "header", "mm")
    assert used_voxel(bare, Reading(), "v").metadata["unit"] == "millimeter"
    assert "convention" in used_voxel(bare, Reading(), "v").record["voxel_size_from"]
    assert used_voxel(bare, Reading(voxel_unit="um"), "v").metadata["unit"] == "micrometer"
    unknown = used_voxel(bare._replace(convention=None), Reading(), "v")
    assert unknown.metadata["unit"] is None and "without a unit" in unknown.warnings[0]
    flat = used_voxel(VoxelSize((None, 5.0, 5.0), "nanometer", "tags"), Reading(), "v")
    assert flat.metadata["scale"] == (5.0, 5.0, 5.0) and "slice_nm" in flat.warnings[0]
    other = used_voxel(VoxelSize((5.0, 5.0, 5.0), "nanometer", "tags"), Reading(pixel_nm=10), "v")
    assert "5 x 5 x 5 nm" in other.warnings[0]
    with pytest.raises(InputError, match="pixel_nm"):
        used_voxel(None, Reading(slice_nm=10), "v")
    assert used_voxel(None, Reading(), "v").metadata == {}


def test_check_reads_the_headers_and_matches_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "images", GREY)
    write(tmp_path / "labels", LABELS, first=0)
    (tmp_path / "v.nhdr").write_bytes(b"NRRD0004\ntype: float\n")
    tifffile.imwrite(tmp_path / "two.tif", np.stack([GREY, GREY], 1), imagej=True, metadata={"axes": "ZCYX"})
    (tmp_path / "s.tsv").write_text(
        "sample\trole\timages\tlabels\n"
        f"shifted\ttrain\t{tmp_path}/images\t{tmp_path}/labels\nbroken\tpredict\t{tmp_path}/v.nhdr\t\n"
        f"channels\tpredict\t{tmp_path}/two.tif\t\ngood\tpredict\t{tmp_path}/images\t\n"
    )
    section = Section(samples=str(tmp_path / "s.tsv"))
    from cathodeflow.samples import read_samples

    with pytest.raises(InputError) as caught:
        section.read_headers(read_samples(section.samples, section.sample_class))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "shifted" in lines[0] and "0-8" in lines[0] and "v.nhdr" in lines[1] and "2 channels" in lines[2]


def test_a_class_that_is_hardly_predicted_is_reported() -> None:
    usual = {"pore": 0.4, "active": 0.575, "binder": 0.025}
    assert missing_classes({"pore": 0.4, "active": 0.59, "binder": 0.01}, usual) == []
    (line,) = missing_classes({"pore": 0.4, "active": 0.6, "binder": 2e-5}, usual)
    assert "binder" in line and "0.002 %" in line and "2.5 %" in line


def test_unlabelled_pixels_do_not_count_in_figures_of_merit() -> None:
    rng = np.random.default_rng(5)
    truth = np.kron(rng.integers(0, 3, (6, 6)), np.ones((8, 8), int)).astype(np.uint8)
    prediction = np.where(rng.random(truth.shape) < 0.1, (truth + 1) % 3, truth).astype(np.uint8)
    likely = np.moveaxis(np.eye(3)[prediction] * 0.7 + 0.1, -1, 0)
    options = fibsem.Metrics()
    hidden = truth.copy()
    hidden[:, 24:] = UNLABELLED
    half = count_slice(truth[:, :24], prediction[:, :24], likely[..., :24], n_classes=3, options=options)
    masked = count_slice(hidden, prediction, likely, n_classes=3, options=options)
    np.testing.assert_array_equal(masked.confusion, half.confusion)
    np.testing.assert_array_equal(masked.calibration, half.calibration)
    assert confusion(hidden, prediction, 3).sum() == 24 * 48
    # What is predicted where there is no label changes no figure, but for edges within the tolerance of the limit.
    other = prediction.copy()
    other[:, 28:] = rng.integers(0, 3, (48, 20))
    changed = count_slice(hidden, other, likely, n_classes=3, options=options)
    for name, value in figures_of_merit(masked, ("a", "b", "c")).items():
        assert figures_of_merit(changed, ("a", "b", "c"))[name] == pytest.approx(value, nan_ok=True), name
    # The limit of the labelled region is no boundary.
    perfect = count_slice(np.where(hidden == UNLABELLED, hidden, 1), np.ones_like(truth), n_classes=3, options=options)
    assert perfect.boundary.sum() == 0
