"""Slices of every format: the pixels, their order and the voxel size are those that were written."""

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import nrrd
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.slices import open_slices, open_stack, read_labels, read_stack
from cathodeflow.io.sources import files_read
from cathodeflow.io.streams import NewStore, write_together
from cathodeflow.io.volume_axes import Choice, RawLayout

# No two axes of equal length, so that no transposition passes.
GREY = np.random.default_rng(0).integers(20, 240, (7, 12, 15), dtype=np.uint8)
TWO = np.stack([255 - GREY, GREY], axis=1)


def read(source: str | Path, **choice: object) -> np.ndarray:
    return np.stack(list(read_stack(open_stack(str(source), Choice(**choice)))))


def npy(path: Path) -> Path:
    np.save(path / "v.npy", GREY)
    return path / "v.npy"


def npy_trailing(path: Path) -> Path:
    np.save(path / "v.npy", GREY[..., None])
    return path / "v.npy"


def imagej(path: Path) -> Path:
    metadata = {"axes": "ZYX", "spacing": 0.2, "unit": "um"}
    tifffile.imwrite(path / "v.tif", GREY, imagej=True, metadata=metadata, resolution=(1 / 0.05, 1 / 0.1))
    return path / "v.tif"


def imagej_time(path: Path) -> Path:
    tifffile.imwrite(path / "v.tif", GREY, imagej=True, metadata={"axes": "TYX"})
    return path / "v.tif"


def ome(path: Path) -> Path:
    metadata = {"axes": "ZYX"}
    for axis, (size, unit) in {"X": (50, "nm"), "Y": (100, "nm"), "Z": (0.2, "µm")}.items():
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(path / "v.ome.tif", GREY, ome=True, metadata=metadata, compression="zlib")
    return path / "v.ome.tif"


def mhd(path: Path) -> Path:
    GREY.tofile(path / "v.raw")
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "ElementSpacing = 0.05 0.1 0.2",
             "DimSize = 15 12 7", "ElementType = MET_UCHAR", "ElementDataFile = v.raw"]  # fmt: skip
    (path / "v.mhd").write_text("\n".join(lines) + "\n")
    return path / "v.mhd"


def mha(path: Path) -> Path:
    lines = ["NDims = 3", "BinaryData = True", "CompressedData = True", "ElementSpacing = 0.05 0.1 0.2",
             "DimSize = 15 12 7", "ElementType = MET_UCHAR", "ElementDataFile = LOCAL"]  # fmt: skip
    (path / "v.mha").write_bytes("\n".join(lines).encode() + b"\n" + zlib.compress(GREY.tobytes()))
    return path / "v.mha"


def nifti(path: Path) -> Path:
    image = nibabel.Nifti1Image(GREY.T, np.diag([0.05, 0.1, 0.2, 1]))
    image.header.set_xyzt_units("micron")
    nibabel.save(image, path / "v.nii")
    return path / "v.nii"


def nifti_gz(path: Path) -> Path:
    plain = nifti(path)
    (path / "v.nii.gz").write_bytes(gzip.compress(plain.read_bytes()))
    return path / "v.nii.gz"


def nrrd_gzip(path: Path) -> Path:
    header = {"space directions": np.diag([0.05, 0.1, 0.2]), "space units": ["um"] * 3, "space dimension": 3}
    nrrd.write(str(path / "v.nrrd"), GREY.T, header)
    return path / "v.nrrd"


def nrrd_detached(path: Path) -> Path:
    header = {"spacings": [0.05, 0.1, 0.2], "units": ["um"] * 3, "encoding": "raw"}
    nrrd.write(str(path / "v.nhdr"), GREY.T, header, detached_header=True)
    return path / "v.nhdr"


def amira(path: Path) -> Path:
    head = (
        '# AmiraMesh BINARY-LITTLE-ENDIAN 2.1\n\ndefine Lattice 15 12 7\n\nParameters {\n    Units { Coordinates "µm" }\n'
        "    BoundingBox 0 0.7 0 1.1 0 1.2,\n}\n\nLattice { byte Data } @1\n\n# Data section follows\n@1\n"
    )
    (path / "v.am").write_bytes(head.encode() + GREY.tobytes() + b"\n")
    return path / "v.am"


def hdf5(path: Path, values: np.ndarray, keys: str, **attributes: object) -> Path:
    with h5py.File(path / "v.h5", "w") as file:
        dataset = file.create_dataset("exported_data", data=values, chunks=True)
        dataset.attrs["axistags"] = json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in keys]})
        dataset.attrs.update(attributes)
    return path / "v.h5"


