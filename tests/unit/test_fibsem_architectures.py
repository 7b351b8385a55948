"""Global networks other than the U-Net of this program: a plain one that is defined here, and segmentation-models-pytorch."""

import importlib.util
import math

import pytest
import torch
from torch import nn

from cathodeflow.errors import InputError
from cathodeflow.fibsem import architectures
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.global_network import GlobalNetwork, MonteCarloDropout
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.mc_dropout import VIEWS, stochastic_passes
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.phases import entropy
from cathodeflow.fibsem.unet import UNet
from cathodeflow.packaged_weights import packaged_weights
from tests.unit.test_fibsem_global_training import SMALL, labelled, train_network
from tests.unit.test_fibsem_unet import predict_slices, small

HAS_SMP = importlib.util.find_spec("segmentation_models_pytorch") is not None
needs_smp = pytest.mark.skipif(not HAS_SMP, reason="needs the extra fibsem-architectures")


def build_network(architecture="unet", n_classes=3, **options):
    """Build a network, without dropout unless it is given."""
    options = TrainGlobal(**{"dropout": 0.0} | options).model_copy(update={"architecture": architecture})
    return architectures.build_network(options, n_classes=n_classes)


class Plain(GlobalNetwork):
    """Three convolutions, half the resolution in between, and a layer of dropout."""

    stride = 2

    def __init__(self, name, n_classes=3, *, context=1, dropout=0.0, **options):
        super().__init__({"name": name, "n_classes": n_classes, "context": context, "dropout": dropout, **options})
        self.down = nn.Sequential(nn.Conv2d(context, int(name), 3, 2, 1), nn.BatchNorm2d(int(name)), nn.ReLU())
        self.middle = nn.Sequential(nn.Dropout(dropout), nn.Conv2d(int(name), 4 * n_classes, 3, padding=1))
        self.up = nn.PixelShuffle(2)

    def forward(self, x):
        rows, cols = x.shape[-2:]
        return self.up(self.middle(self.down(self.prepared(x))))[..., :rows, :cols].float()


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setitem(architectures.FAMILIES, "plain", Plain)


NAMES = ["plain.16", pytest.param("smp.unet/resnet18", marks=needs_smp)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_other_networks_are_trained_stored_and_applied_as_the_unet(tmp_path, plain, name, dropout):
    if name.startswith("smp") and dropout == 0.0:
        pytest.skip("slow, and the same code")
    train, validation, test = (labelled(seed, context=3, n=6, side=64) for seed in range(3))
    options = {
        "dropout": dropout,
        "dropout_where": "deep",
        "epochs": 10,
        "batch_size": 2,
        "seed": 2,
        "context": 3,
    } | SMALL
    trained, again = (
        train_network(train, validation, architecture=name, learning_rate=5e-3, **options) for _ in range(2)
    )
    history = trained.training.history
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    assert float(trained.model.grey_mean) == pytest.approx(float(train.slices.float().mean()), rel=1e-4)
    assert trained.training == again.training
    save_bundle(tmp_path / "n.pth", {"network": trained.model}, {})
    read = load_bundle(tmp_path / "n.pth")[0]["network"]
    assert type(read) is type(trained.model) and read.architecture == trained.model.architecture
    # Tiles do not fit the slice, nor the slice the stride.
    x = test.slices[test.neighbours][:2, :, :31, :27]
    keywords = {"passes": 6, "tile": 24, "overlap": 8, "precision": "32-true", "seed": 1}
    found = predict_slices(read, x, **keywords)
    assert found.logits.shape == (2, 3, 31, 27) and found.logits.dtype == torch.float32
    truth = test.labels[:2, :31, :27]
    accuracy = (found.logits.argmax(1) == truth).float().mean()
    assert accuracy > float(truth.flatten().bincount().max()) / truth.numel() + 0.15
    # Trained weights have another layout in memory, so that sums are rounded otherwise.
    assert torch.allclose(found.logits, predict_slices(trained.model, x, **keywords).logits, atol=1e-3)
    assert torch.equal(found.logits, predict_slices(read, x, **keywords).logits)
    other = predict_slices(read, x, **keywords | {"seed": 2}).logits
    assert torch.equal(found.logits, other) == (dropout == 0)


def test_plain_dropout_is_the_mean_of_separate_calls_and_leaves_global_random_numbers(plain):
    network = initialised(lambda: build_network("plain.16", dropout=0.4), 0).eval()
    network.set_normalization(0.5, 0.3)
    x = torch.rand(1, 1, 21, 34, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    found = predict_slices(network, x, passes=300, precision="32-true")
    assert torch.equal(torch.rand(2), expected)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        separate = torch.cat([network(x) for _ in range(300)])
    score = (found.logits[0] - separate.mean(0)) / (separate.std(0) * math.sqrt(2 / 300))
    assert 0.7 < score.square().mean().sqrt() < 1.3 and separate.std(0).min() > 0
    assert torch.equal(found.entropy, entropy(found.logits))
    certain = initialised(lambda: build_network("plain.16"), 0).eval()
    with torch.no_grad():
        mirrored = torch.stack([certain(x.flip(view)).flip(view) for view in VIEWS]).mean(0)
    assert not certain.stochastic and network.stochastic
    flipped = predict_slices(certain, x, passes=9, tta=True, precision="32-true").logits
    assert torch.allclose(flipped, mirrored, atol=1e-5)


def test_the_folded_unet_and_plain_dropout_are_two_ways_to_the_same_mean():
    network, x = small(dropout=0.3), torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    means, deviations = [], []
    with torch.inference_mode():
        for model in (stochastic_passes(network, "32-true"), MonteCarloDropout(network)):
            assert (model.n_classes, model.context, model.stride, model.stochastic) == (3, 1, 4, True)
            parts = [
                model.logits(next(iter(model.passes(x, [seed], 2**17)))) for seed in range(400)
            ]  # fmt: skip
            means.append(torch.cat(parts).mean(0))
            deviations.append(torch.cat(parts).std(0))
        whole = sum(stochastic_passes(network, "32-true").passes(x, range(7), 24 * 24 * 3))
        single = sum(next(iter(stochastic_passes(network, "32-true").passes(x, [seed], 1))) for seed in range(7))
    assert torch.allclose(whole, single, rtol=1e-4, atol=1e-4)
    score = (means[0] - means[1]) / torch.hypot(*deviations) * 20
    assert 0.5 < score.square().mean().sqrt() < 1.3 and score.abs().max() < 6


def test_dropout_stays_on_in_evaluation_mode_and_the_rest_does_not(plain):
    network = build_network("plain.8", dropout=0.5)
    assert not network.eval().down[1].training and network.middle[0].training
    assert network.train().down[1].training


@needs_smp
@pytest.mark.parametrize("where", ["blocks", "deep"])
@pytest.mark.parametrize(("kind", "layer"), [("element", nn.Dropout), ("channel", nn.Dropout2d)])
def test_dropout_of_smp_is_where_the_options_say(where, kind, layer):
    network = build_network("smp.unet/resnet18", context=5, dropout=0.2, dropout_where=where, dropout_kind=kind).eval()
    rates = [part.p for part in network.dropouts]
    assert rates == ([0, 0.2, 0.2, 0.2, 0.2, 0.2] if where == "blocks" else [0, 0, 0, 0, 0.2, 0.2])
    assert network.last_dropout.p == (0.2 if where == "blocks" else 0)
    assert {type(part) for part in network.dropouts} == {layer}
    x = torch.rand(1, 5, 33, 70)
    with torch.no_grad():
        first, second = network(x), network(x)
        assert first.shape == (1, 3, 33, 70) and not torch.equal(first, second)
        for part in (*network.dropouts, network.last_dropout):
            part.p = 0.0
        # Without dropout it is the network of the package.
        expected = network.body(network.prepared(x))[..., :33, :70]
        assert torch.allclose(network(x), expected, atol=1e-5)


@needs_smp
@pytest.mark.parametrize("architecture", ["unetplusplus", "linknet", "fpn", "deeplabv3plus", "upernet", "segformer"])
def test_architectures_of_smp_take_slices_of_any_size(architecture):
    network = build_network(f"smp.{architecture}/resnet18", n_classes=2, dropout=0.1).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 50, 37)).shape == (1, 2, 50, 37)


