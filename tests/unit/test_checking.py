"""What `cathodeflow check` finds before the night: errors of all techniques together, and warnings beside them."""

import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image

from cathodeflow import checking
from cathodeflow.checking import check_config, disk_warnings
from cathodeflow.cli import cli
from cathodeflow.errors import InputError

FRAMES = np.random.default_rng(3).integers(0, 50, (3, 12, 14)).astype(np.uint16)


def project(folder: Path, technique: str, sheet: str, options: str = "") -> str:
    (folder / f"{technique}.tsv").write_text(sheet.replace("DATA", str(folder)))
    (folder / "config.yaml").write_text(f"{technique}:\n  samples: {folder}/{technique}.tsv\n{options}")
    return str(folder / "config.yaml")


def problems(config: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        check_config(config)
    return str(caught.value).splitlines()


def scan(folder: Path, *, mask: np.ndarray | None = None, dark: tuple[int, int] = (12, 14), rows: str = "") -> str:
    np.save(folder / "scan.npy", FRAMES)
    np.save(folder / "dark.npy", np.zeros(dark, np.uint16))
    np.save(folder / "mask.npy", np.ones((12, 14), np.uint8) if mask is None else mask)
    sheet = "sample\trole\tframes\tdark\twhitefield\tmask\na\tphase\tDATA/scan.npy\tDATA/dark.npy\t\tDATA/mask.npy\n"
    return project(folder, "bcdi", sheet, rows)


def test_corrections_of_a_rocking_scan_must_fit_the_frames(tmp_path: Path) -> None:
    assert check_config(scan(tmp_path)) == [f"{tmp_path}/config.yaml: bcdi: 1 sample, no problem found"]
    (line,) = problems(scan(tmp_path, dark=(20, 20)))
    assert line == (
        f"{tmp_path}/bcdi.tsv: scan 'a': dark: {tmp_path}/dark.npy: found 20 x 20 pixels, expected 12 x 14 pixels, the "
        "size of the frames, or bcdi.prepare.region of the detector"
    )
    region = "  prepare: {region: [8, 20, 0, 14]}\n"
    check_config(scan(tmp_path, dark=(20, 20), rows=region))
    (line,) = problems(scan(tmp_path, dark=(18, 20), rows=region))
    assert "found 18 x 20 pixels, of which rows 8 to 20 and columns 0 to 14 are the region" in line
    (line,) = problems(scan(tmp_path, mask=np.ones((2, 12, 14), np.uint8)))
    assert line.endswith("mask.npy: found 2 images, expected one, or 3 as the frames")


def test_a_mask_that_excludes_nearly_all_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((12, 14), np.uint8)
    mask[3, :7] = 1
    check_config(scan(tmp_path, mask=mask))
    (text,) = caplog.messages
    assert text == (
        f"scan 'a': 95.8 % of the pixels of {tmp_path}/mask.npy are excluded; change bcdi.prepare.invert_mask if "
        "0 marks its good pixels"
    )
    caplog.clear()
    check_config(scan(tmp_path, mask=mask, rows="  prepare: {invert_mask: true}\n"))
    assert not caplog.messages


@pytest.mark.parametrize("technique", ["bcdi", "bragg"])
def test_a_dark_image_as_mask_a_bright_dark_and_an_empty_flat_field_are_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, technique: str
) -> None:
    flat, role = ("whitefield", "phase") if technique == "bcdi" else ("flat", "fit")
    images = {
        "scan": FRAMES,
        "mask": np.arange(168).reshape(12, 14) % 11,
        "dark": FRAMES[1] + 50,
        flat: np.zeros((12, 14)),
    }
    for name, image in images.items():
        np.save(tmp_path / f"{name}.npy", image)
    sheet = f"sample\trole\tframes\tmask\tdark\t{flat}\na\t{role}\tDATA/scan.npy\t"
    config = project(tmp_path, technique, sheet + f"DATA/mask.npy\tDATA/dark.npy\tDATA/{flat}.npy\n")
    check_config(config)
    excluded = "9.5" if technique == "bcdi" else "90.5"
    for text in (
        f"scan 'a': {tmp_path}/mask.npy has 11 different values, and excludes {excluded} % of the pixels: is it a dark image?",
        f"scan 'a': 100.0 % of the pixels of the middle frame are below the dark image {tmp_path}/dark.npy: does it belong to",
        f"scan 'a': 100.0 % of the pixels of the flat field {tmp_path}/{flat}.npy are not above 0",
    ):
        assert any(text in message for message in caplog.messages), text
    caplog.clear()
    np.save(tmp_path / "mask.npy", np.full((12, 14), technique == "bcdi"))
    np.save(tmp_path / "dark.npy", np.full((12, 14), 27))  # more than half of the pixels of the frames are below
    np.save(tmp_path / f"{flat}.npy", np.ones((12, 14)))
    check_config(config)
    assert not caplog.messages


