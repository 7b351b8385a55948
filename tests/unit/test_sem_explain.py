import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cathodeflow.sem.backbones import Backbone
from cathodeflow.sem.gradcam import activation_maps, choose_crops, choose_originals, enlarged, whole_map
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.tiles import Tiles, cut_tiles
from cathodeflow.sem.usable_area import UsableArea

METHODS = ["gradcam", "gradcam++"]


class Grey(nn.Module):
    """Feature maps of a brightness above and below the middle, in cells of 4 pixels."""

    def forward(self, x):
        return nn.functional.avg_pool2d(torch.relu(torch.cat([x - 0.5, 0.5 - x], 1)), 4)


def network():
    """The second class is that of bright places, the first that of dark ones."""
    options = Train(backbone="grey", dropout=0.5, normalization="none")
    model = SemNetwork(Backbone(Grey(), 2, 0.5, 0.2), ["333", "622"], options)
    with torch.no_grad():
        model.heads[0].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        model.heads[0].bias.zero_()
    return model


@pytest.mark.parametrize("method", METHODS)
def test_a_network_that_decides_by_one_corner_has_its_maps_there(method):
    crops = np.full((4, 32, 32), 128, np.uint8)
    corners = [(0, 0), (0, 24), (24, 0), (24, 24)]
    for crop, (row, col) in zip(crops, corners, strict=True):
        crop[row : row + 8, col : col + 8] = 250
        crop[12:20, 12:20] = 5
    model = network()
    maps = activation_maps(model, crops, [1, 1, 1, 1], method=method, device="cpu")
    assert maps.shape == (4, 8, 8)
    for one, (row, col) in zip(enlarged(maps, (32, 32)), corners, strict=True):
        place = np.s_[row : row + 8, col : col + 8]
        assert one[place].mean() > 0.7 * one.max() > 0 and one.min() >= 0
        assert one[place].sum() > 0.7 * one.sum() and one[10:22, 10:22].max() < 0.01 * one.max()
    dark = enlarged(activation_maps(model, crops, [0, 0, 0, 0], method=method, device="cpu"), (32, 32))
    assert np.unravel_index(dark[0].argmax(), (32, 32)) in [(r, c) for r in range(12, 20) for c in range(12, 20)]
    with torch.no_grad():
        batch = torch.from_numpy(crops[:1, None]).float() / 255
        before = model(batch)[0, 1]
        row, col = np.unravel_index(maps[0].argmax(), (8, 8))
        batch[..., 4 * row : 4 * row + 4, 4 * col : 4 * col + 4] = 0.5
        # What the map shows is what the class's logit falls by.
        assert model(batch)[0, 1] < before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("heads", ["joint", "axes"])
def test_maps_are_the_published_formulas_written_out(method, heads):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(1, 5, 3, stride=4), nn.ReLU())
    options = Train(backbone="r", heads=heads, dropout=0.5, normalization="crop")
    model = SemNetwork(Backbone(backbone, 5, 0.5, 0.2), ["333", "622_cycled"], options)
    crops = np.random.default_rng(0).integers(0, 256, (3, 20, 20), dtype=np.uint8)
    found = activation_maps(model, crops, [0, 1, 1], method=method, device="cpu")
    for crop, target, one in zip(crops, [0, 1, 1], found, strict=True):
        with torch.no_grad():
            maps = model.maps(torch.from_numpy(crop[None, None]).float() / 255)[0].double().numpy()
        gradient = _numeric_gradient(model, maps, target)
        expected = np.zeros(maps.shape[1:])
        for plane, slope in zip(maps, gradient, strict=True):
            if method == "gradcam":
                weight = slope.mean()
            else:
                alpha = slope**2 / (2 * slope**2 + (plane * slope**3).sum())
                weight = (alpha * np.maximum(slope, 0)).sum()
            expected += weight * plane
        np.testing.assert_allclose(one, np.maximum(expected, 0), rtol=1e-3, atol=1e-6)
    assert found.max() > 0


def _numeric_gradient(model, maps, target, step=0.1):
    """Slope of the logit at every place of every map, by finite differences."""
    out = np.zeros_like(maps)
    model = model.eval()
    for place in np.ndindex(maps.shape):
        values = []
        for sign in (1, -1):
            moved = maps.copy()
            moved[place] += sign * step
            with torch.no_grad():
                values.append(float(model.logits(model.pool(torch.from_numpy(moved[None]).float()))[0, target]))
        out[place] = (values[0] - values[1]) / (2 * step)
    return out


def test_a_map_over_the_whole_image_follows_the_image_and_shows_no_tiles():
    image = np.full((72, 110), 128, np.uint8)
    image[60:] = 0
    image[30:42, 70:86] = 250
    tiles = cut_tiles(image, pixels=32, side=32, overlap=0.5, margin=0, area=UsableArea(0, 60, 0, 110))
    found = whole_map(network(), tiles, 1, method="gradcam", device="cpu")
    assert found.shape == (60, 110)
    assert 30 <= np.unravel_index(found.argmax(), found.shape)[0] < 42
    inside = found[32:40, 72:84].mean()
    assert inside > 10 * found[:20].mean() and inside > 10 * found[:, :50].mean()
    # Tiles of the same grey have the same map everywhere, up to the edges.
    flat = Tiles(np.full((4, 32, 32), 200, np.uint8), np.array([[0, 0], [0, 18], [9, 0], [9, 18]]), (32, 32))
    even = whole_map(network(), flat, 1, method="gradcam", device="cpu")
    assert even.shape == (41, 50)
    np.testing.assert_allclose(even, even[0, 0], rtol=1e-5)


def predictions():
    rng = np.random.default_rng(0)
    label = np.repeat(["333", "622", "811"], 40)
    table = pd.DataFrame({"crop": np.arange(120), "name": [f"{n // 8:02d}" for n in range(120)], "label": label})
    table["correct"] = rng.random(120) < 0.8
    table.loc[table["label"] == "811", "correct"] = True
    return table


def test_cases_are_of_every_class_and_of_different_originals():
    table = predictions()
    chosen = choose_crops(table, per_class=3, rng=np.random.default_rng(1))
    counts = chosen.groupby(["label", "correct"]).size().to_dict()
    assert counts == {("333", True): 3, ("333", False): 3, ("622", True): 3, ("622", False): 3, ("811", True): 3}
    assert (chosen.groupby(["label", "correct"])["name"].nunique() == 3).all()
    assert chosen["label"].is_monotonic_increasing and chosen["correct"][:3].all() and not chosen["correct"][3:6].any()
    pd.testing.assert_frame_equal(chosen, choose_crops(table, per_class=3, rng=np.random.default_rng(1)))
    assert not chosen.equals(choose_crops(table, per_class=3, rng=np.random.default_rng(2)))


def test_wrong_originals_come_first_and_then_every_class():
    table = pd.DataFrame({"name": list("abcdefgh"), "label": ["x", "x", "x", "y", "y", "z", "z", "z"]})
    table["correct"] = [True, True, False, True, True, True, True, False]
    chosen = choose_originals(table, whole=5, rng=np.random.default_rng(0))
    assert set(chosen["name"][:2]) == {"c", "h"} and set(chosen["label"][2:]) == {"x", "y", "z"}
    assert len(choose_originals(table, whole=50, rng=np.random.default_rng(0))) == 8