@pytest.mark.parametrize("name", ["vnet", "unet.wide", "smp", "smpx.unet/resnet18"])
def test_unknown_architectures_are_named(name):
    with pytest.raises(InputError, match=rf"architecture: found {name}" if name != "smp" else "architecture"):
        build_network(name)


@needs_smp
@pytest.mark.parametrize(
    ("name", "found"),
    [("dpt/resnet18", "one of deeplabv3"), ("net/resnet18", "one of deeplabv3"), ("unet/resnet17", "resnet17")],
)
def test_networks_that_the_package_does_not_have_are_named(name, found):
    with pytest.raises(InputError, match=found):
        build_network(f"smp.{name}")


@pytest.mark.skipif(HAS_SMP, reason="the extra is installed")
def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(InputError, match=r"fibsem-architectures"):
        build_network("smp.unet/resnet18")


def test_the_default_is_the_unet():
    assert isinstance(build_network(widths=(4, 8)), UNet)
    assert build_network(widths=(4, 8)).architecture["widths"] == [4, 8]


@needs_smp
@pytest.mark.parametrize("context", [1, 3])
def test_a_pretrained_encoder_has_the_features_of_its_package(context):
    """The same grey image in every channel has the features of the RGB network."""
    timm = pytest.importorskip("timm")
    name = "tf_efficientnet_lite0"
    weights = packaged_weights(name)
    if weights is None:
        pytest.skip("needs the extra sem-weights")
    network = build_network(f"smp.unet/tu-{name}", context=context, weights="imagenet").eval()
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    whole = timm.create_model(name)
    whole.load_state_dict(weights)
    with torch.no_grad():
        expected = whole.eval().forward_features(grey.expand(-1, 3, -1, -1))
        features = network.body.encoder.model(grey.expand(-1, context, -1, -1))[-1]
        # The last convolution of the classifier is no part of the encoder.
        assert torch.allclose(whole.bn2(whole.conv_head(features)), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["unet", pytest.param("smp.unet/resnet18", marks=needs_smp)])
def test_weights_of_networks_without_a_package_are_refused(name):
    with pytest.raises(InputError, match="weights: found imagenet"):
        build_network(name, weights="imagenet")
