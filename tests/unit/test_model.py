import hashlib
import json
import pickle

import pytest
import torch
from torch.nn import functional as F

from cathodeflow.bragg.model import BraggNN, from_weights
from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model, save_model

HIDDEN = (16, 8, 4, 2)
SHAPES = {
    "cnn_layers.0": (64, 1, 3, 3), "cnn_layers.2": (32, 64, 3, 3), "cnn_layers.4": (8, 32, 3, 3),
    "nlb.theta_layer": (32, 64, 1, 1), "nlb.phi_layer": (32, 64, 1, 1), "nlb.g_layer": (32, 64, 1, 1),
    "nlb.out_cnn": (64, 32, 1, 1),
    "dense_layers.0": (16, 200), "dense_layers.2": (8, 16), "dense_layers.4": (4, 8), "dense_layers.6": (2, 4),
    "dense_layers.8": (2, 2),
}  # fmt: skip


def random_model(patch_size=11, hidden_units=HIDDEN, seed=0):
    """Weights and biases all different from zero, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    model = BraggNN(patch_size, hidden_units, generator=generator).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def reference(weights, x):
    """The network written layer by layer from its description, with nothing multiplied out."""

    def conv(name, y):
        return F.conv2d(y, weights[name + ".weight"], weights[name + ".bias"])

    y = conv("cnn_layers.0", x)
    n, _, height, width = y.shape
    theta, phi, g = (conv(f"nlb.{name}_layer", y).reshape(n, 32, height * width) for name in ("theta", "phi", "g"))
    score = torch.einsum("nci,ncj->nij", theta, phi)
    attention = torch.exp(score) / torch.exp(score).sum(2, keepdim=True)
    attended = torch.einsum("nij,ncj->nci", attention, g).reshape(n, 32, height, width)
    y = F.leaky_relu(y + conv("nlb.out_cnn", attended), 0.01)
    y = F.leaky_relu(conv("cnn_layers.2", y), 0.01)
    y = F.leaky_relu(conv("cnn_layers.4", y), 0.01).reshape(n, -1)
    dense = [name.removesuffix(".weight") for name in weights if name.startswith("dense") and name.endswith("weight")]
    for name in dense:
        y = y @ weights[name + ".weight"].T + weights[name + ".bias"]
        if name != dense[-1]:
            y = torch.where(y > 0, y, 0.01 * y)
    return y


def test_parameters_are_those_of_the_published_network():
    model = BraggNN(11, HIDDEN)
    assert sum(parameter.numel() for parameter in model.parameters()) == 33_172
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == {n + ".weight": s for n, s in SHAPES.items()} | {n + ".bias": s[:1] for n, s in SHAPES.items()}


@pytest.mark.parametrize(("patch_size", "hidden_units"), [(11, (16, 8, 4, 2)), (7, (4,)), (15, (64, 32, 16, 8))])
def test_forward_and_gradients_are_those_of_the_layers_one_by_one(patch_size, hidden_units):
    model = random_model(patch_size, hidden_units)
    x = torch.rand(5, 1, patch_size, patch_size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = {name: tensor.detach().clone().requires_grad_() for name, tensor in model.named_parameters()}
    found, expected = model(x), reference(weights, x)
    assert found.shape == (5, 2)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    for name, parameter in model.named_parameters():
        # phi's bias adds the same to a whole row of the softmax: it has no effect, and so no gradient here.
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, weights[name].grad, rtol=1e-8, atol=1e-10, msg=name)


def test_initial_weights_are_xavier_uniform_from_the_generator_alone():
    first, again = (BraggNN(11, HIDDEN, generator=torch.Generator().manual_seed(3)).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = BraggNN(11, HIDDEN, generator=torch.Generator().manual_seed(4)).state_dict()
    assert not torch.equal(first["cnn_layers.2.weight"], other["cnn_layers.2.weight"])
    bound = (6 / (9 * (64 + 32))) ** 0.5
    weight = first["cnn_layers.2.weight"]
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    hidden = {f"dense_layers.{number}.bias" for number in (0, 2, 4, 6)}
    for name, tensor in first.items():
        if name.endswith("bias"):
            assert torch.equal(tensor, torch.full_like(tensor, 0.1 if name in hidden else 0.0)), name


def test_weights_bring_their_architecture():
    model = random_model(13, (32, 16)).float()
    rebuilt = from_weights(model.state_dict(), patch_size=13, where="w")
    assert (rebuilt.patch_size, rebuilt.hidden_units, rebuilt.training) == (13, (32, 16), False)
    x = torch.rand(3, 1, 13, 13)
    assert torch.equal(rebuilt(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: BraggNN(9, HIDDEN).state_dict(), "w.pth: found weights for patch size 9, expected 11"),
        (lambda w: {"conv.weight": torch.zeros(3)}, "w.pth: found no dense_layers, expected the weights of a BraggNN"),
        (lambda w: w | {"dense_layers.0.weight": torch.zeros(16, 201)}, "a first dense layer of 201 inputs"),
        (lambda w: {n: t for n, t in w.items() if not n.startswith("nlb")}, "nlb.theta_layer.weight"),
        (lambda w: w | {"cnn_layers.2.weight": torch.zeros(32, 64, 5, 5)}, "cnn_layers.2.weight"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    with pytest.raises(InputError) as caught:
        from_weights(change(BraggNN(11, HIDDEN).state_dict()), patch_size=11, where="w.pth")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("patch_size", [5, 10])
def test_impossible_patch_sizes_are_refused(patch_size):
    with pytest.raises(InputError, match="an odd number, at least 7"):
        BraggNN(patch_size, HIDDEN)


def test_a_model_file_is_a_plain_state_dict_with_metadata(tmp_path):
    model = random_model().float()
    path = tmp_path / "deep" / "model.pth"
    save_model(path, model.state_dict(), {"patch_size": 11, "note": "ä"})
    plain = torch.load(path, weights_only=True)
    BraggNN(11, HIDDEN).load_state_dict(plain, strict=True)
    weights, metadata = load_model(path)
    assert metadata == {"patch_size": 11, "note": "ä"}
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    first = hashlib.sha256(path.read_bytes()).digest()
    save_model(path, model.state_dict(), {"note": "ä", "patch_size": 11})
    assert hashlib.sha256(path.read_bytes()).digest() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["model.pth"]


def test_foreign_weights_have_no_metadata(tmp_path):
    torch.save(
        {"module." + name: tensor for name, tensor in BraggNN(11, HIDDEN).state_dict().items()}, tmp_path / "w.pth"
    )
    weights, metadata = load_model(tmp_path / "w.pth")
    assert metadata == {} and from_weights(weights, patch_size=None, where="w").patch_size == 11


class Malicious:
    def __reduce__(self):
        return (json.loads, ('{"ran": true}',))


def test_unsafe_damaged_and_missing_files_are_refused_in_one_line(tmp_path):
    files = {name: tmp_path / name for name in ("missing", "empty", "text", "cut", "code", "list", "pickle")}
    files["empty"].write_bytes(b"")
    files["text"].write_text("not weights")
    torch.save(BraggNN(11, HIDDEN).state_dict(), files["cut"])
    files["cut"].write_bytes(files["cut"].read_bytes()[:70_000])
    torch.save({"a": Malicious()}, files["code"])
    torch.save([1, 2], files["list"])
    files["pickle"].write_bytes(pickle.dumps({"a": Malicious()}))
    for name, path in files.items():
        with pytest.raises(InputError) as caught:
            load_model(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value), name
