import json
import os
import shutil
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import zarr

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.volumes import manifest_path, read_volume, read_volume_info, write_volume

VOLUME = np.random.default_rng(2).integers(1, 9, (20, 33, 17), dtype=np.uint8)


def write(path, volume=VOLUME, **options):
    write_volume(path, volume, **({"chunks": (8, 16, 16), "scale": (200, 20, 20), "unit": "nm"} | options))
    return path


def manifest_text(store):
    return Path(manifest_path(store)).read_text()


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "v.zarr")


def test_what_is_written_is_read_by_store_and_by_manifest(store):
    for path in (store, str(store) + "/", manifest_path(store)):
        volume = read_volume(path, verify=True)
        assert isinstance(volume, da.Array)
        assert volume.dtype == np.uint8
        np.testing.assert_array_equal(volume.compute(), VOLUME)


def test_any_zarr_reader_finds_the_array_and_its_ngff_metadata(store):
    group = zarr.open_group(str(store), mode="r")
    np.testing.assert_array_equal(group["0"][:], VOLUME)
    assert group.metadata.zarr_format == 3
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    (scales,) = ome["multiscales"]
    assert scales["axes"] == [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    (level,) = scales["datasets"]
    assert level == {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [200.0, 20.0, 20.0]}]}
    assert group["0"].metadata.dimension_names == ("z", "y", "x")


def test_axes_scale_and_attributes_come_back(tmp_path):
    logits = np.zeros((3, 4, 5), np.float32)
    write_volume(
        tmp_path / "l.zarr", logits, axes=("c", "y", "x"), scale=(1, 0.5, 0.5), unit="um", attributes={"k": [1]}
    )
    info = read_volume_info(tmp_path / "l.zarr")
    assert info == (("c", "y", "x"), (1.0, 0.5, 0.5), "micrometer", {"k": [1]})
    write_volume(tmp_path / "n.zarr", logits, axes=("image", "y", "x"))
    assert read_volume_info(tmp_path / "n.zarr") == (("image", "y", "x"), (1.0, 1.0, 1.0), None, {})


@pytest.mark.parametrize("blocks", [(5, 33, 17), (20, 7, 4), (3, 3, 3)])
def test_the_manifest_depends_on_data_and_layout_not_on_the_dask_blocks(store, blocks):
    before = manifest_text(store)
    write(store, da.from_array(VOLUME, chunks=blocks))
    assert manifest_text(store) == before


def test_the_manifest_tells_what_the_store_holds(store):
    manifest = json.loads(manifest_text(store))
    assert (manifest["shape"], manifest["dtype"], manifest["chunks"]) == ([20, 33, 17], "uint8", [8, 16, 16])
    assert len([name for name in manifest["files"] if name.startswith("0/c/")]) == 3 * 3 * 2
    changed = VOLUME.copy()
    changed[19, 32, 16] += 1
    write(store, changed)
    after = json.loads(manifest_text(store))
    assert after["digest"] != manifest["digest"]
    # One voxel changes the chunk that holds it, and no other.
    assert [name for name in after["files"] if after["files"][name] != manifest["files"][name]] == ["0/c/2/2/1"]


def test_shards_hold_many_chunks_in_one_file(tmp_path):
    store = write(tmp_path / "s.zarr", chunks=(4, 4, 4), shards=(12, 36, 20))
    assert sum(len(names) for _, _, names in os.walk(store / "0" / "c")) == 2
    np.testing.assert_array_equal(read_volume(store, verify=True).compute(), VOLUME)
    assert read_volume(store).chunksize == (12, 33, 17)


def test_by_default_small_chunks_go_into_few_files(tmp_path):
    write_volume(tmp_path / "b.zarr", da.ones((6, 64, 1100, 300), np.uint8, chunks=256), axes=("c", "z", "y", "x"))
    array = zarr.open_array(str(tmp_path / "b.zarr" / "0"), mode="r")
    assert array.chunks == (1, 64, 64, 64)
    assert sum(len(names) for _, _, names in os.walk(tmp_path / "b.zarr" / "0" / "c")) <= 64


