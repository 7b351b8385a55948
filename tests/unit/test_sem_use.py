"""Trained networks in use: ONNX, folders of many images, maps larger than the memory, and the page of predictions."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from cathodeflow import sem
from cathodeflow.errors import InputError
from cathodeflow.io import large_images
from cathodeflow.io.onnx_graphs import read_graph
from cathodeflow.sem.classes import ImageRow
from cathodeflow.sem.image_predictions import predict_tiles
from cathodeflow.sem.image_table import build_index
from cathodeflow.sem.listed_images import listed_reader, without_masked
from cathodeflow.sem.model import build_model, load_network, save_network
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.nickel import fit_nickel
from cathodeflow.sem.onnx_export import onnx_graph
from cathodeflow.sem.onnx_network import OnnxNetwork
from cathodeflow.sem.ood import feature_statistics
from cathodeflow.sem.prediction_page import worst_first
from cathodeflow.sem.predictions import network_outputs
from cathodeflow.sem.rejection import CONTRADICTED, Rejection
from cathodeflow.sem.texture import texture_statistics
from cathodeflow.sem.texture_classifier import fit_texture
from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.usable_area import UsableArea

CLASSES = ["333", "622_cycled", "811"]


def network(**options):
    """An untrained network with its metadata; statistics of batch norm that do something."""
    model = build_model(CLASSES, Train(seed=3, **options)).eval()
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=random) / 10)
            module.running_var.copy_(torch.rand(module.num_features, generator=random) + 0.5)
            module.weight.data.copy_(torch.rand(module.num_features, generator=random) + 0.5)
    crops = np.random.default_rng(0).integers(0, 256, (12, 48, 48), dtype=np.uint8)
    features = network_outputs(model, crops, batch_size=12, device="cpu").features
    statistics = feature_statistics(features, np.arange(12) % 3, np.arange(12))
    geometry = {"pixels": 64, "side": 48, "margin": 1, "pixel_nm": None}
    return model, {
        "classes": CLASSES,
        **geometry,
        "temperature": 0.8,
        "original_temperature": 1.3,
        "statistics": statistics,
        "nickel": fit_nickel(features, [CLASSES[number % 3] for number in range(12)]),
        "texture": fit_texture(*2 * (texture_statistics(crops), np.arange(12) % 3)),
        # Scores of any size are within the limit, so that the texture decides.
        "rejection": Rejection(*(np.array(row, np.float32) for row in ([0, 0.1, 0, 1], [0.5], [1e9]))),
    }


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    model, metadata = network()
    out = tmp_path_factory.mktemp("network") / "model.pt"
    save_network(out, model, metadata, graph=onnx_graph(model, metadata))
    return out


@pytest.fixture
def images(tmp_path):
    """Five textures of different kinds, and a file that is no image."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(5):
        coarse = rng.integers(20, 230, (120 // (number + 1) + 1, 160 // (number + 1) + 1))
        image = np.kron(coarse, np.ones((number + 1, number + 1)))[:120, :160].astype(np.uint8)
        Image.fromarray(image).save(folder / f"image_{number}.png")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"heads": "axes", "normalization": "imagenet"},
        {"backbone": "mobilenetv3_small_050", "normalization": "none"},
        {"normalization": "octaves"},
        {"normalization": "histogram"},
        {"backbone": "tf_efficientnet_lite0"},
    ],
)
def test_onnxruntime_gives_the_answers_of_torch(options, tmp_path):
    model, metadata = network(**options)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph = onnx_graph(model, metadata)
    assert not model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    crops = np.random.default_rng(5).integers(0, 256, (7, 48, 48), dtype=np.uint8)
    crops[3] = 9
    expected = network_outputs(model, crops, batch_size=7, device="cpu")
    found = OnnxNetwork(graph, "graph")
    for batch in (1, 5):
        got = found.outputs(crops, batch_size=batch)
        # In a crop without contrast, octaves are rounding, which the two libraries do differently.
        np.testing.assert_allclose(got.logits, expected.logits, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got.features, expected.features, rtol=1e-3, atol=5e-4)
    assert found.classes == CLASSES and found.metadata["pixel_nm"] is None
    for kind in ("statistics", "texture", "rejection"):
        for name, values in metadata[kind]._asdict().items():
            assert np.array_equal(getattr(found.metadata[kind], name), values)
    assert onnx_graph(model, metadata) == graph
    # A padding whose size is computed for every image costs a third of the time.
    assert not any(node.op_type == "Ceil" for node in onnx.load_from_string(graph).graph.node)


