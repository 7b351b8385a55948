import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.fibsem import mc_dropout
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.neighbours import neighbours
from cathodeflow.fibsem.unet import UNet, keep_mask
from cathodeflow.fibsem.unet_passes import FoldedUNet


def unet(**changed):
    """A U-Net with the widths of the defaults, without dropout."""
    plain = {"context": 1, "widths": (16, 32, 64, 128), "dropout": 0.0, "dropout_where": "blocks"}
    return UNet(**{"n_classes": 3, "dropout_kind": "element", "normalization": "batch"} | plain | changed)


def predict_slices(network, slices, **changed):
    """`mc_dropout.predict_slices` with the settings that most tests share."""
    settings = {"passes": 20, "tta": False, "tile": 512, "overlap": 64, "seed": 0, "precision": "auto", "device": "cpu"}
    return mc_dropout.predict_slices(network, slices, **settings | changed)


def small(seed=0, **options):
    """A network whose batch norms have seen something, so that folding them is not trivial."""
    network = initialised(lambda: unet(**{"widths": (8, 16, 24)} | options), seed)
    network.train()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for _ in range(3):
            network(torch.rand(2, network.architecture["context"], 32, 40) * 3)
    return network.eval()


def test_any_size_gives_logits_of_every_pixel():
    network = small(context=3)
    for size in [(16, 16), (17, 23), (5, 3), (1, 1)]:
        assert network(torch.rand(2, 3, *size)).shape == (2, 3, *size)
    assert network(torch.randint(0, 255, (1, 3, 9, 9), dtype=torch.uint8)).dtype == torch.float32


def test_standardised_networks_ignore_the_scale_of_grey():
    first, second = small(), small()
    x = torch.rand(1, 1, 16, 24)
    first.set_normalization(0.5, 0.3)
    second.set_normalization(0.5 * 65535, 0.3 * 65535)
    with torch.no_grad():
        assert torch.allclose(first(x), second(x * 65535), atol=1e-4)
    with pytest.raises(InputError, match="some contrast"):
        first.set_normalization(3.0, 0.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n_classes": 1}, "n_classes"),
        ({"context": 2}, "context"),
        ({"widths": ()}, "widths"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_parameters_out_of_range_are_named(options, named):
    with pytest.raises(InputError, match=named):
        unet(**options)


def test_dropout_stays_on_in_evaluation_and_only_where_it_should():
    x = torch.rand(1, 1, 24, 24)
    with torch.no_grad():
        for where in ("blocks", "deep"):
            network = small(dropout=0.5, dropout_where=where)
            assert network.stochastic and not torch.equal(network(x), network(x))
        plain = small()
        assert not plain.stochastic and torch.equal(plain(x), plain(x))
    assert [small(dropout=0.5).rate(level) for level in range(3)] == [0.5, 0.5, 0.5]
    assert [small(dropout=0.5, dropout_where="deep").rate(level) for level in range(3)] == [0, 0.5, 0.5]


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.37])
def test_masks_keep_the_right_share_independently(rate):
    mask = keep_mask((4, 24, 50, 50), rate, "element", torch.device("cpu"), generator(1))
    assert mask.dtype == torch.int16 and set(mask.unique().tolist()) == {-1, 0}
    kept = (mask != 0).double()
    n = kept.numel()
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / n)
    # Neighbours share a 64-bit word: along any axis they must not be alike.
    centred = kept - kept.mean()
    for axis in range(1, 4):
        for lag in (1, 2, 4):
            length = centred.shape[axis] - lag
            product = (centred.narrow(axis, 0, length) * centred.narrow(axis, lag, length)).mean()
            assert abs(product) < 4.5 * rate * (1 - rate) / np.sqrt(n)
    whole = keep_mask((2, 6, 50, 50), rate, "channel", torch.device("cpu"), generator(1))
    assert whole.shape == (2, 6, 1, 1)


def test_the_expectation_of_thinned_features_is_the_features():
    network = small(dropout=0.25)
    x = torch.ones(1, 8, 200, 200)
    thinned = network._thinned(x, 0)
    assert thinned.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert abs(float(thinned.mean()) - 1) < 0.01


@pytest.mark.parametrize("where", ["blocks", "deep"])
@pytest.mark.parametrize("kind", ["element", "channel"])
def test_the_folded_network_is_the_network_for_the_same_masks(where, kind, monkeypatch):
    network = small(dropout=0.4, dropout_where=where, dropout_kind=kind)
    # As of a trained network: each channel with a scale and an offset of its own, and some that hardly vary.
    random = generator(8)
    for norm in (part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        for values, low, high in ((norm.weight, 0.5, 1.5), (norm.bias, -0.5, 0.5)):
            values.data.uniform_(low, high, generator=random)
        norm.running_var[::4], norm.weight.data[::4] = 1e-5, 1e-3
    x = torch.rand(1, 1, 24, 40)
    passes = 3

    def kept(features, call, number):
        random = generator(7, call, number)
        return keep_mask((1, *features.shape[1:]), 0.4, kind, torch.device("cpu"), random) != 0

    calls = itertools.count()

    def thin(level, features):
        call = next(calls)
        return features * torch.cat([kept(features, call, number) for number in range(passes)])

    folded = FoldedUNet(network)
    with torch.no_grad():
        found = folded.features(folded.shared(network.prepared(x)), passes, thin)
        n_calls = next(calls)
        for number in range(passes):
            plain = itertools.count()

            def thinned(features, level, number=number, plain=plain):
                # The folded network has the expectation in place of the last dropout.
                if network.rate(level) == 0 or (call := next(plain)) >= n_calls:
                    return features
                return features * kept(features, call, number) / 0.6

            monkeypatch.setattr(network, "_thinned", thinned)
            assert torch.allclose(folded.logits(found[number : number + 1]), network(x), atol=2e-5)
            assert next(plain) == n_calls + (where == "blocks")


def test_neighbours_are_repeated_at_the_ends():
    assert neighbours(4, 1).tolist() == [[0], [1], [2], [3]]
    assert neighbours(2, 5).tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 1]]


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    first = initialised(unet, 1).state_dict()
    assert torch.equal(torch.rand(4), expected)
    again, other = (initialised(unet, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_a_file_gives_the_same_network_and_other_files_are_refused(tmp_path):
    network = small(context=3, dropout=0.2, dropout_where="deep")
    network.set_normalization(7.0, 2.0)
    save_bundle(tmp_path / "unet.pth", {"global": network}, {"classes": ["pore", "active", "binder"]})
    networks, metadata = load_bundle(tmp_path / "unet.pth")
    read = networks["global"]
    assert read.architecture == network.architecture and not read.training and metadata["classes"][2] == "binder"
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in read.state_dict().items())
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="FIB-SEM networks of Cathodeflow"):
        load_bundle(tmp_path / "other.pth")


def test_a_training_step_in_bfloat16_has_finite_gradients():
    network = small(dropout=0.5).train().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(network(torch.rand(2, 1, 32, 32)), torch.randint(0, 3, (2, 32, 32)))
    loss.backward()
    assert all(torch.isfinite(one.grad).all() for one in network.parameters())