def test_a_single_class_is_an_error_and_an_odd_folder_and_a_mask_of_everything_are_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("622", "811", "old stuff", "__MACOSX"):
        (tmp_path / "sem" / name).mkdir(parents=True)
    for name in ("622", "811", "old stuff"):
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "sem" / name / "a.png")
        (tmp_path / "sem" / name / "Thumbs.db").write_bytes(b"x")
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "mask.png")
    sheet = "sample\trole\timages\nc\ttrain\tDATA/sem\n"
    check_config(project(tmp_path, "sem", sheet, f"  index: {{mask: {tmp_path}/mask.png}}\n"))
    assert caplog.messages[0].endswith("is 'old stuff' a class? The names of the other 2 have numbers")
    excludes = f"sem.index.mask: {tmp_path}/mask.png excludes 100.0 % of the pixels: those above 0 are not used"
    assert caplog.messages[1] == excludes
    for name in ("811", "old stuff"):
        shutil.rmtree(tmp_path / "sem" / name)
    (line,) = problems(project(tmp_path, "sem", sheet))
    assert line == f"{tmp_path}/sem.tsv: found one class, 622, expected at least two to train on"


def test_the_same_frames_under_two_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "a.npy", FRAMES)
    shutil.copy(tmp_path / "a.npy", tmp_path / "copy.npy")
    os.symlink(tmp_path / "a.npy", tmp_path / "link.npy")
    np.save(tmp_path / "other.npy", FRAMES + 1)
    sheet = "sample\trole\tframes\tstart\tstop\n" + "".join(
        f"{name}\tfit\tDATA/{file}.npy\t{start}\t{stop}\n"
        for name, file, start, stop in (
            ("one", "a", "0", "1"), ("linked", "link", "", ""), ("rest", "a", "1", "3"), ("copied", "copy", "", ""),
            ("Other", "other", "", ""), ("other", "other", "2", ""),
        )
    )  # fmt: skip
    check_config(project(tmp_path, "bragg", sheet))
    texts = [text.removeprefix(f"{tmp_path}/bragg.tsv: ") for text in caplog.messages]
    assert texts[0] == (
        "samples 'Other' and 'other' differ by case only: macOS and Windows have one folder for their results; rename one"
    )
    pairs = {tuple(text.split("'")[1:4:2]): text for text in texts[1:]}
    # `one` and `rest` are different frames of a file.
    assert set(pairs) == {
        ("one", "linked"), ("linked", "rest"), ("one", "copied"), ("linked", "copied"), ("rest", "copied"),
        ("Other", "other"),
    }  # fmt: skip
    assert pairs["one", "linked"].endswith(f"have the same images: {tmp_path}/a.npy")
    assert pairs["linked", "copied"].endswith(
        f"may have the same images: {tmp_path}/link.npy and {tmp_path}/copy.npy are equal where compared"
    )


def test_the_same_frames_under_other_names_in_another_order_and_twice_in_a_scan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    for number, frame in enumerate(np.random.default_rng(1).integers(0, 99, (4, 12, 14), np.uint16)):
        np.save(tmp_path / f"a/f{number}.npy", frame)
        np.save(tmp_path / f"b/g{9 - number}.npy", frame)
        np.save(tmp_path / f"c/h{number}.npy", frame + 1)
    for name in ("h1 (1)", "H2", "h3 - Copy"):
        shutil.copy(tmp_path / f"c/{name[:2].lower()}.npy", tmp_path / f"c/{name}.npy")
    sheet = "sample\trole\tframes\n" + "".join(f"{name}\tfit\tDATA/{name}\n" for name in "abc")
    check_config(project(tmp_path, "bragg", sheet))
    where = f"{tmp_path}/bragg.tsv:"
    assert caplog.messages == [
        f"{where} samples 'a' and 'b' may have the same images: {tmp_path}/a/f0.npy and {tmp_path}/b/g9.npy and 3 more are "
        "equal where compared",
        f"{where} sample 'c' has the same images twice: {tmp_path}/c/H2.npy and {tmp_path}/c/h2.npy and 2 more",
    ]


