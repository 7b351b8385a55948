"""Good files of every kind that is read, small, and how each is read: what a fuzz test starts from."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fabio.cbfimage
import h5py
import hdf5plugin
import nibabel
import nrrd
import numpy as np
import tifffile
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from cathodeflow.bcdi.beamlines import read_beamline
from cathodeflow.bcdi.network import make_network, restored
from cathodeflow.bcdi.network_options import Train
from cathodeflow.bcdi.scan_geometry import recorded
from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.options import Scan
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.bragg.scattering import scattering
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.unet import UNet
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.image_lists import read_rows
from cathodeflow.io.micrographs import instrument_settings, micrograph_header, read_micrograph
from cathodeflow.io.models import load_checkpoint, load_model, save_checkpoint, save_model
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.io.patches import read_patches, write_patches
from cathodeflow.io.peaks import read_peaks, write_peaks
from cathodeflow.io.phasing import Pattern, Starts, read_pattern, read_starts, write_pattern, write_starts
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.io.reconstructions import Reconstruction, read_cxi, write_cxi
from cathodeflow.io.rocking_scans import read_scan
from cathodeflow.io.scan_logs import read_scan_log
from cathodeflow.io.series_conditions import read_conditions, series_conditions
from cathodeflow.io.simulated import write_nexus_series
from cathodeflow.io.slices import open_stack, read_stack
from cathodeflow.io.tables import read_csv, read_json, read_table, write_csv, write_json, write_table
from cathodeflow.io.text import read_yaml
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
from cathodeflow.record import write_record
from cathodeflow.record_files import read_records
from cathodeflow.samples import read_samples
from cathodeflow.tracking import next_attempt
from cathodeflow.verify import verify
from tests.faults.detector_files import GOOD, NOISE

RNG = np.random.default_rng(0)
STACK = RNG.poisson(40, (4, 24, 20)).astype(np.uint16)
GREY = RNG.integers(0, 255, (24, 32), np.uint8)
TABLE = {"name": np.array(["a", "b", "c"]), "row": np.arange(3), "value": np.array([0.5, np.nan, 2.0])}
SPEC = """#F example.spec
#E 1500000000
#O0 Energy  camdist  Delta  Gamma  Theta  Chi  Phi

#S 54 ascan  Theta -0.3 0.3 2 0.25
#P0 9.0 500.0 30.1 14.2 0.3 90.0 -2.1
#UIMDET tpx:
#UIMR5 0 256 0 256
#N 2
#L Theta  Seconds
-0.3 0.25
0.0 0.25
0.3 0.25
"""
SIDECAR = "[SemImageFile]\nInstructName=SU8000\nMagnification=500\nPixelSize=198.4\nDate=2019/09/02\nTime=13:09:57\n"


CONDITIONS = FrameConditions(np.linspace(0, 1, 4), np.full(4, 41.99))
PILATUS = "# Wavelength 0.5 A\n# Start_angle 3.5 deg.\n# Angle_increment 0.5 deg.\n"
PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 7.5e-05, "pixel2": 0.0001, "max_shape": [24, 20], "orientation": 2}
Distance: 0.65
Poni1: 0.08
Poni2: 0.11
Rot1: 0.02
Rot2: -0.13
Rot3: 0.7
Wavelength: 3e-11
"""
INSTRUMENT = {
    "beam": {"energy": 41.99, "vector": {"azimuth": 90.0, "polar_angle": 90.0}},
    "detectors": {
        "ff1": {
            "pixels": {"rows": 24, "columns": 20, "size": [0.1, 0.2]},
            "transform": {"tilt": [0.01, -0.02, 0.0], "translation": [5.0, 2.0, -670.0]},
        }
    },
}


