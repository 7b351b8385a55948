"""Files and names that were made to do harm: nothing of them is run, followed or believed."""

import json
import os
import pickle
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import torch
import zarr
from PIL import Image

from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.bragg.options import Scan
from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.io.models import load_checkpoint, load_model, save_model
from cathodeflow.io.patches import read_patches
from cathodeflow.io.phasing import read_pattern
from cathodeflow.io.reconstructions import read_cxi
from cathodeflow.io.text import read_yaml
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.samples import read_samples
from cathodeflow.sem.model import load_network

from ..conftest import ROOT, Project
from .conftest import raw, tally

STACK = np.arange(2 * 12 * 10, dtype=np.uint16).reshape(2, 12, 10)


class Harm:
    """Makes a file named `harmed` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def frames(path: Path) -> None:
    list(read_frames(open_series(str(path))))


def pickled_npy(path: Path, harm: Harm) -> None:
    np.save(path, np.array([harm], dtype=object), allow_pickle=True)


def pickled_npz(path: Path, harm: Harm) -> None:
    np.savez(path, shape=np.array([4, 4]), nframes=1, dtype="u2", **{"0_row": np.array([harm], dtype=object)},
             **{"0_col": np.zeros(1, int), "0_data": np.zeros(1, int)})  # fmt: skip


def pickled_members(path: Path, harm: Harm) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shape.npy", pickle.dumps(harm))
        archive.writestr("nframes.npy", pickle.dumps(harm))
        archive.writestr("dtype.npy", pickle.dumps(harm))


def pickled_weights(path: Path, harm: Harm) -> None:
    torch.save({"a": torch.ones(2), "b": harm}, path)


def legacy_weights(path: Path, harm: Harm) -> None:
    torch.save({"a": torch.ones(2), "b": harm}, path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, harm: Harm) -> None:
    path.write_bytes(pickle.dumps(harm))


def pickled_zarr(where: str) -> Callable[[Path, Harm], None]:
    def make(path: Path, harm: Harm) -> None:
        (path / "0").mkdir(parents=True)
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        about = {"zarr_format": 2, "shape": [4], "chunks": [4], "fill_value": None, "order": "C", "compressor": None}
        about |= {"dtype": "|O" if where == "object" else "<f8", "filters": None}
        about |= {"compressor": {"id": "pickle"}} if where == "compressor" else {"filters": [{"id": "pickle"}]}
        (path / "0" / ".zarray").write_text(json.dumps(about))
        (path / "0" / "0").write_bytes(pickle.dumps(harm))

    return make


PICKLES: dict[str, tuple[Callable[[Path, Harm], None], str, Callable[[Path], object]]] = {
    "npy": (pickled_npy, "a.npy", frames),
    "npz": (pickled_npz, "a.npz", frames),
    "npz whose members are pickles": (pickled_members, "a.npz", frames),
    "weights": (pickled_weights, "a.pth", load_model),
    "weights of old torch": (legacy_weights, "a.pth", load_model),
    "a pickle as weights": (bare_pickle, "a.pt", load_model),
    "a pickle as safetensors": (bare_pickle, "a.safetensors", load_model),
    "a pickle as checkpoint": (pickled_weights, "a.ckpt", load_checkpoint),
    "a pickle as FIB-SEM networks": (pickled_weights, "a.pt", load_bundle),
    "a pickle as SEM network": (pickled_weights, "a.pt", load_network),
    "a pickle as frames": (bare_pickle, "a.edf", frames),
    "a pickle as HDF5": (bare_pickle, "a.h5", frames),
    "objects in Zarr": (pickled_zarr("object"), "a.zarr", read_volume),
    "a pickle as filter of Zarr": (pickled_zarr("filter"), "a.zarr", read_volume),
    "a pickle as compressor of Zarr": (pickled_zarr("compressor"), "a.zarr", read_volume),
    "YAML that calls": (
        lambda path, harm: path.write_text(f"a: !!python/object/apply:os.mkdir ['{harm.path}']") and None,
        "a.yaml",
        read_yaml,
    ),
}


@pytest.mark.parametrize("case", PICKLES)
def test_nothing_is_unpickled(tmp_path: Path, case: str) -> None:
    make, name, read = PICKLES[case]
    with tally("a pickle in data or weights"):
        make(tmp_path / name, Harm(tmp_path / "harmed"))
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
        assert not (tmp_path / "harmed").exists()


def secret(folder: Path) -> Path:
    """Write a file outside the folder that hostile ones are in."""
    with h5py.File(folder / "secret.h5", "w") as file:
        for name in ("frames", "data"):
            file[name] = STACK
    (folder / "secret.txt").write_bytes(STACK.tobytes())
    return folder / "secret.h5"


def linked(path: Path, target: str) -> None:
    with h5py.File(path, "w") as file:
        for name in ("frames", "patches", "entry", "entry_1", "data"):
            file[name] = h5py.ExternalLink(target, "/frames")


def linked_twice(path: Path, target: str) -> None:
    """Make a link to a file beside, whose link leads away."""
    with h5py.File(path.with_name("beside.h5"), "w") as file:
        file["data"] = h5py.ExternalLink(target, "/frames")
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("beside.h5", "/data")


def soft_and_external(path: Path, target: str) -> None:
    with h5py.File(path, "w") as file:
        file["away"] = h5py.ExternalLink(target, "/")
        file["data"] = h5py.SoftLink("/away/frames")


def virtual(path: Path, target: str) -> None:
    layout = h5py.VirtualLayout(STACK.shape, STACK.dtype)
    layout[...] = h5py.VirtualSource(target, "frames", shape=STACK.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("data", layout)


def raw_bytes(path: Path, target: str) -> None:
    with h5py.File(path, "w") as file:
        stored = [(target.replace(".h5", ".txt"), 0, STACK.nbytes)]
        file.create_dataset("data", STACK.shape, STACK.dtype, external=stored)


@pytest.mark.parametrize("make", [linked, linked_twice, soft_and_external, virtual, raw_bytes])
@pytest.mark.parametrize("absolute", [True, False])
def test_hdf5_reads_no_file_outside_its_folder(
    tmp_path: Path, make: Callable[[Path, str], None], absolute: bool
) -> None:
    target = secret(tmp_path)
    (tmp_path / "given").mkdir()
    with tally("HDF5 that names files outside its folder"):
        make(tmp_path / "given/a.h5", str(target) if absolute else "../secret.h5")
        with pytest.raises(InputError, match=r"secret.*outside its folder"):
            list(read_frames(open_series(f"{tmp_path}/given/a.h5::/data")))


@pytest.mark.parametrize("read", [read_patches, read_pattern, read_cxi, read_frames_file])
def test_own_formats_follow_no_links_away(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "given").mkdir()
    with tally("HDF5 that names files outside its folder"):
        linked(tmp_path / "given/a.h5", str(secret(tmp_path)))
        with pytest.raises(InputError, match="outside its folder"):
            found = read(tmp_path / "given/a.h5")
            with found:  # type: ignore[attr-defined]
                pass


def test_links_beside_a_master_file_are_followed(tmp_path: Path) -> None:
    secret(tmp_path)
    linked(tmp_path / "a.h5", "secret.h5")
    found = list(read_frames(open_series(f"{tmp_path}/a.h5::/data")))
    assert np.array_equal([frame for _, frame in found], STACK)


def test_edf_names_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    secret(tmp_path)
    header = (
        "{\nHeaderID = EH:000001:000000:000000 ;\nByteOrder = LowByteFirst ;\nDataType = UnsignedShort ;\nDim_1 = 10 ;\n"
        "Dim_2 = 12 ;\nSize = 240 ;\nEDF_BinaryFileName = ../secret.txt ;\nEDF_BinaryFilePosition = 0 ;\n"
        "EDF_BinaryFileSize = 240 ;\n"
    )
    with tally("EDF that names a file outside its folder"):
        (tmp_path / "given/a.edf").write_text(header.ljust(1021) + "}\n")
        with pytest.raises(InputError):
            frames(tmp_path / "given/a.edf")


def test_a_store_leads_to_no_other(tmp_path: Path) -> None:
    with tally("a Zarr store whose metadata name a path outside"):
        zarr.create_array(str(tmp_path / "secret.zarr"), data=STACK)
        group = zarr.create_group(str(tmp_path / "a.zarr"))
        group.attrs["ome"] = {"multiscales": [{"datasets": [{"path": "../secret.zarr"}]}]}
        for read in (read_volume, read_volume_info):
            with pytest.raises(InputError, match=r"a\.zarr"):
                read(tmp_path / "a.zarr")


def huge_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8))
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for code in (256, 257):  # width and length
            tag = tiff.pages[0].tags[code]
            struct.pack_into("<HHII", content, tag.offset, code, 4, 1, 200_000)
    path.write_bytes(bytes(content))


def huge_png(path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, 16, 200_000, 200_000)
    path.write_bytes(bytes(content))


def huge_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (3, 200_000, 200_000), "u2", chunks=(1, 1000, 1000))


def huge_chunk(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("frames", (60_000, 1024, 1024), "u1", chunks=(3000, 1024, 1024))


def missing_filter(path: Path) -> None:
    with h5py.File(path, "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 12, 10))
        properties.set_filter(30_000, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(STACK.shape)
        h5py.h5d.create(file.id, b"frames", h5py.h5t.NATIVE_UINT16, space, properties).write(
            h5py.h5s.ALL, h5py.h5s.ALL, STACK
        )


def huge_cache(path: Path) -> None:
    np.savez(path, shape=np.array([200_000, 200_000]), nframes=10**12, dtype="u2")


def huge_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<u2", "fortran_order": False, "shape": (9, 200_000, 200_000)}
        )


def huge_store(path: Path) -> None:
    zarr.create_array(str(path), shape=(2**18, 2**18), chunks=(2**18, 2**18), dtype="u2")


def many_chunks(path: Path) -> None:
    zarr.create_array(str(path), shape=(4, 24_000_000, 20), chunks=(2, 12, 20), dtype="u2")


def chunks_of_nothing(path: Path) -> None:
    zarr.create_array(str(path), shape=(4, 24, 20), chunks=(2, 12, 20), dtype="u2")
    about = json.loads((path / "zarr.json").read_text())
    about["chunk_grid"]["configuration"]["chunk_shape"] = [0, 12, 20]
    (path / "zarr.json").write_text(json.dumps(about))


def expanded_weights(path: Path) -> None:
    state = BraggNN(11, (16, 8, 4, 2)).state_dict()
    torch.save(state | {"dense_layers.0.weight": torch.zeros(1, 1).expand(16, 32_032_008)}, path)


def wide_layers(path: Path) -> None:
    """Two layers of few stored values each, between which another network would have 640 GB."""
    state = BraggNN(7, (16, 8, 4, 2)).state_dict()
    state |= {f"dense_layers.{k}.bias": torch.zeros(400_000) for k in (0, 2)}
    torch.save(state | {f"dense_layers.{k}.weight": torch.zeros(400_000, 8 if k == 0 else 1) for k in (0, 2)}, path)


def bragg_network(path: Path) -> object:
    return from_weights(load_model(path)[0], patch_size=None, where=str(path))


def huge_network(path: Path) -> None:
    kinds = {
        "unet": [
            "UNet",
            {
                "n_classes": 3,
                "context": 1,
                "widths": [10**6] * 3,
                "dropout": 0.0,
                "dropout_where": "blocks",
                "dropout_kind": "element",
            },
        ]
    }
    save_model(path, {"unet.a": torch.ones(1)}, {"networks": kinds})


def alias_bomb(path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 12)]
    path.write_text("\n".join(lines))


HUGE: dict[str, tuple[Callable[[Path], None], str, Callable[[Path], object], str]] = {
    "a TIFF frame of 200,000 x 200,000": (huge_tiff, "a.tif", frames, "200000|truncated"),
    "a TIFF micrograph of 200,000 x 200,000": (huge_tiff, "a.tif", lambda p: read_micrograph(str(p)), "200000"),
    "a PNG of 200,000 x 200,000": (huge_png, "a.png", lambda p: read_micrograph(str(p)), "200000"),
    "HDF5 frames of 200,000 x 200,000": (huge_hdf5, "a.h5", frames, "200000"),
    "an own file of such frames": (huge_hdf5, "a.h5", lambda p: read_frames_file(p).__enter__(), "200000"),
    "HDF5 chunks of 3 GB": (huge_chunk, "a.h5", frames, "chunks of"),
    "an HDF5 filter that is not there": (missing_filter, "a.h5", frames, "filter 30000"),
    "a frame cache of 10^12 frames": (huge_cache, "a.npz", frames, "no 0_"),
    "an npy of such frames": (huge_npy, "a.npy", frames, "a.npy"),
    "a Zarr chunk of 128 GB": (huge_store, "a.zarr", read_volume, "262144"),
    "Zarr chunks of a shape with millions of them": (many_chunks, "a.zarr", read_volume, "4000000 files"),
    "a Zarr chunk of no values": (chunks_of_nothing, "a.zarr", read_volume, "sides of at least 1"),
    "weights of one stored value": (expanded_weights, "a.pt", bragg_network, "4 of 2050048512 bytes"),
    "layers that together need 640 GB": (wide_layers, "a.pt", bragg_network, "dense_layers.2.weight"),
    "a network of 10^18 weights": (huge_network, "a.pt", load_bundle, "unet"),
    "YAML of 9^11 values": (alias_bomb, "a.yaml", read_yaml, "aliases"),
}


@pytest.mark.parametrize("case", HUGE)
def test_what_is_too_large_is_refused_before_memory_is_taken(tmp_path: Path, case: str) -> None:
    make, name, read, found = HUGE[case]
    with tally("a header that promises too much, or a filter that is not there"):
        make(tmp_path / name)
        before = peak_memory()
        with pytest.raises(InputError, match=found):
            read(tmp_path / name)
        assert peak_memory() - before < 100


def peak_memory() -> float:
    """Return the most memory that this process has taken [MB]."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize(
    "name", ["..", "../up", "a/b", "/etc", "a b", "a;b", "$(x)", "`x`", "a'b", "-rf", ".hidden", "ä", "a" * 101, "a\\b", "*", "{scan}"]
)  # fmt: skip
def test_names_of_samples_are_plain(tmp_path: Path, name: str) -> None:
    with tally("a sample name that is a path or a command"):
        (tmp_path / "s.tsv").write_text(f"sample\trole\tframes\n{name}\ttrain\tx.tif\n")
        with pytest.raises(InputError, match=r"s\.tsv line 2: sample: found"):
            read_samples(str(tmp_path / "s.tsv"), Scan)