def test_a_prediction_that_the_texture_contradicts_is_withheld():
    model, metadata = network()
    crops = np.random.default_rng(0).integers(0, 256, (12, 48, 48), dtype=np.uint8)
    texture = metadata["texture"].of_crops(crops)
    reasons = set()
    for number, crop in enumerate(crops):
        found = predict_tiles(model, metadata, iter([crop[None]]), device="cpu")
        best = found.probabilities.argmax()
        assert found.agreement == pytest.approx(texture[number, best])
        agreed = texture[number].argmax() == best
        assert not (agreed and found.withheld == CONTRADICTED)
        assert agreed == (found.withheld == "") or not 0.1 < found.agreement < 0.9
        reasons.add(found.withheld)
    assert reasons >= {"", CONTRADICTED}
    # Networks of earlier versions, and their rule.
    old = metadata | {"texture": None, "rejection": metadata["rejection"]._replace(weights=np.ones(3, np.float32))}
    assert predict_tiles(model, old, iter([crops[:1]]), device="cpu").agreement is None


def test_an_exported_network_runs_elsewhere_and_classifies_like_the_model_file(model_file, images, tmp_path):
    assert sem.export(model_file, out=tmp_path / "model.onnx")["classes"] == 3
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    logits, _ = session.run(None, {"crops": np.zeros((2, 1, 48, 48), np.float32)})
    assert logits.shape == (2, 3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["cathodeflow"])["classes"] == CLASSES
    tables = []
    for file in (model_file, tmp_path / "model.onnx"):
        sem.predict(images, out=tmp_path / "p.csv", options=sem.Predict(model=str(file), device="cpu"))
        tables.append((tmp_path / "p.csv").read_bytes())
    assert tables[0] == tables[1]
    # The graph does not hide the weights, and a file without one is still used.
    model, metadata = load_network(model_file)
    save_network(tmp_path / "old.pt", model, metadata)
    assert read_graph(tmp_path / "old.pt") is None and read_graph(model_file) is not None
    sem.predict(images, out=tmp_path / "old.csv", options=sem.Predict(model=str(tmp_path / "old.pt"), device="cpu"))
    old, new = (pd.read_csv(tmp_path / name) for name in ("old.csv", "p.csv"))
    pd.testing.assert_frame_equal(old, new, rtol=1e-4, atol=1e-5)
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(InputError, match=r"text.onnx: found an error .* a network that `cathodeflow sem export` wrote"):
        sem.predict(
            images, out=tmp_path / "p.csv", options=sem.Predict(model=str(tmp_path / "text.onnx"), device="cpu")
        )