def chunk(store):
    return store / "0" / "c" / "1" / "0" / "1"


def flip_a_byte(store):
    data = bytearray(chunk(store).read_bytes())
    data[len(data) // 2] ^= 1
    chunk(store).write_bytes(data)


def add_a_chunk(store):
    (store / "0" / "c" / "9").mkdir()
    shutil.copy(chunk(store), store / "0" / "c" / "9" / "0")


@pytest.mark.parametrize(
    ("damage", "name", "found", "quick"),
    [
        (flip_a_byte, "0/c/1/0/1", "sha256", False),
        (lambda store: chunk(store).unlink(), "0/c/1/0/1", "no such file", True),
        (lambda store: chunk(store).write_bytes(b""), "0/c/1/0/1", "sha256", True),
        (add_a_chunk, "0/c/9/0", "a file that is not in the manifest", True),
        (lambda store: (store / "zarr.json").write_text("{}"), "zarr.json", "sha256", False),
    ],
    ids=["flipped", "missing", "emptied", "added", "metadata"],
)
def test_damage_is_found_and_the_chunk_named(store, damage, name, found, quick):
    damage(store)
    for verify in (True, False) if quick else (True,):
        with pytest.raises(InputError) as caught:
            read_volume(store, verify=verify)
        assert caught.value.where == f"{store}/{name}"
        assert found in caught.value.found


def test_what_snakemake_puts_into_the_folder_is_no_damage(store):
    (Path(store) / ".snakemake_timestamp").touch()
    np.testing.assert_array_equal(read_volume(store, verify=True).compute(), VOLUME)


def test_all_damage_is_listed_at_once(store):
    chunk(store).unlink()
    add = store / "0" / "c" / "extra"
    add.write_bytes(b"")
    with pytest.raises(InputErrors) as caught:
        read_volume(store)
    assert [error.where.removeprefix(f"{store}/") for error in caught.value.errors] == ["0/c/1/0/1", "0/c/extra"]


def test_an_edited_manifest_is_refused(store):
    manifest = json.loads(manifest_text(store))
    manifest["files"]["0/c/1/0/1"] = "0" * 64
    Path(manifest_path(store)).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="an overall digest that does not match"):
        read_volume(store)


def test_without_a_manifest_a_store_opens_but_is_not_verified(store):
    os.remove(manifest_path(store))
    np.testing.assert_array_equal(read_volume(store).compute(), VOLUME)
    with pytest.raises(InputError, match=r"manifest\.json: found no such file"):
        read_volume(store, verify=True)


def test_what_is_no_store_is_one_line(tmp_path, store):
    for name, content in (("none.zarr", None), ("file.zarr", "text"), ("empty.zarr", {})):
        if content == {}:
            (tmp_path / name).mkdir()
        elif content:
            (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as caught:
            read_volume(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        assert "\n" not in str(caught.value)
    shutil.rmtree(store)
    with pytest.raises(InputError, match=r"v\.zarr: found no such store"):
        read_volume(manifest_path(store))


def test_nothing_is_left_behind_on_failure(tmp_path):
    def broken(block):
        raise InputError("slice 3", "text", "an image")

    volume = da.zeros((8, 8, 8), chunks=4, dtype=np.uint8).map_blocks(
        broken, dtype=np.uint8, meta=np.empty(0, np.uint8)
    )
    with pytest.raises(InputError, match="slice 3"):
        write_volume(tmp_path / "v.zarr", volume)
    with pytest.raises(ValueError, match="2 scale for an array of 3 axes"):
        write_volume(tmp_path / "v.zarr", VOLUME, scale=(1, 1))
    assert os.listdir(tmp_path) == []


def test_a_store_that_stands_survives_a_failure(store):
    before = manifest_text(store)

    def broken(block):
        raise InputError("slice 3", "text", "an image")

    with pytest.raises(InputError):
        write_volume(store, da.from_array(VOLUME, chunks=8).map_blocks(broken, dtype=np.uint8, meta=VOLUME[:0]))
    assert manifest_text(store) == before
    np.testing.assert_array_equal(read_volume(store, verify=True).compute(), VOLUME)
