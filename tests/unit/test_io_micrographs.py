import importlib.util
import struct
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cathodeflow.errors import InputError
from cathodeflow.io.micrographs import (
    embedded_settings,
    list_micrographs,
    micrograph_header,
    read_micrograph,
    sidecar_text,
)
from cathodeflow.io.raw_format import ImageHeader

GREY = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
GREY16 = np.random.default_rng(1).integers(0, 4096, (30, 40), dtype=np.uint16)
RGB = np.repeat(GREY[..., None], 3, axis=2)
RGBA16 = np.concatenate([np.repeat(GREY16[..., None], 3, axis=2), np.full((30, 40, 1), 9, np.uint16)], axis=2)
HAS_ROSETTA = importlib.util.find_spec("rsciio") is not None

WRITERS: dict[str, tuple[Callable[[Path], object], NDArray[np.generic], tuple[int, int]]] = {
    "grey.png": (lambda path: Image.fromarray(GREY).save(path), GREY, (8, 1)),
    "grey16.png": (lambda path: Image.fromarray(GREY16).save(path), GREY16, (16, 1)),
    "rgba.png": (lambda path: Image.fromarray(RGB).convert("RGBA").save(path), GREY, (8, 4)),
    "alpha.png": (lambda path: Image.fromarray(GREY).convert("LA").save(path), GREY, (8, 2)),
    "palette.png": (lambda path: Image.fromarray(GREY).convert("P").save(path), GREY, (8, 1)),
    "bits.png": (lambda path: Image.fromarray(GREY > 99).save(path), np.where(GREY > 99, 255, 0), (1, 1)),
    "grey.bmp": (lambda path: Image.fromarray(GREY).save(path), GREY, (8, 1)),
    "rgb.bmp": (lambda path: Image.fromarray(RGB).save(path), GREY, (8, 3)),
    "grey.tif": (lambda path: tifffile.imwrite(path, GREY), GREY, (8, 1)),
    "grey16.tif": (lambda path: tifffile.imwrite(path, GREY16, compression="zlib"), GREY16, (16, 1)),
    "big endian.tif": (lambda path: tifffile.imwrite(path, GREY16, byteorder=">"), GREY16, (16, 1)),
    "rgb.tif": (lambda path: tifffile.imwrite(path, RGB, photometric="rgb"), GREY, (8, 3)),
    "rgba16.tif": (
        lambda path: tifffile.imwrite(path, RGBA16, photometric="rgb", extrasamples=["unassalpha"]),
        GREY16,
        (16, 4),
    ),
    "planes.tif": (
        lambda path: tifffile.imwrite(path, RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        GREY,
        (8, 3),
    ),
    "white is zero.tif": (lambda path: tifffile.imwrite(path, 255 - GREY, photometric="miniswhite"), GREY, (8, 1)),
    "bits.tif": (
        lambda path: tifffile.imwrite(path, GREY > 99, photometric="minisblack"),
        np.where(GREY > 99, 255, 0),
        (1, 1),
    ),
    "palette.tif": (
        lambda path: tifffile.imwrite(
            path, 255 - GREY, photometric="palette", colormap=np.tile(np.arange(255, -1, -1, np.uint16) * 257, (3, 1))
        ),
        GREY,
        (8, 1),
    ),
    "big.tif": (lambda path: tifffile.imwrite(path, GREY, bigtiff=True, tile=(16, 16)), GREY, (8, 1)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_grey_that_was_written(name: str, tmp_path: Path) -> None:
    write, expected, (bits, channels) = WRITERS[name]
    path = str(tmp_path / name)
    write(Path(path))
    found = read_micrograph(path)
    assert found.dtype == (np.uint16 if bits == 16 else np.uint8)
    np.testing.assert_array_equal(found, expected)
    assert micrograph_header(path) == ImageHeader(30, 40, bits, channels, name == "planes.tif")


def test_a_grey_jpeg_in_rgb_is_read_as_its_one_channel(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=95)
    stored = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert micrograph_header(str(tmp_path / "a.jpg")) == ImageHeader(30, 40, 8, 3)
    np.testing.assert_array_equal(read_micrograph(str(tmp_path / "a.jpg")), stored[..., 0])


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_colour_becomes_luminance(suffix: str, tmp_path: Path) -> None:
    colour = np.zeros((4, 3, 3), np.uint8)
    colour[:, 0, 0] = colour[:, 1, 1] = colour[:, 2, 2] = 200
    path = tmp_path / f"a.{suffix}"
    tifffile.imwrite(path, colour, photometric="rgb") if suffix == "tif" else Image.fromarray(colour).save(path)
    assert read_micrograph(str(path))[0].tolist() == [60, 117, 23]


def test_other_numbers_are_spread_over_16_bits(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-1.0, 0.0], [0.5, 1.0]], np.float32))
    assert read_micrograph(str(tmp_path / "a.tif")).tolist() == [[0, 32768], [49151, 65535]]
    tifffile.imwrite(tmp_path / "b.tif", np.array([[1.0, np.nan]], np.float32))
    with pytest.raises(InputError, match="not finite"):
        read_micrograph(str(tmp_path / "b.tif"))


