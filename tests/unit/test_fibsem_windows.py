import numpy as np
import pytest
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem import windows
from cathodeflow.fibsem.neighbours import neighbours
from cathodeflow.fibsem.windows import gather


def pad_slices(*arguments, device="cpu", **more):
    return windows.pad_slices(*arguments, device=device, **more)


def volume(n=3, rows=20, cols=26, seed=0):
    random = torch.Generator().manual_seed(seed)
    slices = torch.randint(0, 256, (n, rows, cols), generator=random, dtype=torch.uint8)
    return slices, torch.randn(n, 3, rows, cols, generator=random), torch.rand(n, rows, cols, generator=random) < 0.3


def one_by_one(slices, logits, idk, pixels, side, context):
    """The same windows, one pixel after another, in NumPy."""
    image = np.clip((slices.numpy().astype(np.float64) - 10) / 230 * 2 - 1, -1, 1)
    classes = np.eye(3)[logits.argmax(1).numpy()] * ~idk.numpy()[..., None]
    margin = side // 2
    widths = ((0, 0), (margin, margin), (margin, margin))
    image = np.pad(image, widths, mode="reflect")
    classes = np.pad(classes, (*widths, (0, 0)), mode="reflect")
    windows = []
    for pixel in pixels.tolist():
        number, row, col = np.unravel_index(pixel, slices.shape)
        cut = np.s_[row : row + side, col : col + side]
        channels = [
            image[np.clip(number + step, 0, len(image) - 1)][cut] for step in range(-(context // 2), context // 2 + 1)
        ]
        windows.append(np.concatenate([channels, classes[number][cut].transpose(2, 0, 1)]))
    return np.array(windows)


@pytest.mark.parametrize(("side", "context"), [(11, 1), (5, 3), (25, 1), (11, 5), (1, 1)])
def test_windows_are_those_cut_one_by_one(side, context):
    slices, logits, idk = volume()
    padded = pad_slices(slices, logits, idk, side=side, low=10, high=240, near=neighbours(3, context))
    pixels = torch.cat([idk.flatten().nonzero()[:, 0], torch.tensor([0, 25, idk.numel() - 1])])
    windows, found = gather(padded, pixels)
    assert windows.shape == (len(pixels), context + 3, side, side) and padded.shape == (3, 20, 26)
    assert windows.is_contiguous(memory_format=torch.channels_last)
    assert np.allclose(windows.numpy(), one_by_one(slices, logits, idk, pixels, side, context), atol=1e-6)
    assert torch.equal(found, logits.permute(0, 2, 3, 1).reshape(-1, 3)[pixels])


def test_the_middle_of_an_idk_window_has_no_class():
    slices, logits, idk = volume()
    windows, _ = gather(pad_slices(slices, logits, idk, side=11, low=0, high=255), idk.flatten().nonzero()[:, 0])
    assert not windows[:, 1:, 5, 5].any()
    assert set(windows[:, 1:].sum(1).unique().tolist()) == {0, 1}


def test_a_slice_smaller_than_a_window_is_mirrored_again():
    slices, logits, idk = volume(1, 1, 4)
    windows, _ = gather(pad_slices(slices, logits, idk, side=11, low=0, high=255), torch.tensor([0, 3]))
    assert torch.isfinite(windows).all() and windows.shape == (2, 4, 11, 11)


def test_memory_is_that_of_the_slices():
    slices, logits, idk = volume(2, 64, 64)
    padded = pad_slices(slices, logits, idk, side=25, low=0, high=255)
    held = sum(part.untyped_storage().nbytes() for part in padded[:3])
    # Grey and class with margins, and the logits: windows of all pixels would be some 300 times as much.
    assert held <= 2 * (5 * 88 * 88 + 12 * 64 * 64)


def test_bad_input_is_named():
    slices, logits, idk = volume()
    for options, named in [({"side": 10}, "window"), ({"low": 5, "high": 5}, "contrast")]:
        with pytest.raises(InputError, match=named):
            pad_slices(slices, logits, idk, **{"side": 11, "low": 0, "high": 255} | options)
    with pytest.raises(InputError, match=r"\(3, 20, 25\)"):
        pad_slices(slices[..., 1:], logits, idk, side=11, low=0, high=255)
