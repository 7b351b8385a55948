import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.sem.backbones import Backbone
from cathodeflow.sem.calibration import apply_mean_temperature, apply_temperature
from cathodeflow.sem.image_predictions import predict_images, predict_tiles
from cathodeflow.sem.info_bar import find_info_bar
from cathodeflow.sem.model import SemNetwork
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.ood import feature_statistics, ood_score
from cathodeflow.sem.options import Predict
from cathodeflow.sem.tiles import cut_tiles, tile_places
from cathodeflow.sem.usable_area import UsableArea

CLASSES = ["333", "622", "811"]
CPU = Predict(device="cpu")


def grain(rng, size, rows=96, cols=128, bar=12):
    """Noise with grains of about `size` pixels above a black bar."""
    small = rng.normal(0, 1, (rows // size + 2, cols // size + 2))
    image = np.clip(128 + 40 * np.kron(small, np.ones((size, size)))[:rows, :cols], 1, 255)
    return np.concatenate([image, np.zeros((bar, cols))]).astype(np.uint8)


class Roughness(nn.Module):
    """Feature maps: grey itself, and how much it changes over 1, 2 and 4 pixels."""

    def forward(self, x):
        steps = [(x - x.roll(by, 3)).abs() for by in (1, 2, 4)]
        return nn.functional.avg_pool2d(torch.cat([x, *steps], 1), 4)


@pytest.fixture(scope="module")
def trained():
    """A network that classifies grains of 1, 2 and 4 pixels, with its metadata."""
    rng = np.random.default_rng(0)
    model = SemNetwork(
        Backbone(Roughness(), 4, 0.5, 0.2), CLASSES, Train(backbone="r", dropout=0, normalization="none")
    )
    images = [grain(rng, size, 32, 32, 0) for size in (1, 2, 4) for _ in range(60)]
    labels, groups = np.repeat(np.arange(3), 60), np.arange(180) // 4
    with torch.no_grad():
        features = model.features(torch.from_numpy(np.stack(images)[:, None]).float() / 255)
    statistics = feature_statistics(features.numpy(), labels, groups)
    head = torch.linalg.lstsq(torch.cat([features, torch.ones(180, 1)], 1), 4 * torch.eye(3)[labels]).solution
    with torch.no_grad():
        model.heads[0].weight.copy_(head[:4].T)
        model.heads[0].bias.copy_(head[4])
    metadata = {"pixels": 32, "side": 32, "margin": 1, "pixel_nm": None, "temperature": 0.7}
    return model, metadata | {"original_temperature": 0.6, "statistics": statistics}


@settings(deadline=None, max_examples=60)
@given(st.integers(10, 90), st.integers(10, 90), st.integers(1, 10), st.integers(1, 10), st.floats(0, 0.85))
def test_tiles_cover_everything_overlap_enough_and_are_the_fewest(rows, cols, high, wide, overlap):
    places = tile_places(rows, cols, extent=(high, wide), overlap=overlap)
    seen = np.zeros((rows, cols), int)
    for row, col in places:
        assert row >= 0 and col >= 0 and row + high <= rows and col + wide <= cols
        seen[row : row + high, col : col + wide] += 1
    assert seen.min() >= 1
    for starts, length, side in ((np.unique(places[:, 0]), rows, high), (np.unique(places[:, 1]), cols, wide)):
        # Even steps of whole pixels may be longer by one than asked for.
        assert (np.diff(starts) <= max(side * (1 - overlap), 1) + 1).all()
        assert len(starts) <= np.ceil((length - side) / max(side * (1 - overlap), 1)) + 1


def beside_bar(image):
    return UsableArea.beside_bar(image.shape, find_info_bar(image))


def test_a_published_image_has_twelve_tiles_above_its_bar():
    image = np.random.default_rng(0).integers(20, 220, (960, 1280), dtype=np.uint8)
    image[896:] = 0
    tiles = cut_tiles(image, pixels=448, side=224, margin=1, overlap=0.25, area=beside_bar(image))
    assert tiles.crops.shape == (12, 224, 224) and tiles.extent == (448, 448)
    assert tiles.places.max(axis=0).tolist() == [895 - 448, 1280 - 448]
    row, col = tiles.places[6]
    block = image[row : row + 448, col : col + 448].reshape(224, 2, 224, 2).mean((1, 3))
    assert np.abs(tiles.crops[6] - block).max() <= 0.5
    half = cut_tiles(image, pixels=None, side=224, margin=1, overlap=0.25, area=beside_bar(image))
    assert half.extent == (480, 640) and len(half.places) == 3 * 3
    finer = cut_tiles(
        image, pixels=448, side=224, margin=1, overlap=0.25, area=beside_bar(image), pixel_nm=20.0, own_pixel_nm=40.0
    )
    assert finer.extent == (224, 224)


def test_an_image_is_the_mean_of_its_tiles_calibrated_and_its_depth_does_not_matter(trained):
    model, metadata = trained
    image = grain(np.random.default_rng(5), 2)
    tiles = cut_tiles(image, pixels=32, side=32, margin=1, overlap=0.25, area=beside_bar(image))
    found = predict_tiles(model, metadata, [tiles.crops], device="cpu")
    with torch.no_grad():
        batch = torch.from_numpy(tiles.crops[:, None]).float() / 255
        features, logits = model.features(batch).numpy(), model(batch).numpy()
    of_tiles = apply_temperature(logits, 0.7)
    np.testing.assert_allclose(found.of_tiles, of_tiles, atol=1e-5)
    np.testing.assert_allclose(found.probabilities, apply_mean_temperature(of_tiles.mean(0)[None], 0.6)[0], atol=1e-5)
    assert found.ood_score == pytest.approx(ood_score(features.mean(0)[None], metadata["statistics"])[0], rel=1e-4)
    deep_tiles = cut_tiles(
        image.astype(np.uint16) * 257, pixels=32, side=32, margin=1, overlap=0.25, area=beside_bar(image)
    )
    deep = predict_tiles(model, metadata, [deep_tiles.crops], device="cpu")
    assert np.argmax(deep.probabilities) == 1


def test_all_tiles_go_through_the_network_together(trained):
    model, metadata = trained
    sizes = []
    handle = model.backbone.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    tiles = cut_tiles(
        grain(np.random.default_rng(5), 2, 73, 100),
        pixels=32,
        side=32,
        margin=1,
        overlap=0.25,
        area=UsableArea(0, 61, 0, 100),
    )
    predict_tiles(model, metadata, [tiles.crops], device="cpu")
    handle.remove()
    assert len(tiles.crops) == 12 and sizes == [12]


def test_images_of_any_size_are_classified_and_ranked_and_the_one_out_of_distribution_is_first(trained):
    rng = np.random.default_rng(1)
    images = {f"{label} {number}": grain(rng, size, *shape, 12) for size, label in zip((1, 2, 4), CLASSES, strict=True)
              for number, shape in enumerate([(96, 128), (61, 45), (200, 33)])}  # fmt: skip
    images["foreign"] = np.tile(np.linspace(60, 250, 128), (108, 1)).astype(np.uint8)
    images["small"] = grain(rng, 2, 30, 128)
    model, metadata = trained

    def read(name):
        if name == "broken":
            raise InputError("broken", "text", "an image")
        return images[name], {}

    table = predict_images(model, metadata, ["broken", *images], read, CPU)
    assert table["rank"].tolist() == list(range(1, 13))
    assert table["image"][0] == "foreign" and table["foreign"][0]
    good = table[table["problem"].isna() & (table["image"] != "foreign")]
    assert len(good) == 9 and not good["foreign"].any()
    assert (good["prediction"] == good["image"].str.split().str[0]).all()
    assert (good["bar_rows"] == 12).all() and (np.diff(table["strangeness"].dropna()) <= 0).all()
    p = good[[f"p_{label}" for label in CLASSES]].to_numpy(float)
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(good["entropy"], -(p * np.log(p)).sum(1))
    np.testing.assert_allclose(good["entropy_share"], good["entropy"] / np.log(3))
    np.testing.assert_allclose(good["confidence"], p.max(1))
    bad = table.tail(2)
    assert bad["image"].tolist() == ["broken", "small"] and bad["tiles"].tolist() == [0, 0]
    assert bad["problem"].tolist() == [
        "broken: found text, expected an image",
        "small: found 29 x 128 px above a bar of 12 rows, expected at least 32 x 32 px, the input of the network",
    ]
    assert bad[["prediction", "confidence", "foreign"]].isna().all().all()
    with pytest.raises(InputError, match=r"broken: found text.*\nsmall: found 29 x 128"):
        predict_images(model, metadata, ["broken", *images], read, Predict(device="cpu", on_bad_file="fail"))
    again = predict_images(model, metadata, [*reversed(images), "broken"], read, CPU)
    pd.testing.assert_frame_equal(table, again)


def test_a_given_bar_is_taken_and_a_needed_pixel_size_asked_for(trained):
    model, metadata = trained
    image = grain(np.random.default_rng(2), 2)
    table = predict_images(model, metadata, ["a"], lambda _: (image, {}), Predict(device="cpu", bar_rows=40))
    assert table["bar_rows"].tolist() == [40]
    scaled = metadata | {"pixel_nm": 10.0}
    table = predict_images(model, scaled, ["a"], lambda _: (image, {}), CPU)
    assert "no pixel size" in table["problem"][0]
    table = predict_images(
        model, scaled, ["a"], lambda _: (np.kron(image, np.ones((2, 2), np.uint8)), {"pixel_nm": 5.0}), CPU
    )
    assert table["prediction"][0] == "622" and table["bar_rows"][0] == 24
    given = Predict(device="cpu", pixel_nm=5.0)
    again = predict_images(model, scaled, ["a"], lambda _: (np.kron(image, np.ones((2, 2), np.uint8)), {}), given)
    assert again["confidence"][0] == table["confidence"][0]
    with pytest.raises(InputError, match="network: found no statistics"):
        predict_images(model, metadata | {"statistics": None}, ["a"], lambda _: (image, {}), CPU)
    with pytest.raises(InputError, match="images: found none"):
        predict_images(model, metadata, [], lambda _: (image, {}), CPU)


def test_what_the_instrument_says_of_its_bar_counts_before_the_image(trained):
    model, metadata = trained
    image = grain(np.random.default_rng(2), 2)
    table = predict_images(model, metadata, ["a"], lambda _: (image, {"bar_rows": 0}), CPU)
    assert table["bar_rows"].tolist() == [0]
    # Not where that is more than a bar can be.
    table = predict_images(model, metadata, ["a"], lambda _: (image, {"bar_rows": 60}), CPU)
    assert table["bar_rows"].tolist() == [12]