def test_errors_of_every_technique_and_warnings_come_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("622_cycled", "622_cyclde"):
        (tmp_path / "sem" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "sem" / name / "a.png")
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((9, 9), np.uint8))
    (tmp_path / "sem.tsv").write_text(f"sample\trole\timages\nc\ttrain\t{tmp_path}/sem\n")
    (tmp_path / "slice.nrrd").write_bytes(b"NRRD0004\ntype: float\n")
    (tmp_path / "fibsem.tsv").write_text(
        f"sample\trole\timages\nv\tpredict\t{tmp_path}/slice.nrrd\nsim\ttrain\tsimulated\n"
    )
    (tmp_path / "config.yaml").write_text(
        f"device: cuda\nsem:\n  samples: {tmp_path}/sem.tsv\n  index: {{mask: {tmp_path}/mask.tif}}\n"
        f"fibsem:\n  samples: {tmp_path}/fibsem.tsv\n  test: {{device: cuda}}\n"
    )
    monkeypatch.setattr(checking, "has_gpu", lambda: False)
    lines = problems(str(tmp_path / "config.yaml"))
    assert len(lines) == 2 and "volume 'v'" in lines[0] and "slice.nrrd" in lines[0]
    assert f"sem.index.mask: {tmp_path}/mask.tif: found 9 x 9 pixels, expected 20 x 30, as {tmp_path}" in lines[1]
    texts = "\n".join(caplog.messages)
    assert "data set 'c': classes '622_cyclde' and '622_cycled' have almost the same name: are they one?" in texts
    assert "cuda in device, fibsem.test.device, but there is no GPU on this machine" in texts
    run = CliRunner().invoke(cli, ["check", str(tmp_path / "config.yaml")], standalone_mode=False)
    assert isinstance(run.exception, InputError)


def test_labelled_slices_that_are_too_few_for_a_split(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            image = (np.arange(1600).reshape(40, 40) % 3).astype(np.uint8)
            tifffile.imwrite(tmp_path / folder / f"s{number}.tif", image)
    sheet = "sample\trole\timages\tlabels\nv\ttrain\tDATA/images\tDATA/labels\n"
    (line,) = problems(project(tmp_path, "fibsem", sheet))
    assert line.startswith(f"{tmp_path}/fibsem.tsv: volume 'v': labels, split.grouped: found 2 labelled slices: ")


def test_free_space_is_compared_with_the_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npy").write_bytes(bytes(3_000_000))
    files = [f"{tmp_path}/a.npy"]
    assert list(disk_warnings(files, str(tmp_path))) == []
    monkeypatch.setattr(psutil, "disk_usage", lambda _: SimpleNamespace(free=2e5))
    (text,) = disk_warnings([*files, *files], str(tmp_path))
    assert text == (
        f"0.0 GB of raw files, 0.0 GB free in {tmp_path}: the results may not fit, as the corrected images alone take "
        "about as much"
    )


def test_warnings_of_a_stage_are_in_its_record_and_one_that_found_nothing_has_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import json

    from cathodeflow.stage_warnings import log as own
    from cathodeflow.stage_warnings import warn_if_empty

    with caplog.at_level(logging.WARNING):
        warn_if_empty("bragg.spots", {"spots": 0, "peaks": 3}, [])
        warn_if_empty("bragg.fit", {"peaks": 0}, ["no peak above 5 counts in frames.h5"])
        warn_if_empty("bragg.fit", {"peaks": 1, "spots": None}, [])
    assert caplog.messages == ["bragg.spots: no spots found: its output files are empty"]

    from cathodeflow import bragg
    from cathodeflow.bragg import FindPeaks

    np.save(tmp_path / "raw.npy", np.zeros((2, 40, 40), np.uint16))
    bragg.frames(tmp_path / "raw.npy", out=tmp_path / "frames.h5")
    bragg.find_peaks(
        tmp_path / "frames.h5", out=tmp_path / "c.parquet", options=FindPeaks(min_value=5), record=tmp_path / "c.json"
    )
    bragg.fit(tmp_path / "frames.h5", tmp_path / "c.parquet", out=tmp_path / "f.h5", record=tmp_path / "f.json")
    job = {name: json.loads((tmp_path / f"{name}.json").read_text())["job"]["warnings"] for name in ("c", "f")}
    assert len(job["c"]) == 1 and job["c"][0].startswith("no peak above 5 counts")
    assert job["f"] == ["bragg.fit: no peaks found: its output files are empty"]
    assert not [handler for handler in own.handlers if type(handler).__name__ == "_Collector"]
