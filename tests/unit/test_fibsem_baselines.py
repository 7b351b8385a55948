"""Networks that the paper compares with: FCN, SegNet, 3D U-Net; ResNet and U-Net in place of LCGAR."""

import pytest
import torch
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.architectures import build_network
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.local_baselines import IGNORED, LocalUNet, slice_inputs, slice_targets
from cathodeflow.fibsem.local_prediction import predict_pixels
from cathodeflow.fibsem.local_training import LocalPixels, build_local, fit_local, window_side_of
from cathodeflow.fibsem.mc_dropout import stochastic_passes
from cathodeflow.fibsem.network_options import Curriculum, TrainGlobal, TrainLocal
from cathodeflow.fibsem.windows import pad_slices
from tests.unit.test_fibsem_global_training import labelled, train_network


@pytest.mark.parametrize(("name", "context"), [("fcn", 1), ("segnet", 1), ("unet3d", 3)])
def test_baselines_learn_phases_of_slices_of_any_size(tmp_path, name, context):
    train, validation = (labelled(seed, n=4, context=context) for seed in range(2))
    options = {"widths": (4, 8, 8), "device": "cpu", "precision": "32-true", "context": context}
    trained = train_network(
        train, validation, architecture=name, epochs=12, batch_size=1, learning_rate=1e-2, seed=1, **options
    )
    history = trained.training.history
    # SegNet passes no features to its decoder, and learns slowly.
    assert history[-1]["train_loss"] < (0.98 if name == "segnet" else 0.8) * history[0]["train_loss"]
    save_bundle(tmp_path / "n.pt", {"network": trained.model}, {})
    read = load_bundle(tmp_path / "n.pt")[0]["network"]
    x = validation.slices[validation.neighbours][:1, :, :31, :27].float()
    with torch.no_grad():
        assert read(x).shape == (1, 3, 31, 27)
        # Rounding, by another layout in memory, may move a maximum of SegNet.
        same = read(x).argmax(1) == trained.model.eval()(x).argmax(1)
        assert same.float().mean() > 0.98


def test_the_3d_unet_uses_the_neighbouring_slices_and_needs_them():
    network = build_network(TrainGlobal(architecture="unet3d", context=3, dropout=0.0, widths=(4, 8, 8)), n_classes=2)
    x = torch.rand(1, 3, 16, 16)
    other = x.clone()
    other[:, 0] += 1
    with torch.no_grad():
        assert not torch.allclose(network.eval()(x), network(other))
    with pytest.raises(InputError, match="context: found 1 slice"):
        build_network(TrainGlobal(architecture="unet3d", context=1), n_classes=2)


def test_the_folded_unet_without_batch_normalisation_is_the_network():
    options = TrainGlobal(dropout=0.0, normalization="none", widths=(4, 8))
    network = build_network(options, n_classes=3).eval()
    assert not [name for name in network.state_dict() if "running" in name]
    x = torch.rand(1, 1, 16, 20)
    with torch.inference_mode():
        folded = stochastic_passes(network, "32-true")
        found = folded.logits(next(iter(folded.passes(x, [0], 1))))
        torch.testing.assert_close(found, network(x), atol=1e-5, rtol=1e-4)


def local_pixels(idk, side, seed=0):
    slices, labels, near = labelled(seed, n=4)
    logits = 3 * F.one_hot(labels.long(), 3).permute(0, 3, 1, 2).float()
    # The global model is wrong exactly where it is IDK.
    logits = torch.where(idk[:, None], logits.roll(1, 1), logits)
    padded = pad_slices(slices, logits, idk, side=side, low=80.0, high=200.0, device="cpu", near=near)
    pixels = idk.flatten().nonzero()[:, 0]
    return LocalPixels(padded, pixels, labels.flatten()[pixels], torch.rand(len(pixels)))


@pytest.mark.parametrize("architecture", ["unet", "resnet18"])
@pytest.mark.parametrize("inputs", ["image", "all"])
def test_other_local_networks_are_trained_stored_and_applied(tmp_path, architecture, inputs):
    if inputs == "image" and architecture == "resnet18":
        pytest.skip("slow, and the same code")
    options = TrainLocal(
        architecture=architecture, inputs=inputs, epochs=4, batch_size=32, pixels_per_epoch=128, seed=1, device="cpu",
        precision="32-true",
    )  # fmt: skip
    idk = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.2
    part = local_pixels(idk, window_side_of(options))
    trained = fit_local(part, part, options, low=80.0, high=200.0)
    assert trained.training.best["validation_loss"] < trained.training.history[0]["validation_loss"]
    save_bundle(tmp_path / "l.pt", {"local": trained.model}, {})
    read = load_bundle(tmp_path / "l.pt")[0]["local"]
    found = predict_pixels(read, part.padded, part.pixels, precision="32-true")
    again = predict_pixels(trained.model, part.padded, part.pixels, precision="32-true")
    torch.testing.assert_close(found, again, atol=1e-4, rtol=1e-4)
    # Where the global model is always wrong, its logits say nearly all; a ResNet needs longer to learn it.
    if architecture == "unet":
        assert (found.argmax(1) == part.labels).float().mean() > (0.9 if inputs == "all" else 0.45)


def test_the_local_unet_learns_from_idk_pixels_alone_and_knows_where_they_are():
    idk = torch.zeros(4, 32, 32, dtype=torch.bool)
    idk[1, 3:9, 4:20] = True
    part = local_pixels(idk, 11)
    target, numbers = slice_targets(part.padded, part.pixels, part.labels)
    assert numbers.tolist() == [1] and torch.equal(target != IGNORED, idk[1:2])
    model = LocalUNet(3, context=1, side=11, inputs="all", widths=(4, 8))
    x = slice_inputs(model, part.padded, numbers)
    assert x.shape == (1, 7, 32, 32)
    # Intensity, classes that are zero at IDK pixels, logits.
    expected = ((labelled(0, n=4).slices[1].float() - 80) / 60 - 1).clamp(-1, 1)
    torch.testing.assert_close(x[0, 0], expected)
    assert torch.equal(x[0, 1:4].sum(0) == 0, idk[1]) and torch.equal(x[0, 4:].permute(1, 2, 0), part.padded.logits[1])


def test_the_strict_curriculum_goes_from_low_to_high_entropy(monkeypatch):
    seen = []
    from cathodeflow.fibsem import local_training

    gather = local_training.gather
    monkeypatch.setattr(local_training, "gather", lambda padded, pixels: seen.append(pixels) or gather(padded, pixels))
    options = TrainLocal(epochs=1, batch_size=50, curriculum=Curriculum(pacing="strict"), device="cpu")
    idk = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.1
    part = local_pixels(idk, 11)
    fit_local(part, part, options, low=80.0, high=200.0)
    order = part.pixels[part.entropy.argsort()]
    drawn = torch.cat(seen)[: len(order)]
    assert torch.equal(drawn, order)


def test_the_paddings_and_windows_of_local_networks():
    assert window_side_of(TrainLocal(architecture="resnet34", padding="image", side=17)) == 17
    assert build_local(TrainLocal(architecture="resnet34"), n_classes=3, context=1).window == 11