def test_names_of_raw_files_are_no_commands(tmp_path: Path) -> None:
    """Files and folders with all that a shell, a pattern or Snakemake takes for its own are names like any others.

    Braces alone, which Snakemake would fill in, are refused in a sheet.
    """
    folder = tmp_path / 'it\'s $(touch harmed) & "so; on" {scan} ü 測'
    folder.mkdir()
    with tally("raw files named like commands"):
        raw(folder)
        odd = "raw/`touch harmed` $HOME; 'x' \"y\" & ü" + "n" * 100
        (folder / odd).mkdir()
        for path in (folder / "raw/only").glob("frame_*.tif"):
            path.rename(folder / odd / path.name)
        cells = ["only", "train", odd, "raw/only/dark.tif", "raw/only/mask.tif"]
        (folder / "scans.tsv").write_text("sample\trole\tframes\tdark\tmask\n" + "\t".join(cells) + "\n")
        Project(folder, ROOT).snakemake("results/bragg/only/candidates.parquet")
        assert not list(folder.rglob("harmed")) and not (ROOT / "harmed").exists()
        (folder / "scans.tsv").write_text("sample\trole\tframes\nonly\ttrain\traw/{z}\n")
        refused = Project(folder, ROOT).snakemake("-n", check=False)
        assert refused.returncode == 1 and "scans.tsv: scan 'only', frames: found raw/{z}" in refused.stderr


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a\nb.tif").write_bytes(b"x")
    with tally("raw files named like commands"), pytest.raises(InputError, match="control characters"):
        open_series(str(tmp_path / "raw"))


def test_rules_quote_what_people_name(tmp_path: Path) -> None:
    """No rule puts a path of the user's into a command line without quotes."""
    plain = subprocess.run(
        ["grep", "-rnE", r"\{(input\.(raw|weights|initial|corrections)|params\.(source|images|labels|frames|uri))\}",
         str(ROOT / "workflow")], capture_output=True, text=True,
    )  # fmt: skip
    assert plain.stdout == ""
