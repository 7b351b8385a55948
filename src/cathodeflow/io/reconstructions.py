"""Reconstructed objects: CXI-style HDF5, VTK image data for ParaView, and HTML pages.

The HDF5 file follows the CXI format 1.5 (F. R. N. C. Maia, Nat. Methods 9, 854 (2012); cxidb.org), whose quantities are
in SI units, with additions of Cathodeflow:

    /cxi_version                                150
    /entry_1/program_name                       "cathodeflow"
    /entry_1/image_1/data                       (z, y, x) complex64, the object
    /entry_1/image_1/support                    (z, y, x) uint8, also as `mask`
    /entry_1/image_1/data_space, data_type      "real", "electron density"
    /entry_1/image_1/image_size                 (3,) of the whole volume along z, y, x [m]
    /entry_1/image_1/voxel_size                 (3,) along z, y, x [nm, see its attribute `units`]; addition
    /entry_1/image_1/@frame                     "laboratory", or "scan" for the skewed frame of the measurement;
    addition /entry_1/image_1/process_1/command          JSON of options and figures of merit /entry_1/image_2, ...
    /data, title          further quantities such as the strain, NaN where unknown /entry_1/instrument_1/@...
    the geometry by the names of its options; addition /entry_1/instrument_1/source_1/energy       [J]
    /entry_1/instrument_1/detector_1/distance, x_pixel_size, y_pixel_size       [m]

Unknown quantities are left out. Equal reconstructions give equal bytes.
"""

import base64
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, new_dataset, new_hdf5, open_hdf5, read_array, require_plain

_Path = str | os.PathLike[str]
_CXI_VERSION = 150
_JOULE_PER_KEV = 1.602176634e-16
# Locations of the values of the geometry in CXI, and their factors to SI units.
_SI = {
    "energy_kev": (("source_1/energy",), _JOULE_PER_KEV),
    "distance_m": (("detector_1/distance",), 1.0),
    "pixel_um": (("detector_1/x_pixel_size", "detector_1/y_pixel_size"), 1e-6),
}
_IMAGE = "entry_1/image_1"
_VTK_TYPES = {np.dtype(np.float32): "Float32", np.dtype(np.uint8): "UInt8"}
# Block size of the VTK library for compression [bytes].
_BLOCK = 2**15


class Reconstruction(NamedTuple):
    """An object and its properties.

    Attributes
    ----------
    volume : (z, y, x) complex64
    support : (z, y, x) bool
    voxel_nm : (float, float, float), optional
        Size of a voxel along z, y, x [nm].
    frame : str
        "laboratory" (orthogonal axes) or "scan".
    fields : sequence of (name, unit, values)
        Quantities (z, y, x) float32 on the same voxels; the unit is "1" if there is none.
    geometry : mapping
        Numbers and names.
    process : mapping
        JSON data: options, seed, figures of merit.
    """

    volume: NDArray[np.complex64]
    support: NDArray[np.bool_]
    voxel_nm: tuple[float, float, float] | None = None
    frame: str = "laboratory"
    fields: Sequence[tuple[str, str, NDArray[np.float32]]] = ()
    geometry: Mapping[str, Any] = {}
    process: Mapping[str, Any] = {}


def write_cxi(path: _Path, reconstruction: Reconstruction) -> None:
    """Write a reconstruction as CXI-style HDF5.

    Raises
    ------
    InputError
        Support or fields have another shape than the object.
    """
    _check_shapes(reconstruction)
    with new_hdf5(path) as file:
        file["cxi_version"] = _CXI_VERSION
        file.attrs["default"] = "entry_1"
        entry = _group(file, "entry_1", "NXentry", default="image_1")
        entry["program_name"] = "cathodeflow"
        image = _group(entry, "image_1", "NXdata", signal="data", frame=reconstruction.frame)
        _dataset(image, "data", reconstruction.volume.astype(np.complex64))
        _dataset(image, "support", reconstruction.support.astype(np.uint8))
        image["mask"] = h5py.SoftLink(f"/{_IMAGE}/support")
        image["data_space"], image["data_type"] = "real", "electron density"
        if reconstruction.voxel_nm is not None:
            image["image_size"] = 1e-9 * np.multiply(reconstruction.voxel_nm, reconstruction.volume.shape)
            image["voxel_size"] = np.asarray(reconstruction.voxel_nm, np.float64)
            image["voxel_size"].attrs["units"] = "nm"
        process = _group(image, "process_1", "NXprocess")
        process["command"] = json.dumps(dict(reconstruction.process), sort_keys=True)
        for number, (name, unit, values) in enumerate(reconstruction.fields, start=2):
            further = _group(entry, f"image_{number}", "NXdata", signal="data")
            further["title"], further["data_space"] = name, "real"
            _dataset(further, "data", values.astype(np.float32)).attrs["units"] = unit
        if reconstruction.geometry:
            instrument = _group(entry, "instrument_1", "NXinstrument")
            instrument.attrs.update(dict(sorted(reconstruction.geometry.items())))
            write_instrument(instrument, reconstruction.geometry)