def test_the_content_counts_and_not_the_suffix(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.jpg", GREY)
    np.testing.assert_array_equal(read_micrograph(str(tmp_path / "a.jpg")), GREY)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp"])
def test_text_and_empty_files_are_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"text.{suffix}").write_text("not an image at all\n")
    (tmp_path / f"empty.{suffix}").touch()
    for function in (read_micrograph, micrograph_header, embedded_settings):
        with pytest.raises(InputError, match=r"text\..*: found text, expected .* according to the suffix"):
            function(str(tmp_path / f"text.{suffix}"))
        with pytest.raises(InputError, match="an empty file"):
            function(str(tmp_path / f"empty.{suffix}"))


@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.9, 0.995])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "a.tif", "zip.tif", "a.bmp"])
def test_truncated_files_are_refused(name: str, fraction: float, tmp_path: Path) -> None:
    path = tmp_path / name
    large = np.random.default_rng(2).integers(0, 256, (240, 320), dtype=np.uint8)
    if name.endswith("tif"):
        tifffile.imwrite(path, large, compression="zlib" if name == "zip.tif" else None, rowsperstrip=16)
    else:
        Image.fromarray(large.astype(np.uint16) * 99 if name == "deep.png" else large).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(InputError, match=name):
        read_micrograph(str(path))


def test_a_jpeg_whose_end_was_never_written_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.tile(GREY, (8, 8))).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(InputError, match="a truncated JPEG file"):
        read_micrograph(str(tmp_path / "a.jpg"))


def test_several_pages_are_refused_but_a_thumbnail_is_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "two.tif", np.stack([GREY, GREY]))
    with pytest.raises(InputError, match="found 2 pages, expected one image of full size"):
        read_micrograph(str(tmp_path / "two.tif"))
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([GREY] * 5), imagej=True)
    with pytest.raises(InputError, match="found 5 pages"):
        micrograph_header(str(tmp_path / "stack.tif"))
    with tifffile.TiffWriter(tmp_path / "small.tif") as writer:
        writer.write(GREY)
        writer.write(GREY[::4, ::4], subfiletype=1)
    np.testing.assert_array_equal(read_micrograph(str(tmp_path / "small.tif")), GREY)
    # Some instruments do not mark the thumbnail, or put it first.
    for pages in ([GREY, GREY[::4, ::4]], [GREY[::4, ::4], GREY]):
        with tifffile.TiffWriter(tmp_path / "unmarked.tif") as writer:
            for page in pages:
                writer.write(page)
        np.testing.assert_array_equal(read_micrograph(str(tmp_path / "unmarked.tif")), GREY)
        assert micrograph_header(str(tmp_path / "unmarked.tif"))[:2] == GREY.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_they_say(tmp_path: Path, orientation: int) -> None:
    stored = Image.fromarray(GREY)
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100)
    stored.save(tmp_path / "a.png", exif=exif)
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(274, 3, 1, orientation, True)])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    for name in ("a.png", "a.tif", "a.jpg"):
        found = read_micrograph(str(tmp_path / name))
        assert micrograph_header(str(tmp_path / name))[:2] == found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=0 if name != "a.jpg" else 8)


def test_inks_become_grey(tmp_path: Path) -> None:
    inks = np.zeros((20, 30, 4), np.uint8)
    inks[:10, :, 3], inks[10:, :, :3] = 55, 155
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated")
    found = read_micrograph(str(tmp_path / "a.tif"))
    assert (found[:10] == 200).all() and (found[10:] == 100).all()


