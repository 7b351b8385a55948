"""Flat field, and masks of both senses from all kinds of files, in `bragg.frames`."""

from pathlib import Path

import fabio
import h5py
import numpy as np
import pytest
import tifffile

from cathodeflow import bragg
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import read_frames_file

RNG = np.random.default_rng(0)
BAD = RNG.random((64, 64)) < 0.1


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "raw.tif", np.full((64, 64), 100, np.uint16))
    return tmp_path / "raw.tif"


def write_mask(folder: Path, kind: str, values: np.ndarray) -> str:
    path = folder / f"mask.{kind}"
    if kind == "npy":
        np.save(path, values)
    elif kind == "edf":
        fabio.edfimage.EdfImage(data=values.astype(np.uint8)).write(str(path))
    elif kind == "tif":
        tifffile.imwrite(path, values.astype(np.uint8) * 255)
    else:
        with h5py.File(path, "w") as file:
            file["entry/valid"] = values.astype(np.uint8)
        return f"{path}::/entry/valid"
    return str(path)


@pytest.mark.parametrize("kind", ["npy", "edf", "tif", "h5"])
@pytest.mark.parametrize("invert", [False, True])
def test_a_mask_of_either_sense_from_any_file(tmp_path: Path, raw: Path, kind: str, invert: bool) -> None:
    mask = write_mask(tmp_path, kind, ~BAD if invert else BAD)
    bragg.frames(raw, out=tmp_path / "frames.h5", mask=mask, options=bragg.Frames(invert_mask=invert))
    with read_frames_file(tmp_path / "frames.h5") as file:
        np.testing.assert_array_equal(file.mask, BAD)
        np.testing.assert_array_equal(file.frames[0], np.where(BAD, 0, 100))


def test_a_mask_of_the_wrong_sense_is_said(tmp_path: Path, raw: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = write_mask(tmp_path, "npy", ~BAD)
    bragg.frames(raw, out=tmp_path / "frames.h5", mask=mask)
    assert "set invert_mask" in caplog.text


def test_the_flat_field_is_divided_out_after_the_dark(tmp_path: Path) -> None:
    sensitivity = RNG.uniform(0.5, 2.0, (64, 64))
    sensitivity /= np.median(sensitivity)
    light, dark = np.arange(64.0)[:, None] + 10, np.full((64, 64), 7.0, np.float32)
    flat = (3000 * sensitivity).astype(np.float32)
    flat[5, 6], flat[7, 8] = 0, np.nan
    tifffile.imwrite(tmp_path / "raw.tif", (light * sensitivity + dark).astype(np.float32))
    tifffile.imwrite(tmp_path / "dark.tif", dark)
    tifffile.imwrite(tmp_path / "flat.tif", np.stack([flat * 0.9, flat * 1.1]), photometric="minisblack")
    files = {"dark": tmp_path / "dark.tif", "flat": tmp_path / "flat.tif"}
    bragg.frames(tmp_path / "raw.tif", out=tmp_path / "frames.h5", **files)
    with read_frames_file(tmp_path / "frames.h5") as file:
        assert np.argwhere(file.mask).tolist() == [[5, 6], [7, 8]]
        expected = np.where(file.mask, 0, np.broadcast_to(light, (64, 64)))
        np.testing.assert_allclose(file.frames[0], expected, rtol=1e-3)


def test_a_flat_field_without_light_or_among_the_frames_is_refused(tmp_path: Path, raw: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((64, 64)))
    with pytest.raises(InputError, match="0 of 4096 pixels above 0, expected a flat field"):
        bragg.frames(raw, out=tmp_path / "frames.h5", flat=tmp_path / "flat.npy")
    with pytest.raises(InputError, match=r"the flat .* among the frames"):
        bragg.frames(tmp_path / "*.tif", out=tmp_path / "frames.h5", flat=raw)