def write_instrument(instrument: h5py.Group, geometry: Mapping[str, Any], *, binning: tuple[int, int] = (1, 1)) -> None:
    """Write energy, distance and pixel size in SI units, as far as they are known.

    Parameters
    ----------
    instrument : Group
        `instrument_1` of a CXI file.
    geometry : mapping
        Values by the names of the options of `bcdi.strain`.
    binning : (int, int)
        Rows and columns that were binned to one: pixels are larger by it.
    """
    larger = {"y_pixel_size": binning[0], "x_pixel_size": binning[1]}
    for name, (places, factor) in _SI.items():
        for location in places if name in geometry else ():
            # A group that HDF5 creates implicitly would store the time.
            group, _, last = location.partition("/")
            instrument.require_group(group)[last] = factor * larger.get(last, 1) * float(geometry[name])


def read_cxi(path: _Path) -> Reconstruction:
    """Read what `write_cxi` wrote, or the object of a CXI file of another program.

    Raises
    ------
    InputError
        The file is not HDF5, or has no object with its support.
    """
    where, expected = os.fspath(path), f"{_IMAGE}/data and {_IMAGE}/support"
    with open_hdf5(path) as file, guarded(path, expected):
        image = find_node(file, _IMAGE)
        if not isinstance(image, h5py.Group):
            raise InputError(path, f"no object at {_IMAGE}", expected)
        volume = read_array(file, f"{_IMAGE}/data")
        support = read_array(file, f"{_IMAGE}/{'support' if 'support' in image else 'mask'}") > 0
        if volume.ndim != 3 or volume.dtype.kind != "c":
            raise InputError(f"{where}::/{_IMAGE}/data", f"{volume.ndim}-D {volume.dtype}", "complex (z, y, x)")
        voxel = None
        if "voxel_size" in image:
            voxel = read_array(file, f"{_IMAGE}/voxel_size")
        elif "image_size" in image:
            voxel = 1e9 * read_array(file, f"{_IMAGE}/image_size") / volume.shape
        names = sorted((name for name in file["entry_1"] if name.startswith("image_")), key=_last)
        places = [f"entry_1/{name}" for name in names if f"entry_1/{name}" != _IMAGE]
        found_fields = [_field(file, location, volume.shape) for location in places]
        instrument = find_node(file, "entry_1/instrument_1")
        known = instrument.attrs.items() if instrument is not None else ()
        found = Reconstruction(
            volume.astype(np.complex64),
            support,
            None if voxel is None else (float(voxel[0]), float(voxel[1]), float(voxel[2])),
            str(image.attrs.get("frame", "laboratory")),
            [field for field in found_fields if field is not None],
            {name: _plain(value) for name, value in known if name != "NX_class"},
            _command(file),
        )
    _check_shapes(found, path)
    return found