def ilastik(path: Path) -> Path:
    return hdf5(path, GREY[..., None], "zyxc", element_size_um=[0.2, 0.1, 0.05])


def ilastik_transposed(path: Path) -> Path:
    return hdf5(path, GREY.T, "xyz")


def ngff(path: Path, version: int, values: np.ndarray, axes: str) -> Path:
    group = zarr.open_group(str(path / "v.zarr"), mode="w", zarr_format=version)
    array = group.create_array("s0", shape=values.shape, chunks=values.shape, dtype="u1")
    array[:] = values
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": k, "type": kinds[k]} if k in kinds else {"name": k, "type": "space", "unit": "micrometer"}
        for k in axes
    ]
    steps = [{"z": 0.2, "y": 0.1, "x": 0.05}.get(k, 1.0) for k in axes]
    level = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": steps}]}
    scales = [{"axes": named, "datasets": [level], "version": "0.4"}]
    if version == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    else:
        group.attrs["multiscales"] = scales
    return path / "v.zarr"


def ngff_3d(path: Path) -> Path:
    return ngff(path, 3, GREY, "zyx")


def ngff_5d(path: Path) -> Path:
    return ngff(path, 2, GREY[None, None], "tczyx")


def zarr_plain(path: Path) -> Path:
    zarr.open_array(str(path / "v.zarr"), mode="w", shape=GREY.shape, chunks=(4, 6, 15), dtype="u1", zarr_format=2)[
        :
    ] = GREY
    return path / "v.zarr"


def zarr_names(path: Path) -> Path:
    """Zarr v3 with names of the axes, transposed."""
    array = zarr.create_array(str(path / "v.zarr"), shape=GREY.T.shape, dtype="u1", dimension_names=["x", "y", "z"])
    array[:] = GREY.T
    return path / "v.zarr"


def own_store(path: Path) -> Path:
    metadata = {"scale": (200, 100, 50), "unit": "nm"}
    write_together([NewStore(path / "slices.zarr", GREY.shape, np.uint8, metadata)], [[GREY]])
    return path / "slices.zarr"


UM = (0.2, 0.1, 0.05)
STATED: dict[Callable[[Path], Path], tuple[tuple[float, ...] | None, str | None]] = {
    npy: (None, None), npy_trailing: (None, None), imagej: (UM, "micrometer"), imagej_time: (None, None),
    ome: ((200, 100, 50), "nanometer"), mhd: (UM, None), mha: (UM, None), nifti: (UM, "micrometer"),
    nifti_gz: (UM, "micrometer"), nrrd_gzip: (UM, "micrometer"), nrrd_detached: (UM, "micrometer"),
    amira: (UM, "micrometer"), ilastik: (UM, "micrometer"), ilastik_transposed: (None, None),
    ngff_3d: (UM, "micrometer"), ngff_5d: (UM, "micrometer"), zarr_plain: (None, None), zarr_names: (None, None),
    own_store: ((200, 100, 50), "nanometer"),
}  # fmt: skip


