"""FIB-SEM: stochastic passes, windows for training, and LCGAR on a slice, each compared with its usual implementation.

- Passes: T separate calls of the same network in float32, eager, with torch's own dropout.
- Windows: how many a second are gathered in batches for training.
- A volume: time and peak memory of all steps, slice by slice.
- LCGAR: a torch Dataset with a window per pixel, cut in NumPy or in torch, float32; read by a DataLoader in the
  paper's batches of 1024, and one pixel at a time.

Networks have random weights: the arithmetic is the same. Peer and ours run in turns in one process.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from cathodeflow.fibsem.idk import PixelNetwork, idk_probability
from cathodeflow.fibsem.initial_weights import initialised
from cathodeflow.fibsem.local import LCGAR, WIDTHS
from cathodeflow.fibsem.local_prediction import predict_dense, predict_local
from cathodeflow.fibsem.local_training import paced
from cathodeflow.fibsem.mc_dropout import Prediction, predict_slices
from cathodeflow.fibsem.network_options import PredictGlobal, TrainGlobal, TrainIdk, TrainLocal
from cathodeflow.fibsem.phases import assemble, entropy
from cathodeflow.fibsem.unet import UNet
from cathodeflow.fibsem.windows import gather, pad_slices
from cathodeflow.learning import resolve_device, resolve_precision

ROWS, COLS, SIDE = 224, 256, 11


def unet(kind: type[UNet] = UNet, **changed: Any) -> UNet:
    """U-Net of the default options, without dropout unless it is given."""
    architecture = TrainGlobal(**{"dropout": 0.0} | changed).model_dump(
        include={"context", "widths", "dropout", "dropout_where", "dropout_kind"}
    )
    return kind(3, **architecture)


def lcgar(**changed: Any) -> LCGAR:
    """LCGAR of the default options."""
    architecture = TrainLocal(**changed).model_dump(include={"side", "inputs", "padding", "dropout"})
    return LCGAR(3, context=1, widths=WIDTHS, **architecture)


def predict(network: UNet, x: Tensor, device: torch.device, index: int = 0) -> Prediction:
    """Average 20 stochastic passes."""
    options = PredictGlobal()
    return predict_slices(
        network, x, indices=[index], passes=TrainGlobal().passes, tta=False, tile=options.tile,
        overlap=options.overlap, seed=0, precision="auto", device=device,
    )  # fmt: skip


class PlainUNet(UNet):
    """The same network with torch's dropout and in torch's usual memory format."""

    def _thinned(self, x: Tensor, level: int) -> Tensor:
        return F.dropout(x, self.rate(level), training=True)

    def prepared(self, x: Tensor) -> Tensor:  # noqa: D102
        return super().prepared(x).contiguous()


class NumpyPixels(Dataset[tuple[Tensor, Tensor]]):
    """A window per pixel, cut in NumPy."""

    def __init__(self, image: Tensor, classes: Tensor, idk: Tensor, logits: Tensor, pixels: Tensor) -> None:
        margin = SIDE // 2
        self.image = np.pad(image.numpy() * 2 - 1, margin, mode="reflect")
        # Zeros for pixels that are IDK.
        rows = np.vstack([np.eye(3, dtype=np.float32), np.zeros((1, 3), np.float32)])
        self.table, self.logits = rows, logits.numpy()
        self.classes = np.pad(np.where(idk.numpy(), 3, classes.numpy()), margin, mode="reflect")
        self.places = np.stack(np.divmod(pixels.numpy(), COLS), 1)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        row, col = self.places[number]
        cut = np.s_[row : row + SIDE, col : col + SIDE]
        one_hot = self.table[self.classes[cut]].transpose(2, 0, 1)
        window = np.concatenate([self.image[cut][None], one_hot])
        return torch.from_numpy(window), torch.from_numpy(self.logits[:, row, col])


class TorchPixels(NumpyPixels):
    """A window per pixel, cut with torch's functions."""

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        row, col = self.places[number]
        cut = np.s_[row : row + SIDE, col : col + SIDE]
        one_hot = F.one_hot(torch.from_numpy(self.classes[cut]).long(), 4)[..., :3].permute(2, 0, 1).float()
        window = torch.cat([torch.from_numpy(self.image[cut])[None], one_hot])
        return window, torch.from_numpy(self.logits[:, row, col])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--slices", type=int, default=133)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = resolve_device(arguments.device)
    print(f"slices of {ROWS} x {COLS}, {arguments.threads} threads, {device.type}, ", end="")
    print(f"ours in {resolve_precision('auto', device)}, torch {torch.__version__}")
    passes(device, arguments.repeats)
    windows(device, arguments.repeats)
    local(device, arguments.repeats)
    volume(device, arguments.slices)


def passes(device: torch.device, repeats: int) -> None:
    x = torch.rand(1, 1, ROWS, COLS)
    print("T = 20 stochastic passes over a slice, U-Net 16-32-64-128")
    for where, dropout in (("blocks", 0.5), ("deep", 0.1)):
        options: dict[str, Any] = {"dropout": dropout, "dropout_where": where}
        peer, ours = unet(PlainUNet, **options).to(device), unet(**options).to(device)
        # Batch norms of both see the same.
        with torch.no_grad():
            for _ in range(5):
                ours.train()(torch.rand(4, 1, 64, 64, device=device))
        peer.load_state_dict(ours.state_dict())
        peer.eval()

        def separate(peer: UNet = peer) -> Tensor:
            with torch.inference_mode():
                found = torch.stack([peer(x.to(device)) for _ in range(20)])
                return torch.stack([found[:, 0].mean(0), found[:, 0].std(0)]).cpu()

        def together(ours: UNet = ours) -> Tensor:
            return predict(ours, x, device).logits[0]

        slow, (mean, deviation) = seconds(separate, repeats)
        fast, logits = seconds(together, repeats)
        error = float((deviation * (2 / 20) ** 0.5).square().mean().sqrt())
        apart = float((logits - mean).square().mean().sqrt())
        agree = float((logits.argmax(0) == mean.argmax(0)).float().mean())
        print(f"  dropout {dropout} in {where:6}  separate {1e3 * slow:6.0f} ms, ours {1e3 * fast:6.0f} ms, ", end="")
        print(f"ratio {slow / fast:5.1f}; apart {apart:.5f}, sampling error {error:.5f}, ", end="")
        print(f"standard deviation of the logits {float(mean.std()):.3f}, same class at {100 * agree:.2f} %")


