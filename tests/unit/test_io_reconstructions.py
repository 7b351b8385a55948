import base64
import os
import struct
import zlib
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.reconstructions import Reconstruction, read_cxi, write_cxi, write_page, write_vti

SHAPE = (33, 20, 45)
RNG = np.random.default_rng(0)
VOLUME = (RNG.normal(size=SHAPE) + 1j * RNG.normal(size=SHAPE)).astype(np.complex64)
SUPPORT = RNG.random(SHAPE) < 0.4
STRAIN = np.where(SUPPORT, RNG.normal(0, 1e-3, SHAPE), np.nan).astype(np.float32)
MOVED = RNG.normal(size=SHAPE).astype(np.float32)
GEOMETRY = {"energy_kev": 9.0, "distance_m": 0.5, "pixel_um": 55.0, "delta_deg": 30.1, "rocking_axis": "theta"}
ONE = Reconstruction(
    VOLUME, SUPPORT, (10.0, 4.5, 5.25), "scan", [("strain", "1", STRAIN), ("displacement along Q", "nm", MOVED)],
    GEOMETRY, {"recipe": "20*ER", "seed": 3, "error": [0.5, 0.25]},
)  # fmt: skip


def test_all_that_is_written_is_read(tmp_path):
    write_cxi(tmp_path / "a.cxi", ONE)
    found = read_cxi(tmp_path / "a.cxi")
    np.testing.assert_array_equal(found.volume, VOLUME)
    np.testing.assert_array_equal(found.support, SUPPORT)
    assert [field[:2] for field in found.fields] == [field[:2] for field in ONE.fields]
    for got, given in zip(found.fields, ONE.fields, strict=True):
        np.testing.assert_array_equal(got[2], given[2])
    assert found[2:4] + found[5:] == ONE[2:4] + ONE[5:]


def test_the_order_of_fields_stays_beyond_ten(tmp_path):
    fields = [(f"field {number}", "nm", np.full(SHAPE, number, np.float32)) for number in range(12)]
    write_cxi(tmp_path / "a.cxi", ONE._replace(fields=fields))
    assert [field[0] for field in read_cxi(tmp_path / "a.cxi").fields] == [field[0] for field in fields]


def test_other_programs_find_what_cxi_names_in_si_units(tmp_path):
    write_cxi(tmp_path / "a.cxi", ONE)
    with h5py.File(tmp_path / "a.cxi") as file:
        assert file["cxi_version"][()] == 150
        assert file["entry_1/image_1/data_space"].asstr()[()] == "real"
        np.testing.assert_array_equal(file["entry_1/image_1/mask"][()] > 0, SUPPORT)
        np.testing.assert_allclose(file["entry_1/image_1/image_size"][()], [330e-9, 90e-9, 236.25e-9])
        instrument = file["entry_1/instrument_1"]
        assert instrument["source_1/energy"][()] == pytest.approx(1.44196e-15, rel=1e-5)
        assert instrument["detector_1/distance"][()] == 0.5
        assert instrument["detector_1/x_pixel_size"][()] == pytest.approx(55e-6)
        # The way of NeXus to what a viewer shows first.
        group = file[file.attrs["default"]]
        assert group[group.attrs["default"]].attrs["signal"] == "data"


def test_what_is_not_known_is_left_out(tmp_path):
    write_cxi(tmp_path / "a.cxi", Reconstruction(VOLUME, SUPPORT))
    with h5py.File(tmp_path / "a.cxi") as file:
        assert "instrument_1" not in file["entry_1"] and "image_size" not in file["entry_1/image_1"]
    found = read_cxi(tmp_path / "a.cxi")
    assert found.voxel_nm is None and not found.fields and found.geometry == {} and found.process == {}


def test_equal_reconstructions_give_equal_bytes(tmp_path):
    for name, write in (("a.cxi", write_cxi), ("a.vti", write_vti)):
        for folder in ("one", "two"):
            write(tmp_path / folder / name, ONE)
        first, second = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert first == second


def test_files_of_other_programs_are_read(tmp_path):
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        image = file.create_group("entry_1/image_1")
        image["data"], image["mask"] = VOLUME.astype(np.complex128), SUPPORT.astype(np.int8)
        image["image_size"] = 2e-9 * np.array(SHAPE)
        image["process_1/command"] = "phase_image -i a -o b"
        file["entry_1/image_2/data"] = VOLUME
    found = read_cxi(tmp_path / "a.cxi")
    np.testing.assert_array_equal(found.volume, VOLUME)
    np.testing.assert_array_equal(found.support, SUPPORT)
    assert found.voxel_nm == pytest.approx((2, 2, 2)) and not found.fields
    assert found.process == {"command": "phase_image -i a -o b"}