def write_vti(path: _Path, reconstruction: Reconstruction) -> None:
    """Write amplitude, phase, support and all fields as point data of VTK image data (XML), for ParaView.

    Coordinates are in nm with the origin in the centre of the object, index n // 2; in voxels if their size is unknown.
    The phase is 0 outside the support. Arrays are compressed and written as text, so that the file is valid XML.

    Raises
    ------
    InputError
        Support or fields have another shape than the object.
    """
    _check_shapes(reconstruction)
    arrays = {
        "amplitude": np.abs(reconstruction.volume),
        "phase [rad]": np.where(reconstruction.support, np.angle(reconstruction.volume), 0),
        "support": reconstruction.support.astype(np.uint8),
        **{name if unit == "1" else f"{name} [{unit}]": values for name, unit, values in reconstruction.fields},
    }
    # In VTK, x varies fastest, like the last axis of (z, y, x).
    sides = reconstruction.volume.shape[::-1]
    spacing = (1.0, 1.0, 1.0) if reconstruction.voxel_nm is None else reconstruction.voxel_nm[::-1]
    origin = [-(n // 2) * step for n, step in zip(sides, spacing, strict=True)]
    extent = " ".join(f"0 {n - 1}" for n in sides)
    with atomic_path(path) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        file.write(
            '<?xml version="1.0"?>\n<VTKFile type="ImageData" version="1.0" byte_order="LittleEndian" '
            'header_type="UInt64" compressor="vtkZLibDataCompressor">\n'
            f'<ImageData WholeExtent="{extent}" Origin="{_numbers(origin)}" Spacing="{_numbers(spacing)}">\n'
            f'<Piece Extent="{extent}">\n<PointData Scalars="amplitude">\n'
        )
        for name, values in arrays.items():
            kept = values if values.dtype == np.uint8 else values.astype(np.float32)
            shown = quoteattr(name).encode("ascii", "xmlcharrefreplace").decode()
            file.write(f'<DataArray type="{_VTK_TYPES[kept.dtype]}" Name={shown} format="binary">\n')
            file.write(_compressed(kept.astype(kept.dtype.newbyteorder("<")).tobytes()) + "\n</DataArray>\n")
        file.write("</PointData>\n</Piece>\n</ImageData>\n</VTKFile>\n")


def write_page(path: _Path, html: str) -> None:
    """Write an HTML page, such as that of `cathodeflow.bcdi.surface`."""
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8", newline="\n")


def _group(parent: h5py.Group, name: str, nexus_class: str, **attributes: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nexus_class, **attributes})
    return group


def _dataset(group: h5py.Group, name: str, values: NDArray[Any]) -> h5py.Dataset:
    return new_dataset(group, name, values, shuffle=True, compression="gzip")


def _field(file: h5py.File, location: str, shape: tuple[int, ...]) -> tuple[str, str, NDArray[np.float32]] | None:
    data = find_node(file, f"{location}/data")
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "iuf" or data.shape != shape:
        return None
    name = _text(file, f"{location}/title") or f"/{location}"
    return name, str(data.attrs.get("units", "1")), read_array(file, f"{location}/data").astype(np.float32)


def _command(file: h5py.File) -> dict[str, Any]:
    text = _text(file, f"{_IMAGE}/process_1/command")
    if text is None:
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    # Other programs write their command line here.
    return content if isinstance(content, dict) else {"command": text}


def _text(file: h5py.File, path: str) -> str | None:
    node = find_node(file, path)
    if not isinstance(node, h5py.Dataset) or node.ndim != 0:
        return None
    require_plain(node, f"{file.filename}::{path}")
    return str(node.asstr()[()])


def _last(name: str) -> tuple[int, str]:
    number = name.rpartition("_")[2]
    return int(number) if number.isdigit() else 0, name


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _check_shapes(reconstruction: Reconstruction, path: _Path = "reconstruction") -> None:
    for name, values in (
        ("support", reconstruction.support),
        *((name, values) for name, _, values in reconstruction.fields),
    ):
        if values.shape != reconstruction.volume.shape:
            raise InputError(
                path, f"{name} of shape {values.shape}", f"the shape of the object, {reconstruction.volume.shape}"
            )


def _numbers(values: Sequence[float]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _compressed(data: bytes) -> str:
    """Compress block by block, and encode header and blocks separately, as VTK requires."""
    blocks = [zlib.compress(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK)]
    header = [len(blocks), _BLOCK, len(data) % _BLOCK, *map(len, blocks)]
    parts = struct.pack(f"<{len(header)}Q", *header), b"".join(blocks)
    return "".join(base64.b64encode(part).decode("ascii") for part in parts)