@pytest.mark.parametrize("write", STATED)
def test_pixels_order_and_voxel_size_of_every_format(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    source, (size, unit) = write(tmp_path), STATED[write]
    np.testing.assert_array_equal(read(source), GREY)
    stack = open_stack(str(source))
    # A slice in the middle, as it is read for itself.
    np.testing.assert_array_equal(next(read_stack(stack, 3, 4)), GREY[3])
    np.testing.assert_array_equal(open_slices(str(source))[0][2:5].compute(), GREY[2:5])
    if size is None:
        assert stack.voxel is None
    else:
        assert stack.voxel is not None and stack.voxel.unit == unit
        np.testing.assert_allclose(stack.voxel.size, size, rtol=1e-6)


@pytest.mark.parametrize("kind", ["imagej", "ome", "zarr", "hdf5"])
def test_channels_are_chosen_and_never_interleaved(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "v.tif"
    if kind == "imagej":
        tifffile.imwrite(path, TWO, imagej=True, metadata={"axes": "ZCYX"})
    elif kind == "ome":
        path = tmp_path / "v.ome.tif"
        tifffile.imwrite(path, TWO.swapaxes(0, 1), ome=True, metadata={"axes": "CZYX"})
    elif kind == "zarr":
        path = ngff(tmp_path, 2, TWO.swapaxes(0, 1)[None], "tczyx")
    else:
        path = hdf5(tmp_path, np.moveaxis(TWO, 1, -1), "zyxc")
    with pytest.raises(InputError) as caught:
        open_stack(str(path))
    assert "2 channels" in caught.value.found and "`channel`" in caught.value.expected
    np.testing.assert_array_equal(read(path, channel=1), GREY)
    np.testing.assert_array_equal(read(path, channel=0), 255 - GREY)
    with pytest.raises(InputError, match="2 channels"):
        open_stack(str(path), Choice(channel=2))


def test_time_points_beside_slices_are_chosen(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", TWO.swapaxes(0, 1), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InputError, match="2 time points"):
        open_stack(str(tmp_path / "v.tif"))
    np.testing.assert_array_equal(read(tmp_path / "v.tif", time_point=1), GREY)


def test_channels_without_slices_are_ambiguous(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", GREY, imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(InputError, match="7 channels and no axis of slices"):
        open_stack(str(tmp_path / "v.tif"))
    np.testing.assert_array_equal(read(tmp_path / "v.tif", axes="zyx"), GREY)
    np.testing.assert_array_equal(read(tmp_path / "v.tif", channel=2), GREY[2:3])


def test_arrays_with_axes_in_doubt_are_refused_until_they_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", TWO)
    with pytest.raises(InputError, match="4 axes without names"):
        open_stack(str(tmp_path / "v.npy"))
    np.testing.assert_array_equal(read(tmp_path / "v.npy", axes="zcyx", channel=1), GREY)
    np.save(tmp_path / "t.npy", GREY.T)
    np.testing.assert_array_equal(read(tmp_path / "t.npy", axes="xyz"), GREY)
    np.save(tmp_path / "c.npy", np.zeros((12, 15, 3), np.uint8))
    with pytest.raises(InputError, match="3 values along the last axis"):
        open_stack(str(tmp_path / "c.npy"))


def test_the_voxel_size_follows_axes_that_are_given(tmp_path: Path) -> None:
    # As many write NIfTI: an array (z, y, x) where the format has (x, y, z).
    nibabel.save(nibabel.Nifti1Image(GREY, np.diag([0.2, 0.1, 0.05, 1])), tmp_path / "v.nii")
    stack = open_stack(str(tmp_path / "v.nii"), Choice(axes="xyz"))
    np.testing.assert_array_equal(np.stack(list(read_stack(stack))), GREY)
    assert stack.voxel is not None
    np.testing.assert_allclose(stack.voxel.size, UM, rtol=1e-6)


@pytest.mark.parametrize("write", [imagej, nifti, hdf5])
def test_16_bits_and_floats_keep_their_values(tmp_path: Path, write: Callable[..., Path]) -> None:
    wide = GREY.astype(np.uint16) * 250
    if write is hdf5:
        path = hdf5(tmp_path, wide, "zyx")
    elif write is nifti:
        image = nibabel.Nifti1Image(wide.T, np.eye(4))
        image.header.set_slope_inter(0.5, 3.0)
        nibabel.save(image, tmp_path / "v.nii")
        np.testing.assert_allclose(read(tmp_path / "v.nii"), np.asarray(nibabel.load(tmp_path / "v.nii").dataobj).T)
        assert abs(read(tmp_path / "v.nii") - (0.5 * wide + 3)).max() < 1e-3
        return
    else:
        path = tmp_path / "v.tif"
        tifffile.imwrite(path, wide, imagej=True, byteorder=">")
        np.testing.assert_array_equal(read(path, axes="zyx"), wide)
        return
    np.testing.assert_array_equal(read(path), wide)


@pytest.mark.parametrize("single", [True, False])
def test_miniswhite_images_are_inverted_and_labels_are_not(tmp_path: Path, single: bool) -> None:
    for number, image in enumerate(GREY):
        if single:
            tifffile.imwrite(tmp_path / f"s{number}.tif", 255 - image, photometric="miniswhite")
    if not single:
        tifffile.imwrite(tmp_path / "s.tif", 255 - GREY, photometric="miniswhite")
    source = tmp_path if single else tmp_path / "s.tif"
    np.testing.assert_array_equal(read(source), GREY)
    np.testing.assert_array_equal(np.stack(list(read_labels(open_stack(str(source))))), 255 - GREY)


def test_files_without_a_header_need_their_shape(tmp_path: Path) -> None:
    path = tmp_path / "v_15x12x7.raw"
    path.write_bytes(b"12345" + GREY.astype(">u2").tobytes())
    with pytest.raises(InputError, match=r"without a header.*raw\.shape"):
        open_stack(str(path))
    layout = RawLayout(GREY.shape, "uint16", True, 5)
    np.testing.assert_array_equal(read(path, raw=layout), GREY)
    with pytest.raises(InputError, match="2525 bytes"):
        open_stack(str(path), Choice(raw=layout._replace(shape=(8, 12, 15))))


def test_a_palette_gives_values_or_colours(tmp_path: Path) -> None:
    labels = (GREY % 3).astype(np.uint8)
    for number, image in enumerate(labels):
        made = Image.fromarray(image).convert("P")
        made.putdata(image.ravel().tolist())
        made.putpalette([80, 80, 80, 255, 0, 0, 0, 255, 0] + [0] * 759)
        made.save(tmp_path / f"s{number}.png")
    stack = open_stack(str(tmp_path))
    np.testing.assert_array_equal(np.stack(list(read_labels(stack))), labels)
    colours = np.array([[80, 80, 80], [255, 0, 0], [0, 255, 0]], np.uint8)
    np.testing.assert_array_equal(np.stack(list(read_labels(stack, colours=True))), colours[labels])
    # As images they are what one sees: red is darker than green.
    np.testing.assert_array_equal(read(tmp_path), np.array([80, 76, 150], np.uint8)[labels])


def test_mistakes_of_one_kind_are_one_line(tmp_path: Path) -> None:
    for number, image in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"s{number}.tif", image[:10] if number in (0, 5, 6) else image)
    with pytest.raises(InputError) as caught:
        open_stack(str(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    assert all(f"s{number}.tif" in caught.value.where for number in (0, 5, 6))


def test_an_unknown_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "v.xyz").write_bytes(b"\0\1\2\3" * 50)
    with pytest.raises(InputError, match="convert it"):
        open_stack(str(tmp_path / "v.xyz"))


def test_truncated_volumes_are_refused_by_their_header(tmp_path: Path) -> None:
    for write in (mhd, nifti, nrrd_detached, amira):
        path = write(tmp_path)
        data = max((p for p in tmp_path.iterdir()), key=lambda p: p.stat().st_size)
        data.write_bytes(data.read_bytes()[:-200])
        with pytest.raises(InputError, match="bytes"):
            open_stack(str(path))
        for made in tmp_path.iterdir():
            made.unlink()


def test_a_damaged_compressed_volume_is_one_line(tmp_path: Path) -> None:
    path = nifti_gz(tmp_path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"v\.nii\.gz"):
        list(read_stack(open_stack(str(path))))


def test_the_workflow_follows_all_files_of_a_volume(tmp_path: Path) -> None:
    assert [Path(file).name for file in files_read(str(mhd(tmp_path)))] == ["v.mhd", "v.raw"]
    assert [Path(file).suffix for file in files_read(str(nrrd_detached(tmp_path)))] == [".nhdr", ".raw"]
    store = files_read(str(zarr_plain(tmp_path)))
    assert str(tmp_path / "v.zarr/.zarray") in store and len(store) >= 3
    # A header from elsewhere does not decide which files of this machine are read.
    header = (tmp_path / "v.mhd").read_text().replace("v.raw", "../other.raw")
    (tmp_path / "v.mhd").write_text(header)
    with pytest.raises(InputError, match="outside"):
        files_read(str(tmp_path / "v.mhd"))


def test_a_store_with_several_arrays_needs_a_name(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "v.zarr"), mode="w")
    for name in ("raw", "labels"):
        group.create_array(name, shape=GREY.shape, dtype="u1")[:] = GREY if name == "raw" else 0
    with pytest.raises(InputError, match="labels, raw"):
        open_stack(str(tmp_path / "v.zarr"))
    np.testing.assert_array_equal(read(f"{tmp_path}/v.zarr::/raw"), GREY)


def test_no_size_of_one_without_a_unit_is_taken_for_measured(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "v.nrrd"), GREY.T, {"spacings": [1.0, 1.0, 1.0]})
    assert open_stack(str(tmp_path / "v.nrrd")).voxel is None
    stack = open_stack(str(mhd(tmp_path)))
    assert stack.voxel == VoxelSize(UM, None, "ElementSpacing of MHD", "mm")
