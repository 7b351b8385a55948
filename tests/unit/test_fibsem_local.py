import numpy as np
import pytest
import torch
from torch import nn

from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.fibsem import local_prediction
from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.local import LCGAR, WIDTHS
from cathodeflow.fibsem.local_training import LocalPixels, fit_local
from cathodeflow.fibsem.neighbours import neighbours
from cathodeflow.fibsem.network_options import TrainLocal
from cathodeflow.fibsem.phases import assemble, entropy, subtract_prior
from cathodeflow.fibsem.windows import gather
from tests.unit.test_fibsem_windows import pad_slices


def lcgar(**changed):
    """The published network; it differs in what is given."""
    published = {"context": 1, "side": 11, "inputs": "all", "padding": "zeros", "dropout": 0.2, "widths": WIDTHS}
    return LCGAR(**{"n_classes": 3} | published | changed)


def predict_local(*arguments, precision="auto", **more):
    return local_prediction.predict_local(*arguments, precision=precision, **more)


def predict_dense(*arguments, precision="auto", **more):
    return local_prediction.predict_dense(*arguments, precision=precision, **more)


def train_local(train, validation, *, low, high, **options):
    return fit_local(train, validation, TrainLocal.model_validate(options), low=low, high=high)


def data(seed=0, n=2, side=40, high=1.0):
    """Slices of two phases that only the image tells apart at IDK pixels, where the logits are noise."""
    random = generator(seed)
    truth = (torch.nn.functional.avg_pool2d(torch.randn(n, 1, side + 6, side + 6, generator=random), 7, 1) > 0)[
        :, 0
    ].long()
    slices = (truth * 0.5 + 0.25 + 0.1 * torch.randn(n, side, side, generator=random)).float() * high
    logits = 4 * nn.functional.one_hot(truth, 3).movedim(-1, 1).float() + torch.randn(
        n, 3, side, side, generator=random
    )
    idk = torch.rand(n, side, side, generator=random) < 0.3
    noise = torch.randn(n, 3, side, side, generator=random)
    logits = torch.where(idk[:, None], noise, logits)
    padded = pad_slices(slices, logits, idk, side=11, low=0.0, high=high)
    pixels = idk.flatten().nonzero()[:, 0]
    return (
        LocalPixels(padded, pixels, truth.flatten()[pixels].to(torch.uint8), entropy(logits).flatten()[pixels]),
        truth,
        idk,
        logits,
    )


def as_published(network):
    """Table 4 of the paper, layer by layer, on the same weights."""
    leaky, c = nn.LeakyReLU(0.01), list(network.convolutions)
    front = nn.Sequential(
        c[0], leaky, c[1], leaky, nn.MaxPool2d(2), c[2], leaky, c[3], leaky, nn.MaxPool2d(2), c[4], leaky, c[5], leaky, nn.Flatten()
    )  # fmt: skip

    def run(windows, logits):
        x = torch.cat([front(windows), logits], 1)
        return network.output(network.norm(network.dropout(leaky(network.hidden(x)))))

    return run