class Seed(NamedTuple):
    """A good file and its reader.

    Attributes
    ----------
    name : str
        Of the file or folder; the part before a blank tells kinds of one suffix apart.
    make : callable
        Writes it at a path.
    read : callable
        Reads all of it from a path.
    exact : bool
        Whether the file has checksums throughout, so that what can still be read must be what was written.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    exact: bool = False


def frames(path: Path) -> list[np.ndarray]:
    return [frame for _, frame in read_frames(open_series(str(path)))]


def micrograph(path: Path) -> tuple[Any, ...]:
    header = micrograph_header(str(path))
    return header, instrument_settings(str(path)), read_micrograph(str(path))


def slices(path: Path) -> list[np.ndarray]:
    return list(read_stack(open_stack(str(path))))


def frames_h5(path: Path) -> tuple[Any, ...]:
    with read_frames_file(path) as file:
        conditions = file.omega, file.energy_kev
        return np.stack(list(file.frames)), file.mask, file.frame_number, file.binning, file.raw_shape, *conditions


def conditions_of_frames(path: Path) -> tuple[Any, ...]:
    return series_conditions(open_series(str(path)))


def scattered(path: Path) -> tuple[Any, ...]:
    return scattering(read_detector_geometry(path), [0.0, 9.0], [4.0, 5.0], row_err=[1.0, 2.0], col_err=[1.0, 2.0])


def _instrument(path: Path) -> None:
    def store(group: h5py.Group, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                store(group.create_group(name), value)
            else:
                group[name] = value

    with h5py.File(path, "w") as file:
        store(file.create_group("instrument"), INSTRUMENT)


def _nexus_geometry(path: Path) -> None:
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/detector")
        detector.attrs["NX_class"] = "NXdetector"
        values = {"x_pixel_size": (75e-6, "m"), "y_pixel_size": (75e-6, "m"), "distance": (0.3, "m")}
        for name, (value, unit) in {**values, "beam_center_x": (9.0, "px"), "beam_center_y": (8.0, "px")}.items():
            detector[name] = value
            detector[name].attrs["units"] = unit
        detector["arm"] = 30.0
        detector["arm"].attrs.update(transformation_type="rotation", vector=[0, 1, 0], units="deg", depends_on=".")
        detector["depends_on"] = "arm"


def _metaimage(path: Path) -> None:
    lines = ["NDims = 3", "BinaryData = True", "CompressedData = True", "ElementSpacing = 2 2 5", "DimSize = 20 24 4",
             "ElementType = MET_USHORT", "ElementDataFile = LOCAL"]  # fmt: skip
    path.write_bytes("\n".join(lines).encode() + b"\n" + zlib.compress(STACK.tobytes()))


def _amira(path: Path) -> None:
    head = "# AmiraMesh BINARY-LITTLE-ENDIAN 2.1\ndefine Lattice 20 24 4\nParameters { BoundingBox 0 19 0 23 0 3 }\n"
    path.write_bytes(head.encode() + b"Lattice { ushort Data } @1\n@1\n" + STACK.tobytes())


def _tagged(path: Path) -> None:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("exported_data", data=STACK[..., None], chunks=True, fletcher32=True)
        dataset.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})


def spec(path: Path) -> Any:
    return recorded(read_scan_log(path, 54), read_beamline("34-ID-C"))


def beside(path: Path) -> Any:
    """Read an image whose sidecar is the file."""
    Image.fromarray(GREY).save(path.with_suffix(""))
    return micrograph(path.with_suffix(""))


def network(path: Path) -> Any:
    return from_weights(load_model(path)[0], patch_size=None, where=str(path))


def volume(path: Path) -> tuple[Any, ...]:
    return np.asarray(read_volume(path)), read_volume_info(path)


def table(path: Path) -> Any:
    return {name: values.to_numpy() for name, values in read_table(path).items()}


def results(path: Path) -> Any:
    """Read what a folder of results with this file as a record says."""
    folder = path.parent / "results" / "bragg"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.json").write_bytes(path.read_bytes())
    attempt, found = next_attempt(str(path), f"sqlite:///{path}"), verify(str(folder.parent))
    return attempt, found.errors, found.damaged, read_records([str(path)])


def _record(path: Path) -> None:
    WRITTEN.clear()
    history = [{"epoch": 1, "loss": 0.5}]
    write_record(
        str(path), stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={"n": 5}, history=history
    )


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=STACK, chunks=(2, 12, 20), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["entry/angle"] = np.arange(4)
        file["link"] = h5py.SoftLink("/entry/data/data")


def _virtual(path: Path) -> None:
    with h5py.File(path.with_name("part.h5"), "w") as file:
        file["frames"] = STACK
    layout = h5py.VirtualLayout(STACK.shape, STACK.dtype)
    layout[...] = h5py.VirtualSource("part.h5", "frames", shape=STACK.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("entry/data", layout)


def _cache(path: Path) -> None:
    parts: dict[str, Any] = {"shape": np.array(STACK.shape[1:]), "nframes": len(STACK), "dtype": "uint16"}
    for number, frame in enumerate(STACK):
        row, col = np.nonzero(frame > 45)
        parts |= {f"{number}_row": row, f"{number}_col": col, f"{number}_data": frame[row, col]}
    np.savez_compressed(path, **parts)


def _patches(path: Path) -> None:
    columns = np.arange(3.0, dtype=np.float32), np.arange(3.0, dtype=np.float32), np.arange(3), np.arange(3)
    columns = (*columns, np.full((3, 2), 0.1, np.float32))
    part = TrainingPatches(RNG.random((3, 13, 13), np.float32), *columns)
    write_patches(path, [part], patch_size=11, max_shift=1, min_value=20.0)


def _starts(path: Path) -> None:
    objects = (RNG.random((2, 4, 5, 6)) + 1j).astype(np.complex64)
    numbers = np.ones((2, 3), np.float32)
    write_starts(path, Starts(objects, objects.real > 0.5, numbers, numbers[:, 0], numbers, (1, 1, 1)))


def _reconstruction(path: Path) -> None:
    found = (RNG.random((4, 5, 6)) + 1j).astype(np.complex64)
    field = [("strain", "1", found.real.astype(np.float32))]
    write_cxi(path, Reconstruction(found, found.real > 0.5, (1.0, 2.0, 3.0), fields=field, process={"seed": 1}))


def _seeds() -> list[Seed]:
    small = BraggNN(7, (4,), generator=torch.Generator().manual_seed(0)).state_dict()
    unet = {
        "unet": UNet(
            2,
            context=1,
            widths=(2, 3),
            dropout=0.0,
            dropout_where="blocks",
            dropout_kind="element",
            normalization="batch",
        )
    }
    phases = make_network(Train(architecture="candidates", widths=(4, 8), candidates=2))
    found = [
        Seed("zlib.tif", lambda p: tifffile.imwrite(p, STACK, photometric="minisblack", compression="zlib"), frames),
        Seed("plain.tif", lambda p: tifffile.imwrite(p, STACK[0]), frames),
        Seed("imagej.tif", lambda p: tifffile.imwrite(p, STACK, imagej=True, truncate=True), frames),
        Seed("big.tif", lambda p: tifffile.imwrite(p, STACK, photometric="minisblack", bigtiff=True, byteorder=">"), frames),
        Seed("tiled.tif", lambda p: tifffile.imwrite(p, GREY.repeat(2, 0), tile=(16, 16), compression="lzw"), frames),
        Seed("frame.png", lambda p: Image.fromarray(STACK[0]).save(p), frames),
        Seed("frame.jpg", lambda p: Image.fromarray(GREY).save(p), frames),
        Seed("frames.h5", _hdf5, frames),
        Seed("virtual.h5", _virtual, frames),
        Seed("nexus.nxs", lambda p: write_nexus_series(p, STACK, n_frames=4, shape=STACK.shape[1:]), lambda p: read_scan(str(p))),
        Seed("frames.npy", lambda p: np.save(p, STACK), frames),
        Seed("cache.npz", _cache, frames),
        Seed("frame.cbf", lambda p: fabio.cbfimage.CbfImage(STACK[0].astype(np.int32)).write(str(p)), frames),
        *(Seed(name, make, frames) for name, make in {**GOOD, **NOISE}.items()),
        Seed("grey.jpg", lambda p: Image.fromarray(GREY).convert("RGB").save(p), micrograph),
        Seed("grey.png", lambda p: Image.fromarray(GREY).save(p), micrograph),
        Seed("palette.png", lambda p: Image.fromarray(GREY).convert("P").save(p), micrograph),
        Seed("deep.png", lambda p: Image.fromarray(STACK[0]).save(p), micrograph),
        Seed("grey.bmp", lambda p: Image.fromarray(GREY).save(p), micrograph),
        Seed("colour.tif", lambda p: tifffile.imwrite(p, np.stack([GREY] * 3, -1), photometric="rgb", compression="lzw"), micrograph),
        Seed("described.tif", lambda p: tifffile.imwrite(p, GREY, description=SIDECAR, datetime=True), micrograph),
        Seed("image.png.txt", lambda p: p.write_text(SIDECAR), beside),
        Seed("slices.tif", lambda p: tifffile.imwrite(p, STACK, photometric="minisblack"), slices),
        Seed("hyperstack.tif", lambda p: tifffile.imwrite(p, STACK, imagej=True, metadata={"axes": "ZYX", "unit": "um"}), slices),
        Seed("slices.ome.tif", lambda p: tifffile.imwrite(p, STACK, ome=True, metadata={"axes": "ZYX"}), slices),
        Seed("slices.nii", lambda p: nibabel.save(nibabel.Nifti1Image(STACK.T, None), p), slices),
        Seed("slices.nrrd", lambda p: nrrd.write(str(p), STACK.T), slices),
        Seed("slices.mha", _metaimage, slices),
        Seed("slices.am", _amira, slices),
        Seed("tagged.h5", _tagged, slices),
        Seed("coloured.png", lambda p: Image.fromarray(GREY).convert("RGB").save(p), slices),
        Seed("scan.spec", lambda p: p.write_text(SPEC), spec),
        Seed("geometry.yaml", lambda p: p.write_text(yaml.safe_dump({"energy_kev": 9.0, "angles": [1, {"a": 2}]})), read_yaml),
        Seed("table.parquet", lambda p: write_table(p, TABLE), table, True),
        Seed("table.csv", lambda p: write_csv(p, TABLE), read_csv),
        Seed("content.json", lambda p: write_json(p, {"a": [1, 2.5, None], "b": {"c": "d"}}), read_json),
        Seed("record.json", _record, results),
        Seed("images.csv", lambda p: p.write_text("image,composition,state\na.jpg,622,cycled\nb.jpg,811,\n"), lambda p: read_rows(str(p))),
        Seed("scans.tsv", lambda p: p.write_text("sample\trole\tframes\na\ttrain\tx.h5\nb\tmeasure\ty.h5\n"), lambda p: read_samples(str(p), Scan)),
        Seed("weights.pth", lambda p: save_model(p, small, {"a": 1}), network, True),
        Seed("legacy.pth", lambda p: torch.save(small, p, _use_new_zipfile_serialization=False), network),
        Seed("weights.safetensors", lambda p: save_file(small, p), network),
        Seed("training.ckpt", lambda p: save_checkpoint(p, {"key": "k", "epoch": 3, "model": small}), load_checkpoint, True),
        Seed("bundle.pt", lambda p: save_bundle(p, unet, {"classes": ["a", "b"]}), load_bundle, True),
        Seed("phases.pt", lambda p: save_model(p, phases.state_dict(), {"architecture": phases.architecture}), lambda p: restored(*load_model(p), where=str(p)), True),
        Seed("own frames.h5", lambda p: write_frames(p, enumerate(STACK), shape=STACK.shape[1:], conditions=CONDITIONS), frames_h5, True),
        Seed("a.poni", lambda p: p.write_text(PONI), scattered),
        Seed("instrument.yml", lambda p: p.write_text(yaml.safe_dump(INSTRUMENT)), scattered),
        Seed("instrument.h5", _instrument, scattered),
        Seed("geometry.nxs", _nexus_geometry, scattered),
        Seed("angles.csv", lambda p: p.write_text("omega,energy_kev\n0,20\n0.25,20.5\n"), lambda p: read_conditions(str(p), 2)),
        Seed("angle.cbf", lambda p: fabio.cbfimage.CbfImage(STACK[0].astype(np.int32), {"_array_data.header_contents": PILATUS}).write(str(p)), conditions_of_frames),
        Seed("angle.tif", lambda p: tifffile.imwrite(p, STACK[0], description=PILATUS, metadata=None), conditions_of_frames),
        Seed("angle.edf", lambda p: fabio.edfimage.EdfImage(STACK[0], {"motor_mne": "omega phi", "motor_pos": "1 2"}).write(str(p)), conditions_of_frames),
        Seed("own peaks.h5", lambda p: write_peaks(p, *[np.arange(3)] * 5, columns={"x": np.ones(3)}, attributes={"b": 2}), lambda p: read_peaks(p, None), True),
        Seed("own patches.h5", _patches, read_patches, True),
        Seed("own prepared.h5", lambda p: write_pattern(p, Pattern(RNG.random((4, 5, 6), np.float32), np.ones((4, 5, 6), bool), (1, 2, 2))), read_pattern, True),
        Seed("own objects.h5", _starts, read_starts, True),
        Seed("own object.cxi", _reconstruction, read_cxi, True),
        Seed("volume.zarr", lambda p: write_volume(p, STACK, chunks=(2, 12, 20), shards=(2, 24, 20)), volume, True),
        Seed("foreign.zarr", _foreign, volume),
    ]  # fmt: skip
    return found


def _foreign(path: Path) -> None:
    write_volume(path, STACK, chunks=(2, 12, 20))
    os.remove(f"{path}.manifest.json")


SEEDS = _seeds()
TOKENS = [json.dumps(value).encode() for value in (None, 1e999, -1, 2**70, "\x00", [[]], {"": {}})] + [
    b"&a [*a]", b"'''", b'"', b"\t", b"\n", b"\r", b"\xff\xfe", b"\xef\xbb\xbf", b"%s", b"../../", b"#", b"nan", b"inf",
]  # fmt: skip