def test_a_prediction_on_a_cpu_imports_neither_torch_nor_timm(model_file, images, tmp_path):
    program = (
        "import sys\nfrom cathodeflow import sem\n"
        f"sem.predict({str(images)!r}, out={str(tmp_path / 'p.csv')!r}, "
        f"options=sem.Predict(model={str(model_file)!r}, device='cpu'))\n"
        "print([name for name in ('torch', 'timm', 'torchvision', 'onnx', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_empty_folder_is_noticed_before_the_network_is_loaded(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "model.pt").write_bytes(b"not read")
    with pytest.raises(InputError, match="none: found a folder without images"):
        sem.predict(tmp_path / "none", out=tmp_path / "p.csv", options=sem.Predict(model=str(tmp_path / "model.pt")))


def test_an_interrupted_prediction_continues(model_file, images, tmp_path, monkeypatch):
    from cathodeflow.sem.stages import predict as stage

    options = sem.Predict(model=str(model_file), device="cpu", threads=1)
    sem.predict(images, out=tmp_path / "whole.csv", tiles=tmp_path / "whole_tiles.csv", options=options)
    read, seen = stage.read_listed, []

    def interrupted(path, *more):
        seen.append(Path(path).name)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return read(path, *more)

    monkeypatch.setattr(stage, "read_listed", interrupted)
    out, partial = tmp_path / "p.csv", tmp_path / "p.csv.partial"
    with pytest.raises(KeyboardInterrupt):
        sem.predict(images, out=out, options=options)
    done = len(partial.read_text().splitlines()) - 1
    assert 1 <= done <= 3 and not out.exists()
    with open(partial, "a") as file:
        file.write('["a line that was being wri')
    # An image that has changed since is predicted again.
    changed = images / "image_0.png"
    changed.write_bytes((images / "image_4.png").read_bytes())
    seen.clear()
    seen += [""] * 5
    sem.predict(images, out=out, tiles=tmp_path / "tiles.csv", options=options)
    assert len(seen) - 5 == 5 - (done - 1) and not partial.exists()
    whole, table = (pd.read_csv(path).set_index("image").sort_index() for path in (tmp_path / "whole.csv", out))
    same = whole.index != str(changed)
    pd.testing.assert_frame_equal(table[same].drop(columns="rank"), whole[same].drop(columns="rank"))
    assert table["strangeness"][str(changed)] == table["strangeness"][str(images / "image_4.png")]
    tiles = pd.read_csv(tmp_path / "tiles.csv")
    assert tiles["image"].value_counts().to_dict() == table["tiles"].to_dict()
    # Other options, other rows: nothing of another network is taken.
    seen[:] = [""] * 5
    monkeypatch.undo()
    monkeypatch.setattr(stage, "read_listed", lambda *given: (seen.append(given), read(*given))[1])
    partial.write_text(json.dumps("another key") + "\n" + json.dumps([str(changed), None, [{}, []]]))
    sem.predict(images, out=out, options=options)
    assert len(seen) == 10


@pytest.mark.parametrize("layout", ["tiles", "strips", "plain", "rgb"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_map_is_read_in_parts_and_classified_as_if_it_were_whole(layout, dtype, model_file, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 200, (80, 100)).astype(dtype) * (1 if dtype == np.uint8 else 250)
    image = np.kron(coarse, np.ones((4, 4), dtype)) + rng.integers(0, 20, (320, 400)).astype(dtype)
    stored = np.repeat(image[..., None], 3, axis=2) if layout == "rgb" else image
    more = {
        "tiles": {"tile": (64, 64), "compression": "zlib"},
        "strips": {"rowsperstrip": 10, "compression": "zlib"},
        "rgb": {"tile": (64, 64), "photometric": "rgb"},
    }
    tifffile.imwrite(tmp_path / "map.tif", stored, **more.get(layout, {}))
    options = sem.Predict(model=str(model_file), device="cpu", bar_side="bottom", bar_rows=20)
    tables = []
    for limit in (2**28, 20_000):
        monkeypatch.setattr(large_images, "MAX_PIXELS", limit)
        sem.predict(tmp_path / "map.tif", out=tmp_path / "p.csv", tiles=tmp_path / "tiles.csv", options=options)
        tables.append([pd.read_csv(tmp_path / name, dtype={"prediction": str}) for name in ("p.csv", "tiles.csv")])
    for whole, parts in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(whole, parts, rtol=1e-5)
    tiles = tables[1][1]
    # Above the bar and its margin, from edge to edge.
    assert (tiles["row"] + tiles["rows"]).max() == 299 and (tiles["col"] + tiles["cols"]).max() == 400


def test_maps_that_cannot_be_read_in_parts_are_refused(model_file, tmp_path, monkeypatch):
    monkeypatch.setattr(large_images, "MAX_PIXELS", 5000)
    options = sem.Predict(model=str(model_file), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (100, 200), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "map.png")
    tifffile.imwrite(tmp_path / "one.tif", image, rowsperstrip=100, compression="zlib")
    tifffile.imwrite(tmp_path / "cut.tif", image, tile=(64, 64))
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-9000])
    for name, text in {
        "map.png": "as TIFF, in tiles",
        "one.tif": "tiles or strips of at most",
        "cut.tif": "truncated",
    }.items():
        with pytest.raises(InputError, match=text):
            sem.predict(tmp_path / name, out=tmp_path / "p.csv", options=options)


def page_data(path):
    text = path.read_text()
    assert "<script>" not in text.partition('id="data"')[2].partition("</script>")[0]
    assert not re.search(r"(src|href)\s*=\s*[\"']?https?:", text)
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_shows_every_image_with_its_map_the_least_certain_first(model_file, images, tmp_path):
    (images / "broken <script>.png").write_bytes(b"no image")
    sem.predict(images, out=tmp_path / "p.csv", options=sem.Predict(model=str(model_file), device="cpu"))
    made = sem.page(tmp_path / "p.csv", model_file, out=tmp_path / "p.html", options=sem.Page(images=3, width=100))
    assert made == {"images": 6, "pictures": 3}
    data = page_data(tmp_path / "p.html")
    table = worst_first(pd.read_csv(tmp_path / "p.csv", dtype={"prediction": str}))
    assert [entry["name"] for entry in data["images"]] == [Path(name).name for name in table["image"]]
    assert [bool(entry["picture"] and entry["map"]) for entry in data["images"]] == [True] * 3 + [False] * 3
    assert data["images"][0]["picture"] != data["images"][0]["map"]
    assert "broken" in data["images"][-1]["name"] and "expected" in data["images"][-1]["note"]
    shown = data["images"][0]
    assert shown["prediction"] == table["prediction"][0] and shown["confidence"] == pytest.approx(
        table["confidence"][0]
    )


def test_the_page_shows_images_as_they_were_predicted(model_file, images, tmp_path):
    """The second page of a file, without the text that a mask hides, has the picture and the map of the clean image."""
    texture = np.asarray(Image.open(images / "image_2.png"))
    marked, mask = texture.copy(), np.zeros_like(texture)
    marked[30:50, 20:60], mask[30:50, 20:60] = 255, 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(without_masked(marked, mask > 0)).save(tmp_path / "clean.png")
    tifffile.imwrite(tmp_path / "two.tif", np.stack([texture.T.reshape(120, 160), marked]), photometric="minisblack")
    pages = []
    for name, more in (("clean.png", {}), ("two.tif", {"page": 1, "mask": str(tmp_path / "mask.png")})):
        options = sem.Predict(model=str(model_file), device="cpu", bar_side="none", **more)
        sem.predict(tmp_path / name, out=tmp_path / "p.csv", options=options)
        sem.page(tmp_path / "p.csv", model_file, out=tmp_path / "p.html", options=sem.Page(width=100))
        pages.append(page_data(tmp_path / "p.html")["images"][0])
    assert all(pages[0][key] and pages[0][key] == pages[1][key] for key in ("picture", "map"))


def test_wrong_answers_come_before_doubtful_ones():
    table = pd.DataFrame(
        {
            "name": list("abcdef"),
            "label": ["x"] * 6,
            "prediction": ["x", "y", "x", "y", None, "x"],
            "confidence": [0.9, 0.5, 0.4, 0.8, np.nan, 0.99],
            "foreign": [False, False, False, False, None, True],
        }
    )
    assert worst_first(table)["name"].tolist() == ["d", "b", "f", "c", "a", "e"]


def test_masked_text_is_replaced_and_a_page_is_chosen(model_file, images, tmp_path):
    """The same texture with text burnt in, in the second page of two, is classified as without."""
    texture = np.asarray(Image.open(images / "image_2.png"))
    marked, mask = texture.copy(), np.zeros_like(texture)
    marked[90:110, 20:60], mask[90:110, 20:60] = 255, 1
    clean = without_masked(marked, mask > 0)
    assert np.array_equal(clean[mask == 0], texture[mask == 0]) and (clean[mask > 0] < 255).all()
    # Mirrored texture, not a blur.
    assert clean[90:110, 20:60].std() > 0.8 * texture.std()
    tifffile.imwrite(
        tmp_path / "two.tif", np.stack([texture.T.reshape(120, 160), marked]), photometric="minisblack", metadata=None
    )
    Image.fromarray(mask).save(tmp_path / "mask.png")
    Image.fromarray(clean).save(tmp_path / "clean.png")
    common = {"model": str(model_file), "device": "cpu", "bar_side": "none"}
    with pytest.raises(
        InputError, match="2 pages, expected one image of full size per file, or the number of its page"
    ):
        sem.predict(tmp_path / "two.tif", out=tmp_path / "p.csv", options=sem.Predict(**common))
    with pytest.raises(InputError, match=r"2 pages, expected a page 2 \(the first is 0\)"):
        sem.predict(tmp_path / "two.tif", out=tmp_path / "p.csv", options=sem.Predict(**common, page=2))
    found = []
    for name, more in (
        ("two.tif", {"page": 1, "mask": str(tmp_path / "mask.png")}),
        ("clean.png", {}),
        ("two.tif", {"page": 1}),
    ):
        sem.predict(tmp_path / name, out=tmp_path / "p.csv", options=sem.Predict(**common, **more))
        found.append(pd.read_csv(tmp_path / "p.csv")["strangeness"][0])
    assert found[0] == found[1] != found[2]
    Image.fromarray(mask[:50]).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="120 x 160 px, expected 50 x 160 px, as the mask"):
        sem.predict(
            tmp_path / "clean.png",
            out=tmp_path / "p.csv",
            options=sem.Predict(**common, mask=str(tmp_path / "small.png")),
        )
    # The table says how an image was read, and later stages read it so.
    row = ImageRow(
        **{**dict.fromkeys(ImageRow._fields), "image": str(tmp_path / "two.tif"), "name": "a/b/c", "label": "b"}
    )
    options = sem.Index(page=1, mask=str(tmp_path / "mask.png"), bar_side="none", min_images=1)
    table = build_index([row], options)
    assert table["page"].tolist() == [1] and np.array_equal(listed_reader(table)(table["image"][0]), clean)


def test_each_image_has_its_nickel_fraction_with_an_interval(model_file, images, tmp_path):
    options = sem.Predict(model=str(model_file), device="cpu", bar_side="none")
    sem.predict(str(images), out=tmp_path / "p.csv", options=options)
    table = pd.read_csv(tmp_path / "p.csv").set_index("image")
    model, metadata = load_network(model_file)
    regression = metadata["nickel"]
    assert list(regression.values) == pytest.approx([1 / 3, 0.6, 0.8])
    for path, row in table[table["problem"].isna()].iterrows():
        image = np.asarray(Image.open(path))
        tiles = cut_tiles(image, pixels=64, side=48, margin=1, overlap=0.25, area=UsableArea(0, 120, 0, 160))
        features = network_outputs(model, tiles.crops, batch_size=64, device="cpu").features.mean(0, keepdims=True)
        assert row["nickel"] == pytest.approx(float(regression.predict(features)[0]), abs=1e-3)
        assert row["nickel_high"] - row["nickel"] == pytest.approx(
            min(regression.half_width(0.9), 1 - row["nickel"]), abs=1e-5
        )
        assert row["nickel_low"] <= row["nickel"] <= row["nickel_high"]