@pytest.mark.parametrize("side", [5, 11, 17, 25])
def test_it_is_the_published_network(side):
    network = lcgar(side=side).eval()
    assert [tuple(layer.weight.shape) for layer in network.convolutions] == [
        (32, 4, 3, 3), (32, 32, 3, 3), (16, 32, 3, 3), (16, 16, 3, 3), (8, 16, 1, 1), (8, 8, 1, 1)
    ]  # fmt: skip
    assert network.hidden.weight.shape == (128, 8 * (side // 4) ** 2 + 3) and network.output.weight.shape == (3, 128)
    windows, logits = torch.randn(7, 4, side, side), torch.randn(7, 3)
    with torch.no_grad():
        assert torch.allclose(network(windows, logits), as_published(network)(windows, logits), atol=1e-5)
    # With gradients the pooling is another function of the same value.
    assert torch.allclose(network(windows, logits), as_published(network)(windows, logits), atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "sees"),
    [("image", (1, 0, 0)), ("image+classes", (1, 1, 0)), ("image+logits", (1, 0, 1)), ("all", (1, 1, 1))],
)
def test_variants_see_what_they_are_named_after(inputs, sees):
    network = lcgar(inputs=inputs).eval()
    windows, logits = torch.randn(5, 4, 11, 11, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    network(windows, logits).sum().backward()
    gradient = torch.zeros_like(logits) if logits.grad is None else logits.grad
    found = (windows.grad[:, :1].any(), windows.grad[:, 1:].any(), gradient.any())
    assert tuple(map(int, found)) == sees


def test_training_learns_what_the_image_shows_and_depends_on_the_seed_alone():
    (train, *_), (validation, *_), (test, truth, idk, logits) = data(0, side=64), data(1), data(2)
    options = {
        "low": 0.0,
        "high": 1.0,
        "epochs": 4,
        "batch_size": 64,
        "curriculum": {"start_fraction": 0.4},
        "precision": "32-true",
    }
    trained = train_local(train, validation, **options)
    found = predict_local(trained.model, test.padded, test.pixels)
    assert (found.argmax(1) == test.labels).float().mean() > 0.85
    final = assemble(logits, idk, found)
    accuracy = [(labels == truth).float().mean() for labels in (logits.argmax(1), final.labels)]
    assert accuracy[1] > accuracy[0] + 0.1
    again = train_local(train, validation, **options).model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in trained.model.state_dict().items())
    # The ablation is another training with as many steps.
    without = train_local(train, validation, **options | {"curriculum": {"pacing": "none"}}).model.state_dict()
    assert not torch.equal(without["output.weight"], again["output.weight"])


def test_windows_are_mirrored_in_training():
    """What only left and right tell apart is learnt without mirroring, and not with it."""
    columns = torch.arange(64.0)
    rising = (columns // 8 % 2 == 0).expand(2, 64, 64)
    # A wave that goes up in eight columns, where the phase is 1, and down in the next.
    slices = torch.where(rising, columns % 8, 7 - columns % 8) / 7
    idk, logits = torch.ones(2, 64, 64, dtype=torch.bool), torch.zeros(2, 3, 64, 64)
    padded = pad_slices(slices, logits, idk, side=5, low=0.0, high=1.0)
    pixels = torch.arange(2 * 64 * 64)
    all_of_them = LocalPixels(padded, pixels, rising.flatten().to(torch.uint8), torch.zeros(len(pixels)))
    right = []
    for flips in (False, True):
        trained = train_local(
            all_of_them, all_of_them, low=0.0, high=1.0, side=5, epochs=4, batch_size=256, augment={"flip": flips}
        )
        right.append(
            float((predict_local(trained.model, padded, pixels).argmax(1) == all_of_them.labels).float().mean())
        )
    assert right[0] > 0.9 and right[1] < 0.75


def test_prediction_does_not_depend_on_batches_and_hardly_on_bfloat16(tmp_path):
    test, *_ = data()
    network = initialised(lcgar, 0).eval()
    network.set_grey(0.0, 1.0)
    whole = predict_local(network, test.padded, test.pixels, precision="32-true")
    parts = predict_local(network, test.padded, test.pixels, together=100, precision="32-true")
    assert torch.allclose(whole, parts, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(whole, as_published(network)(*gather(test.padded, test.pixels)), atol=1e-4)
    rounded = predict_local(network, test.padded, test.pixels, precision="bf16-mixed")
    assert rounded.dtype == torch.float32 and (rounded - whole).abs().max() < 0.05 * whole.std()
    assert predict_local(network, test.padded, test.pixels[:0]).shape == (0, 3)
    save_bundle(tmp_path / "lcgar.pth", {"local": network}, {})
    read = load_bundle(tmp_path / "lcgar.pth")[0]["local"]
    assert torch.equal(predict_local(read, test.padded, test.pixels, precision="32-true"), whole)
    assert (float(read.grey_low), float(read.grey_high)) == (0, 1)


@pytest.mark.parametrize("side", [11, 17])
@pytest.mark.parametrize("context", [1, 3])
def test_whole_slices_give_what_windows_do_where_edges_are_seen(side, context):
    random = generator(3)
    slices, logits = torch.rand(3, 45, 52, generator=random), torch.randn(3, 3, 45, 52, generator=random)
    idk = torch.rand(3, 45, 52, generator=random) < 0.2
    # A strip without any, and the corners.
    idk[1, :16] = False
    idk[:, [0, 0, -1, -1], [0, -1, 0, -1]] = True
    network = initialised(lambda: lcgar(side=side, context=context, padding="image"), 0).eval()
    options = {"side": network.window, "low": 0, "high": 1, "near": neighbours(3, context)}
    padded, pixels = pad_slices(slices, logits, idk, **options), idk.flatten().nonzero()[:, 0]
    expected = predict_local(network, padded, pixels, precision="32-true")
    for strip in (16, 256):
        found = predict_dense(network, padded, pixels, strip=strip, precision="32-true")
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.std()))
    rounded = predict_dense(network, padded, pixels, precision="bf16-mixed")
    assert (rounded - expected).abs().max() < 0.1 * expected.std()
    assert predict_dense(network, padded, pixels[:0]).shape == (0, 3)


def test_the_pixel_itself_is_in_the_middle_of_what_is_seen():
    network = initialised(lambda: lcgar(padding="image"), 0).eval()
    assert network.window == 21
    windows = torch.rand(4, 4, 21, 21, requires_grad=True)
    network(windows, torch.zeros(4, 3)).square().sum().backward()
    seen = windows.grad.abs().sum((0, 1)) > 0
    assert seen[:20, :20].float().mean() > 0.9 and not seen[20].any() and not seen[:, 20].any()


def test_bad_input_is_named():
    test, *_ = data()
    with pytest.raises(InputError, match="padding 'zeros'"):
        predict_dense(lcgar(), test.padded, test.pixels)
    with pytest.raises(InputError, match="found a side of 10 px"):
        lcgar(side=10)
    with pytest.raises(InputError, match="windows of 11 px"):
        predict_local(lcgar(side=17), test.padded, test.pixels)
    with pytest.raises(InputError, match="contrast"):
        lcgar().set_grey(3, 3)
    order = torch.arange(len(test.pixels)).flip(0)
    wide = pad_slices(
        torch.rand(2, 40, 40), torch.rand(2, 3, 40, 40), torch.ones(2, 40, 40) > 0, side=21, low=0, high=1
    )
    with pytest.raises(InputError, match="not ascending"):
        predict_dense(lcgar(padding="image"), wide, test.pixels[order])
    nothing = test._replace(pixels=test.pixels[:0], labels=test.labels[:0], entropy=test.entropy[:0])
    with pytest.raises(InputError, match="validation pixels"):
        train_local(test, nothing, low=0, high=1, epochs=1)


def test_the_final_map_is_local_where_idk_and_global_elsewhere():
    logits = torch.tensor([[[[2.0, 0.0]], [[0.0, 1.0]], [[0.0, 0.0]]]])
    final = assemble(logits, torch.tensor([[[False, True]]]), torch.tensor([[0.0, 0.0, 3.0]]))
    assert final.labels.tolist() == [[[0, 2]]] and final.labels.dtype == torch.uint8
    expected = np.exp([[2, 0], [0, 0], [0, 3]]) / np.exp([[2, 0], [0, 0], [0, 3]]).sum(0)
    assert np.allclose(final.probabilities[0, :, 0], expected)
    assert np.allclose(final.uncertainty[0, 0], -(expected * np.log(expected)).sum(0))
    alone = assemble(logits)
    assert alone.labels.tolist() == [[[0, 1]]] and torch.allclose(alone.uncertainty, entropy(logits))
    assert logits[0, 2, 0, 1] == 0
    with pytest.raises(InputError, match=r"\(1, 3\)"):
        assemble(logits, torch.tensor([[[False, True]]]), torch.zeros(2, 3))


def test_subtracting_the_prior_undoes_class_weights():
    p = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)
    weights = [0.5, 1.0, 4.0]
    weighted = p * torch.tensor(weights).view(1, 3, 1, 1)
    back = torch.softmax(subtract_prior((weighted / weighted.sum()).log(), weights), 1)
    assert torch.allclose(back, p)
    for bad in ([1.0, 2.0], [1.0, 0.0, 2.0]):
        with pytest.raises(InputError, match="3 positive numbers"):
            subtract_prior(p, bad)