def test_what_stands_behind_a_jpeg_image_is_no_part_of_it(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data + b"SEMDATA\xff\xda\x01\x02" * 3)
    np.testing.assert_array_equal(read_micrograph(str(tmp_path / "b.jpg")), read_micrograph(str(tmp_path / "a.jpg")))
    (tmp_path / "c.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(InputError, match="a truncated JPEG file"):
        read_micrograph(str(tmp_path / "c.jpg"))


def test_settings_at_the_end_of_a_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((943, 1024), np.uint8))
    text = "[User]\r\nDate=06/03/2021\r\nTime=03:20:11 PM\r\n[Beam]\r\nHV=5000\r\n[Image]\r\nResolutionX=1024\r\nResolutionY=884\r\n"
    text += "[PrivateFei]\r\nDatabarHeight=59\r\n[Scan]\r\nPixelWidth=2.5e-9\r\nPixelHeight=2.5e-9\r\n"
    with open(tmp_path / "a.tif", "ab") as file:
        file.write(text.encode() + b"\0")
    found = embedded_settings(str(tmp_path / "a.tif"))
    assert found == {
        "time": datetime(2021, 6, 3, 15, 20, 11), "voltage_kv": 5, "pixel_nm": pytest.approx(2.5), "maker": "FEI", "bar_rows": 59,
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_text_behind_the_image_may_have_any_encoding(suffix: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.zeros((96, 128), np.uint8)).save(path)
    text = "[SemImageFile]\r\nInstructName=S-4800\r\nMagnification=5000\r\nPixelSize=19.84\r\n"
    path.write_bytes(path.read_bytes() + text.encode(encoding))
    assert embedded_settings(str(path)) == {"magnification": 5000, "pixel_nm": 19.84, "maker": "Hitachi S-4800"}


def test_one_hot_pixel_does_not_take_the_whole_range(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 40_000, dtype=np.float32).reshape(200, 200)
    values[3, 4] = 1e9
    tifffile.imwrite(tmp_path / "a.tif", values)
    found = read_micrograph(str(tmp_path / "a.tif"))
    assert np.ptp(found[10:-10]) > 50_000 and found[3, 4] == 65535


def test_a_huge_header_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 20), np.uint8))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for tag in (256, 257, 278):
        at = next(at for at in map(data.find, (struct.pack("<HH", tag, kind) for kind in (3, 4))) if at >= 0)
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 200_000)
    (tmp_path / "a.tif").write_bytes(data)
    tracemalloc.start()
    for function in (micrograph_header, read_micrograph):
        with pytest.raises(InputError, match="200000 x 200000 pixels"):
            function(str(tmp_path / "a.tif"))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_a_tiff_of_more_pixels_than_it_has_bytes_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((200, 200), np.uint8))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        read_micrograph(str(tmp_path / "a.tif"))


FEI = "[User]\r\nDate=09/02/2019\r\nTime=01:09:57 PM\r\n[System]\r\nSystemType=Helios\r\n[Beam]\r\nHV=5000\r\n[Scan]\r\nPixelWidth=2.5e-009\r\n[Detectors]\r\nName=TLD\r\n[TLD]\r\nContrast=70.25\r\nBrightness=40.5\r\n"
ZEISS = "\r\n".join(
    ["0"] * 3
    + [
        *("AP_MAG", "Mag = 5.00 K X", "AP_ACTUALKV", "EHT = 15.00 kV", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 22.3 nm"),
        *("AP_DATE", "Date :2 Sep 2019", "AP_TIME", "Time :13:09:57", "DP_DETECTOR_CHANNEL", "Signal A = SE2"),
        *("AP_BRIGHTNESS", "Brightness = 49.3 %", "AP_CONTRAST", "Contrast = 33.1 %", "AP_WD", "WD = 5.1 mm"),
        "",
    ]
)  # fmt: skip
TESCAN = "[MAIN]\r\nDate=2019-09-02\r\nTime=13:09:57\r\nPixelSizeX=2.5e-09\r\nMagnification=5000\r\n[SEM]\r\nHV=20000\r\nDetector=SE\r\n"


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (34682, FEI, {"voltage_kv": 5, "pixel_nm": 2.5, "detector": "TLD", "contrast": 70.25, "brightness": 40.5}),
        (34680, FEI, {"voltage_kv": 5, "pixel_nm": 2.5, "maker": "FEI Helios"}),
        (
            34118,
            ZEISS,
            {
                **{"magnification": 5000, "voltage_kv": 15, "pixel_nm": 22.3, "detector": "SE2", "brightness": 49.3},
                **{"contrast": 33.1, "focus": 5.1, "maker": "Zeiss"},
            },
        ),
        (50431, TESCAN, {"magnification": 5000, "voltage_kv": 20, "pixel_nm": 2.5, "detector": "SE"}),
    ],
)
def test_tiff_tags_of_the_makers(tag: int, text: str, expected: dict[str, object], tmp_path: Path) -> None:
    data = text.encode("latin-1")
    tifffile.imwrite(tmp_path / "a.tif", GREY, extratags=[(tag, 1 if tag == 50431 else 2, len(data), data, True)])
    found = embedded_settings(str(tmp_path / "a.tif"))
    assert found["time"] == datetime(2019, 9, 2, 13, 9, 57)
    assert {key: found.get(key) for key in expected} == pytest.approx(expected)