def windows(device: torch.device, repeats: int) -> None:
    slices, logits, idk = slices_with_idk(16)
    padded = pad_slices(slices, logits, idk, side=SIDE, low=0, high=1, device=device)
    pixels = idk.flatten().nonzero()[:, 0]
    order = torch.argsort(entropy(logits).flatten()[pixels], stable=True)

    def epoch() -> int:
        random = torch.Generator().manual_seed(0)
        batches = paced(order, len(order), random, batch_size=1024, count=len(order))
        return sum(len(gather(padded, pixels[rows])[0]) for rows in batches)

    took, count = seconds(epoch, repeats)
    print(f"windows of {SIDE} x {SIDE} for training, batches of 1024 in random order: {count / took:.0f} per second")


def local(device: torch.device, repeats: int) -> None:
    slices, logits, idk = slices_with_idk(1)
    pixels = idk.flatten().nonzero()[:, 0]
    network = initialised(lcgar, 0).eval()
    plain = initialised(lcgar, 0).eval().to(device)

    def ours() -> Tensor:
        padded = pad_slices(slices, logits, idk, side=SIDE, low=0, high=1, device=device)
        return predict_local(network, padded, pixels, precision="auto")

    fast, found = seconds(ours, repeats)
    seen = initialised(lambda: lcgar(padding="image"), 0).eval()

    def whole_slice() -> Tensor:
        padded = pad_slices(slices, logits, idk, side=seen.window, low=0, high=1, device=device)
        return predict_dense(seen, padded, pixels, precision="auto")

    shared, _ = seconds(whole_slice, repeats)
    print(
        f"LCGAR over the {len(pixels)} IDK pixels of a slice: ours, zero padding as published, ",
        end="",
    )
    print(f"{1e3 * fast:.0f} ms; image padding, shared features, {1e3 * shared:.0f} ms")
    for name, kind, batch_size, some in (
        ("NumPy, batches of 1024", NumpyPixels, 1024, pixels),
        ("torch, batches of 1024", TorchPixels, 1024, pixels),
        ("NumPy, one by one", NumpyPixels, 1, pixels[:500]),
    ):
        data = kind(slices[0], logits[0].argmax(0), idk[0], logits[0], some)

        def each(data: Any = data, batch_size: int = batch_size) -> Tensor:
            with torch.inference_mode():
                return torch.cat([plain(x.to(device), y.to(device)).cpu() for x, y in DataLoader(data, batch_size)])

        slow, expected = seconds(each, repeats)
        slow *= len(pixels) / len(some)
        apart = float((found[: len(some)] - expected).abs().max() / expected.std())
        print(f"  a dataset of pixels, {name:24}{1e3 * slow:7.0f} ms, ratios {slow / fast:5.1f}", end="")
        print(f" and {slow / shared:5.1f}; of the first, ", end="")
        print(f"largest difference {apart:.3f} of the standard deviation of the logits")


def volume(device: torch.device, n: int) -> None:
    """Predict a volume slice by slice, as `fibsem_predict` does: what is held is one slice's."""
    network = initialised(lambda: unet(dropout=0.5), 0).eval()
    classifier = initialised(lambda: PixelNetwork(4, 1, hidden=TrainIdk().hidden), 0).eval()
    local_network = initialised(lcgar, 0).eval()
    random, peaks, start = torch.Generator().manual_seed(0), [], time.perf_counter()
    for number in range(n):
        x = torch.rand(1, ROWS, COLS, generator=random)
        found = predict(network, x, device, number)
        probability = idk_probability(classifier, *found)
        idk = probability > np.quantile(probability.numpy(), 0.83)
        padded = pad_slices(x, found.logits, idk, side=SIDE, low=0, high=1, device=device)
        pixels = idk.flatten().nonzero()[:, 0]
        assemble(found.logits, idk, predict_local(local_network, padded, pixels, precision="auto"))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    took = time.perf_counter() - start
    few = min(10, n)
    print(
        f"volume of {n} slices, T = 20, IDK and LCGAR at 17 % of the pixels: {took:.1f} s, peak memory of the process ",
        end="",
    )
    print(f"{peaks[few - 1]:.0f} MiB after {few} slices, {peaks[-1]:.0f} MiB after all")


def slices_with_idk(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth random logits, and as IDK the 17 % of the pixels with the highest entropy: bands along the boundaries."""
    coarse = torch.randn(n, 3, ROWS // 8, COLS // 8)
    logits = 3 * F.interpolate(coarse, (ROWS, COLS), mode="bicubic")
    uncertainty = entropy(logits)
    return torch.rand(n, ROWS, COLS), logits, uncertainty > np.quantile(uncertainty.numpy(), 0.83)


def seconds(action: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the shortest of some repeats, after one that warms up, and the result."""
    result = action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = action()
        times.append(time.perf_counter() - start)
    return min(times), result


if __name__ == "__main__":
    main()
