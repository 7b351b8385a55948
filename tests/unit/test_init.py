"""`cathodeflow init`: what it recognises in small folders of each technique, and that its configuration is accepted."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from click.testing import CliRunner
from PIL import Image

from cathodeflow.checking import check_config
from cathodeflow.cli import cli
from cathodeflow.config import load, samples
from cathodeflow.errors import InputError
from cathodeflow.init.files import as_source, look
from cathodeflow.init.writing import initialise

SPEC = """\
#F example.spec
#E 1
#O0 Theta  Chi  Phi  Delta  Gamma  Energy  camdist

#S {number}  ascan  Theta 0 1  {last} 1
#P0 0.1 90 0 30 10 9 500
#N 2
#L Theta  Detector
{points}
"""


def tiffs(folder: Path, number: int, shape: tuple[int, int], dtype: str, name: str = "f_{:03d}.tif") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for index in range(number):
        tifffile.imwrite(folder / name.format(index), rng.integers(0, 100, shape).astype(dtype))


def init(raw: Path, technique: str | None = None) -> tuple[dict[str, Any], dict[str, list[Any]], str]:
    """Return the configuration, the rows of its sheets, and the lines that were printed."""
    out = raw.parent / "project"
    written = initialise(str(raw), str(out), technique)
    config = yaml.safe_load(Path(written.config).read_text())
    rows = {name: list(sheet.values()) for name, sheet in samples(load(written.config), checked=False).items()}
    return config, rows, "\n".join(written.lines)


def test_scans_of_a_detector_get_the_nearest_corrections_and_geometry(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    tiffs(raw / "pristine", 4, (30, 40), "uint16")
    tiffs(raw / "charged", 3, (30, 40), "uint16")
    tiffs(raw / "dark", 2, (30, 40), "uint16")
    tiffs(raw / "charged", 1, (30, 40), "uint8", "bad_mask.tif")
    (raw / "d.poni").write_text(
        'poni_version: 2\nDetector: Detector\nDetector_config: {"pixel1": 1e-4, "pixel2": 1e-4}\n'
        "Distance: 0.2\nPoni1: 0.001\nPoni2: 0.001\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
    )
    (raw / "Thumbs.db").write_bytes(b"x")
    config, rows, text = init(raw)
    charged, pristine = rows["bragg"]
    assert list(config) == ["seed", "bragg"]
    assert (charged.sample, charged.role, charged.frames) == ("charged", "train", f"{raw}/charged/f_*.tif")
    assert (pristine.role, pristine.frames) == ("measure", f"{raw}/pristine")
    assert charged.dark == pristine.dark == f"{raw}/dark"
    assert charged.mask == f"{raw}/charged/bad_mask.tif" and pristine.mask is None
    assert charged.geometry == pristine.geometry == f"{raw}/d.poni"
    assert "scan pristine: 4 images in 4 files, 30 x 40 px, uint16, TIFF" in text
    assert "not in the files: the state of charge of each scan: column state_of_charge" in text
    check_config(str(tmp_path / "project" / "config.yaml"))


def test_a_rocking_scan_gets_the_scan_of_the_spec_file_with_as_many_points(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    tiffs(raw / "cell_S0054", 21, (16, 16), "int32")
    tiffs(raw, 1, (32, 32), "int32", "dark.tif")
    tiffs(raw, 1, (16, 16), "float32", "whitefield.tif")
    blocks = [
        SPEC.format(number=n, last=k - 1, points="\n".join(f"{i / 100} 5" for i in range(k)))
        for n, k in ((7, 21), (54, 21))
    ]
    (raw / "cell.spec").write_text("\n".join(blocks))
    config, rows, text = init(raw)
    (scan,) = rows["bcdi"]
    assert (scan.role, scan.frames, scan.scan) == ("phase", f"{raw}/cell_S0054", 54)
    assert (scan.dark, scan.whitefield, scan.spec) == (f"{raw}/dark.tif", f"{raw}/whitefield.tif", f"{raw}/cell.spec")
    assert config["bcdi"] == {"samples": str(tmp_path / "project" / "bcdi.tsv")}
    assert "scan 54: ascan  Theta 0 1  20 1" in text and "9 keV, detector at 0.5 m" in text
    # The dark frame is of the whole detector, and nothing says which part the frames show.
    with pytest.raises(InputError) as caught:
        check_config(str(tmp_path / "project" / "config.yaml"))
    assert str(caught.value).endswith(
        f"scan 'cell_S0054': dark: {raw}/dark.tif: found 32 x 32 pixels, expected 16 x 16 pixels, the size of the frames, "
        "or bcdi.prepare.region of the detector"
    )


def test_class_folders_and_an_instrument_make_a_labelled_data_set(tmp_path: Path) -> None:
    raw = tmp_path / "cathodes"
    for name in ("622", "622_cycled"):
        (raw / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((20, 30), number, np.uint8)).save(raw / name / f"a{number}.jpg")
    _, rows, text = init(raw)
    assert [(one.sample, one.role, one.images) for one in rows["sem"]] == [("cathodes", "train", str(raw))]
    assert "classes 622 (3), 622_cycled (3)" in text and "magnification and pixel size of cathodes" in text
    check_config(str(tmp_path / "project" / "config.yaml"))


def test_images_without_classes_say_which_line_to_fill_in(tmp_path: Path) -> None:
    raw = tmp_path / "new"
    raw.mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(raw / "a.jpg")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(raw / "b.jpg")
    run = CliRunner().invoke(cli, ["init", str(raw), "--out", str(tmp_path / "p")])
    assert run.exit_code == 0, run.output
    assert f"to fill in: {tmp_path}/p/sem.tsv: found no data set to train a network on" in run.output
    assert "or sem.predict.model" in run.output
    assert "\n    model:   # fill in" in (tmp_path / "p" / "config.yaml").read_text()


def test_slices_find_their_labels_values_and_voxel_size(tmp_path: Path) -> None:
    raw = tmp_path / "cell"
    tiffs(raw / "images", 12, (40, 40), "uint8", "slice_{:02d}.tif")
    (raw / "labels").mkdir()
    for number in range(0, 12):
        label = np.zeros((40, 40), np.uint8)
        label[:20], label[30:] = 128, 255
        tifffile.imwrite(raw / "labels" / f"label_{number:02d}.tif", label)
    volume = np.zeros((6, 8, 9), np.uint16)
    resolution = (1 / 0.05, 1 / 0.05)
    tifffile.imwrite(
        raw / "other.tif",
        volume,
        imagej=True,
        resolution=resolution,
        metadata={"axes": "ZYX", "spacing": 0.1, "unit": "um"},
    )
    config, rows, text = init(raw, "fibsem")
    found = {one.sample: one for one in rows["fibsem"]}
    assert found["cell"].role == "train" and found["cell"].labels == f"{raw}/labels"
    assert found["other"].role == "predict" and "volume other: voxels of 100 x 50 x 50 nm (ImageJ" in text
    assert config["fibsem"]["volume"]["label_values"] == [0, 128, 255]
    assert len(config["fibsem"]["volume"]["classes"]) == 3 and "networks" not in config["fibsem"]
    assert "not in the files: the voxel size of cell: pixel_nm and slice_nm" in text
    check_config(str(tmp_path / "project" / "config.yaml"))


@pytest.mark.parametrize("technique", [None, "fibsem"])
def test_coloured_label_images_are_labels(tmp_path: Path, technique: str | None) -> None:
    raw = tmp_path / "cell"
    for folder in ("images", "labels"):
        (raw / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(rng.integers(0, 255, (30, 40), np.uint8)).save(raw / "images" / f"{number:02d}.png")
        label = np.zeros((30, 40, 3), np.uint8)
        label[:10], label[20:] = (255, 0, 0), (0, 128, 255)
        Image.fromarray(label).save(raw / "labels" / f"{number:02d}.png")
    config, rows, text = init(raw, technique)
    (row,) = rows["fibsem"]
    assert list(config) == ["seed", "fibsem"]
    assert row.role == "train" and row.labels == f"{raw}/labels" and row.images == f"{raw}/images"
    assert config["fibsem"]["volume"]["label_colors"] == ["000000", "0080ff", "ff0000"]
    assert config["fibsem"]["volume"]["classes"] == ["class_000000", "class_0080ff", "class_ff0000"]
    assert "12 label images" in text and "with the colours #000000, #0080ff, #ff0000" in text
    check_config(str(tmp_path / "project" / "config.yaml"))


def test_a_label_volume_without_grey_images_is_rendered(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    labels = (np.arange(10 * 32 * 32).reshape(10, 32, 32) % 3).astype(np.uint8)
    tifffile.imwrite(raw / "electrode.tif", labels, photometric="minisblack")
    config, rows, text = init(raw)
    assert rows["fibsem"][0].simulated and config["fibsem"]["simulate"] == {"labels": f"{raw}/electrode.tif"}
    assert "labels without grey images, with the values 0, 1, 2" in text


def test_nothing_is_replaced_and_nothing_is_written_before_an_error(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "p"
    tiffs(raw, 3, (30, 40), "uint16")
    out.mkdir()
    (out / "bragg.tsv").write_text("mine")
    run = CliRunner().invoke(cli, ["init", str(raw), "--technique", "bragg", "--out", str(out)], standalone_mode=False)
    assert (
        str(run.exception)
        == f"{out}/bragg.tsv: found a file, expected none, as init replaces no file: choose another folder with --out"
    )
    assert [path.name for path in out.iterdir()] == ["bragg.tsv"] and (out / "bragg.tsv").read_text() == "mine"


def test_a_folder_without_raw_data_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"x")
    (tmp_path / "scan.raw").write_bytes(b"x")
    (tmp_path / "damaged.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError) as caught:
        initialise(str(tmp_path), str(tmp_path / "p"), None)
    text = str(caught.value)
    assert "net.pth: a model or weights" in text and "scan.raw: a file without a header" in text
    assert "damaged.tif: found" in text and not (tmp_path / "p").exists()
    with pytest.raises(InputError, match="no such folder"):
        initialise(str(tmp_path / "absent"), str(tmp_path), None)


def test_names_with_brackets_quotes_and_blanks_reach_the_sheet(tmp_path: Path) -> None:
    raw = tmp_path / "user's [raw] data"
    tiffs(raw / "scan [1]", 21, (30, 40), "uint16", "f [{:02d}].tif")
    tiffs(raw / "scan [1]", 1, (30, 40), "uint16", "dark.tif")
    _, rows, _ = init(raw, "bragg")
    (scan,) = rows["bragg"]
    assert scan.sample == "scan_1_" and scan.dark.endswith("dark.tif")
    check_config(str(tmp_path / "project" / "config.yaml"))


def test_only_some_headers_of_numbered_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiffs(tmp_path, 40, (8, 8), "uint16")
    from cathodeflow.init import files

    opened: list[str] = []
    real = files.open_stack
    monkeypatch.setattr(files, "open_stack", lambda path: (opened.append(path), real(path))[1])
    (group,) = look(str(tmp_path)).groups
    assert group.n == len(group.files) == 40 and len(opened) == 3
    assert as_source(str(tmp_path), group.files) == os.path.join(tmp_path, "f_*.tif")
