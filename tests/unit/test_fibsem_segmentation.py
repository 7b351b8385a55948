"""Phases of new slices: a few at a time as of all at once; stores written slice by slice."""

import itertools

import dask.array as da
import numpy as np
import pytest
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.idk import PixelNetwork, idk_probability
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.methods import all_methods
from cathodeflow.fibsem.neighbours import neighbours, neighbours_of
from cathodeflow.fibsem.options import Predict
from cathodeflow.fibsem.segmentation import segment
from cathodeflow.io.streams import NewStore, write_together
from cathodeflow.io.volumes import read_volume, read_volume_info
from tests.unit.test_fibsem_local import lcgar
from tests.unit.test_fibsem_unet import predict_slices, unet

OPTIONS = Predict(device="cpu")
METHODS = {one.name: one for one in all_methods({"net": [1.5, 1.0, 0.5]}, {"both": "net"})}


def bundle(context: int, padding: str = "zeros"):
    network = initialised(lambda: unet(context=context, widths=(4, 8), dropout=0.3), 0)
    network.set_normalization(100.0, 30.0)
    local = initialised(lambda: lcgar(context=context, padding=padding), 1).eval()
    local.set_grey(20.0, 180.0)
    networks = {"net": network, "both-local": local}
    for name, outputs in (("idk", 1), ("mlp", 3)):
        networks[f"both-{name}"] = initialised(lambda outputs=outputs: PixelNetwork(4, outputs, hidden=(64, 64)), 2)
    about = {"class_weights": {"net": [1.5, 1.0, 0.5]}, "passes": {"net": 4}, "flips": {"net": False}, "seed": {"net": 3},
             "threshold": {}, "levelled": False, "grey": "uint8"}  # fmt: skip
    around = neighbours(7, context)
    logits, doubt = predict_slices(network, torch.from_numpy(volume())[around], passes=4, seed=3)
    # So that the network does not know about half of the pixels.
    about["threshold"]["both"] = float(idk_probability(networks["both-idk"], logits, doubt).median())
    return networks, about


