"""Scale and offsets of logits that are fitted on validation."""

import torch
from torch import nn

from cathodeflow.fibsem.calibration import calibrate_output


def pixels(n: int = 40_000):
    """Features, labels drawn from their true probabilities, and a layer that is too sure and leans to a class."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=random)
    true = nn.Linear(4, 3)
    with torch.no_grad():
        true.weight.copy_(torch.randn(3, 4, generator=random))
        true.bias.copy_(torch.tensor([1.0, 0.0, -1.5]))
        labels = torch.multinomial(true(x).softmax(1), 1, generator=random)[:, 0]
        leaning = nn.Linear(4, 3)
        leaning.weight.copy_(3 * true.weight)
        leaning.bias.copy_(3 * true.bias + torch.tensor([0.0, -1.0, 4.0]))
    return x, labels, true, leaning


def test_scale_and_shares_of_the_classes_come_out_right():
    x, labels, true, layer = pixels()
    with torch.no_grad():
        calibrate_output(layer, layer(x), labels)
        found = layer(x).softmax(1)
    expected = torch.bincount(labels) / len(labels)
    # At the optimum of the cross-entropy with offsets, mean probabilities are the shares.
    torch.testing.assert_close(found.mean(0), expected.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found, true(x).softmax(1).detach(), atol=0.02, rtol=0)


def test_a_class_without_pixels_is_left_as_it_is():
    x, labels, _, layer = pixels(5000)
    kept = labels != 2
    with torch.no_grad():
        values = calibrate_output(layer, layer(x[kept]), labels[kept])
    assert values[3] == 0 and torch.isfinite(layer.weight).all() and torch.isfinite(layer.bias).all()