def test_what_holds_no_object_is_one_line(tmp_path):
    (tmp_path / "text.cxi").write_text("text")
    with h5py.File(tmp_path / "empty.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.zeros(3)
    with h5py.File(tmp_path / "real.cxi", "w") as file:
        file["entry_1/image_1/data"], file["entry_1/image_1/support"] = SUPPORT.astype(float), SUPPORT
    with h5py.File(tmp_path / "short.cxi", "w") as file:
        file["entry_1/image_1/data"], file["entry_1/image_1/support"] = VOLUME, SUPPORT[1:]
    for name, found in (
        ("none", "no such file"), ("text", "no HDF5"), ("empty", "no object"), ("real", "3-D float64"), ("short", "support"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=found) as caught:
            read_cxi(tmp_path / f"{name}.cxi")
        assert f"{name}.cxi" in str(caught.value) and "\n" not in str(caught.value)


def test_fields_of_another_shape_are_refused_and_nothing_is_left(tmp_path):
    wrong = ONE._replace(fields=[("strain", "1", STRAIN[1:])])
    for write in (write_cxi, write_vti):
        with pytest.raises(InputError, match=r"strain of shape \(32, 20, 45\)"):
            write(tmp_path / "a", wrong)
    assert os.listdir(tmp_path) == []


def decoded(array):
    """Values of a DataArray as the VTK file formats describe it: header of sizes, then zlib blocks, each in base64."""
    text = array.text.strip()
    count = struct.unpack("<Q", base64.b64decode(text[:12])[:8])[0]
    header_length = -(-8 * (3 + count) // 3) * 4
    _, block, rest, *sizes = struct.unpack(f"<{3 + count}Q", base64.b64decode(text[:header_length]))
    data, parts, start = base64.b64decode(text[header_length:]), [], 0
    for number, size in enumerate(sizes):
        parts.append(zlib.decompress(data[start : start + size]))
        assert len(parts[-1]) == (rest if rest and number == count - 1 else block)
        start += size
    assert start == len(data)
    return np.frombuffer(b"".join(parts), {"Float32": "<f4", "UInt8": "u1"}[array.get("type")])


def test_paraview_finds_axes_sizes_and_values(tmp_path):
    write_vti(tmp_path / "a.vti", ONE)
    root = ElementTree.parse(tmp_path / "a.vti").getroot()
    assert (root.get("type"), root.get("header_type")) == ("ImageData", "UInt64")
    image = root.find("ImageData")
    assert image.get("WholeExtent") == image.find("Piece").get("Extent") == "0 44 0 19 0 32"
    assert [float(one) for one in image.get("Spacing").split()] == [5.25, 4.5, 10]
    assert [float(one) for one in image.get("Origin").split()] == [-22 * 5.25, -10 * 4.5, -16 * 10]
    found = {array.get("Name"): decoded(array) for array in image.iter("DataArray")}
    assert list(found) == ["amplitude", "phase [rad]", "support", "strain", "displacement along Q [nm]"]
    # The place of a voxel (z, y, x) where x varies fastest.
    place = 7 + 45 * (11 + 20 * 30)
    assert found["amplitude"][place] == abs(VOLUME[30, 11, 7])
    np.testing.assert_array_equal(found["support"].reshape(SHAPE), SUPPORT)
    np.testing.assert_array_equal(found["strain"].reshape(SHAPE), STRAIN)
    np.testing.assert_allclose(found["phase [rad]"].reshape(SHAPE), np.angle(VOLUME) * SUPPORT, rtol=1e-6)


def test_without_a_size_voxels_are_the_unit(tmp_path):
    write_vti(tmp_path / "a.vti", Reconstruction(VOLUME, SUPPORT, fields=[('<µ> & "ε"', "Å", STRAIN)]))
    image = ElementTree.parse(tmp_path / "a.vti").getroot().find("ImageData")
    assert image.get("Spacing") == "1.0 1.0 1.0"
    assert image.findall(".//DataArray")[-1].get("Name") == '<µ> & "ε" [Å]'


def test_a_page_is_utf_8(tmp_path):
    write_page(tmp_path / "new" / "a.html", "<p>\u2212\u03c0</p>\n")
    assert (tmp_path / "new" / "a.html").read_bytes() == "<p>\u2212\u03c0</p>\n".encode()