def volume(n: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(20, 180, (n, 24, 20), np.uint8)


@pytest.mark.parametrize("context", [1, 3, 5])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_few_at_a_time_is_as_all_at_once(context, name):
    networks, about = bundle(context)
    grey = volume()
    whole = list(segment(grey, METHODS[name], networks, about, OPTIONS, together=10))
    assert len(whole) == 1
    for together in (1, 3):
        parts = list(
            segment(da.from_array(grey, chunks=(2, 24, 20)), METHODS[name], networks, about, OPTIONS, together=together)
        )
        assert [len(one.phases.labels) for one in parts] == [min(together, 7 - k) for k in range(0, 7, together)]
        likely = torch.cat([one.phases.probabilities for one in parts])
        assert torch.allclose(likely, whole[0].phases.probabilities, atol=5e-3)
        if name == "both":
            assert torch.equal(torch.cat([one.idk for one in parts]), whole[0].idk)
            assert 0.01 < whole[0].idk.float().mean() < 0.99


def test_only_a_few_slices_are_read_at_a_time():
    networks, about = bundle(3)
    read = []

    class Slices:
        shape, dtype = (40, 24, 20), np.uint8

        def __getitem__(self, wanted):
            read.append(len(range(*wanted.indices(40))) if isinstance(wanted, slice) else 1)
            return volume(40)[wanted]

    for _ in segment(Slices(), METHODS["net"], networks, about, OPTIONS, together=4):
        pass
    # Single slices for the comparison of the intensities, then four at a time with their neighbours.
    assert len([count for count in read if count > 1]) == 10 and max(read) == 6 and len(read) < 40


def test_grey_of_another_scale_gives_the_same_phases_when_matched():
    networks, about = bundle(3)
    grey = volume()
    networks["net"].set_normalization(float(grey.mean()), float(grey.std()))
    own = [one.phases.labels for one in segment(grey, METHODS["both"], networks, about, OPTIONS)]
    other = segment(
        grey.astype(np.uint16) * 200 + 1000,
        METHODS["both"],
        networks,
        about,
        OPTIONS.model_copy(update={"match_intensity": "always"}),
    )
    same = torch.cat([one.phases.labels for one in other]) == torch.cat(own)
    assert same.float().mean() > 0.99
    with pytest.raises(InputError, match="in every pixel"):
        list(
            segment(
                np.full((3, 24, 20), 7),
                METHODS["net"],
                networks,
                about,
                OPTIONS.model_copy(update={"match_intensity": "always"}),
            )
        )


def test_windows_that_see_beyond_their_edges_are_computed_by_the_slice(tmp_path):
    networks, about = bundle(1, "image")
    save_bundle(tmp_path / "model.pt", networks, about)
    read, told = load_bundle(tmp_path / "model.pt")
    first, again = (next(segment(volume(), METHODS["both"], one, about, OPTIONS)) for one in (networks, read))
    assert torch.equal(first.phases.labels, again.phases.labels) and told["threshold"] == about["threshold"]


@pytest.mark.parametrize("context", [1, 3, 5])
def test_neighbours_of_a_whole_stack_are_those_of_its_slices(context):
    assert (neighbours_of(np.arange(6), np.zeros(6, int), context) == neighbours(6, context).numpy()).all()


def test_neighbours_are_of_the_same_copy_and_gaps_are_filled():
    slices, copies = np.array([2, 2, 3, 3, 5, 5]), np.array([0, 1, 0, 1, 0, 1])
    assert neighbours_of(slices, copies, 3).tolist() == [
        [0, 0, 2],
        [1, 1, 3],
        [0, 2, 2],
        [1, 3, 3],
        [4, 4, 4],
        [5, 5, 5],
    ]
    # The nearest slice on the same side stands for one that is missing.
    assert neighbours_of(slices, copies, 5)[::2].tolist() == [[0, 0, 0, 2, 2], [0, 0, 2, 2, 4], [2, 4, 4, 4, 4]]


@pytest.mark.parametrize("sizes", [[19], [1] * 19, [3, 9, 7], [16, 3], [8, 8, 3]])
def test_stores_hold_what_came_in_blocks(tmp_path, sizes):
    grey = np.random.default_rng(0).integers(0, 255, (19, 30, 140), np.uint8)
    layered = np.random.default_rng(1).random((2, 19, 30, 140)).astype(np.float32)
    starts = np.cumsum([0, *sizes])
    blocks = [(grey[a:b], layered[:, a:b]) for a, b in itertools.pairwise(starts)]
    stores = [
        NewStore(tmp_path / "grey.zarr", grey.shape, np.uint8, {"scale": (2, 1, 1), "unit": "nm"}),
        NewStore(tmp_path / "layered.zarr", layered.shape, np.float16, {"axes": ("c", "z", "y", "x")}),
    ]
    write_together(stores, blocks)
    assert (read_volume(tmp_path / "grey.zarr", verify=True).compute() == grey).all()
    np.testing.assert_allclose(read_volume(tmp_path / "layered.zarr", verify=True).compute(), layered, atol=1e-3)
    assert read_volume_info(tmp_path / "grey.zarr").scale == (2, 1, 1)


def test_no_store_appears_when_one_block_is_bad(tmp_path):
    def blocks():
        yield [np.zeros((9, 4, 4), np.uint8), np.zeros((9, 4, 4), np.uint8)]
        raise InputError("slice 9", "nothing", "an image")

    stores = [NewStore(tmp_path / name, (12, 4, 4), np.uint8, {}) for name in ("a.zarr", "b.zarr")]
    with pytest.raises(InputError):
        write_together(stores, blocks())
    assert not list(tmp_path.iterdir())


def test_levelled_slices_may_have_any_brightness_and_contrast():
    """Of a network trained on levelled slices, brightness and contrast of single slices change nothing."""
    networks, about = bundle(3)
    networks["net"].set_normalization(0.0, 1.0)
    networks["both-local"].set_grey(-2.0, 2.0)
    about["levelled"] = True
    grey = volume()
    changed = grey * np.linspace(0.3, 4, 7)[:, None, None] + np.arange(7)[:, None, None] * 50
    for name in ("net", "both"):
        found = [
            next(segment(one, METHODS[name], networks, about, OPTIONS, together=10)).phases.probabilities
            for one in (grey, changed)
        ]
        assert torch.allclose(*found, atol=1e-4)
    about["levelled"] = False
    apart = [
        next(segment(one, METHODS["net"], networks, about, OPTIONS)).phases.probabilities for one in (grey, changed)
    ]
    assert not torch.allclose(*apart, atol=1e-2)