def test_dates_of_tiff_and_exif(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, datetime="2019:09:02 13:09:57")
    exif = Image.Exif()
    exif[306] = "2019:09:02 13:09:57"
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=exif)
    Image.fromarray(GREY).save(tmp_path / "plain.jpg")
    for name in ("a.tif", "a.jpg"):
        assert embedded_settings(str(tmp_path / name)) == {"time": datetime(2019, 9, 2, 13, 9, 57)}
    assert embedded_settings(str(tmp_path / "plain.jpg")) == {}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_sidecars_in_every_usual_encoding(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg.txt").write_bytes("Date : 2019-09-02 오전 12:09:57\r\n".encode(encoding))
    assert sidecar_text(str(tmp_path / "a.jpg")) == "Date : 2019-09-02 오전 12:09:57\r\n"


@pytest.mark.parametrize("name", ["a.tif.txt", "a.txt", "a.hdr", "a-tif.hdr"])
def test_sidecars_by_the_names_that_makers_give_them(name: str, tmp_path: Path) -> None:
    assert sidecar_text(str(tmp_path / "a.tif")) is None
    (tmp_path / name).write_bytes(b"Scan Rotation : 0\xb0 \xff")
    text = sidecar_text(str(tmp_path / "a.tif"))
    assert text is not None and text.startswith("Scan Rotation")


def test_a_folder_lists_its_images_in_natural_order(tmp_path: Path) -> None:
    for name in ("b_10.jpg", "b_9.TIF", "b_9.TIF.txt", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [Path(path).name for path in list_micrographs(str(tmp_path))] == ["b_9.TIF", "b_10.jpg"]


@pytest.mark.skipif(HAS_ROSETTA, reason="rosettasciio is installed")
def test_formats_of_the_extra_say_which_extra(tmp_path: Path) -> None:
    (tmp_path / "a.dm3").write_bytes(b"\0\0\0\3 some data")
    with pytest.raises(InputError, match=r"found a file of format \.dm3, expected .*sem-formats"):
        read_micrograph(str(tmp_path / "a.dm3"))


@pytest.mark.skipif(not HAS_ROSETTA, reason="needs the extra sem-formats")
def test_formats_of_the_extra_are_read(tmp_path: Path) -> None:
    from rsciio.hspy import file_writer  # type: ignore[import-not-found]

    path = str(tmp_path / "a.hspy")
    axis = {"units": "µm", "offset": 0.0, "navigate": False}
    signal = {
        "data": GREY16,
        "axes": [
            {"name": "y", "scale": 0.25, "size": 30, "index_in_array": 0, **axis},
            {"name": "x", "scale": 0.25, "size": 40, "index_in_array": 1, **axis},
        ],
        "metadata": {"General": {"title": "a", "date": "2019-09-02", "time": "13:09:57"}},
        "original_metadata": {},
        "tmp_parameters": {},
        "package_info": {},
        "learning_results": {},
        "package": "",
        "package_version": "",
        "models": {},
        "attributes": {"_lazy": False, "ragged": False},
    }
    file_writer(path, signal)
    np.testing.assert_array_equal(read_micrograph(path), GREY16)
    assert micrograph_header(path) == ImageHeader(30, 40, 16, 1)
    assert embedded_settings(path) == {"time": datetime(2019, 9, 2, 13, 9, 57), "pixel_nm": 250}
    Path(path).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"a\.hspy"):
        read_micrograph(path)
