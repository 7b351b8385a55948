"""SEM: data loading time, whole images in one forward pass, and the published pipeline with the same backbone.

The published pipeline reads every crop as a file through Pillow, resizes it, and gives the network one at a time. Peer
and ours run in turns on the same crops with the same EfficientNet-B7 (random weights: the arithmetic is the same).
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn.functional import cross_entropy

from cathodeflow.io.crops import read_crops, write_crops
from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.learning import resolve_device, resolve_precision
from cathodeflow.sem.cropping import cut_crops, plan_crops
from cathodeflow.sem.image_options import Crops
from cathodeflow.sem.model import SemNetwork, as_input, build_model
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.predictions import network_outputs
from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.training import train_network
from cathodeflow.sem.usable_area import UsableArea

CLASSES = ["333", "811"]
AREA = UsableArea(0, 960, 0, 1280)
B7 = "tf_efficientnet_b7"


def main() -> None:
    torch.set_num_threads(2)
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = write_images(folder)
        waiting(folder, images)
        whole_image(images)
        published(folder, images)


def write_images(folder: Path) -> pd.DataFrame:
    """Write 12 textured images of 1280 x 960 as JPEG, as a microscope hands them over."""
    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        coarse = rng.integers(0, 256, (960 // (4 + 4 * (number % 2)), 1280 // (4 + 4 * (number % 2))), np.uint8)
        path = folder / f"{number}.jpg"
        Image.fromarray(coarse).resize((1280, 960), Image.Resampling.BICUBIC).save(path, quality=90)
        split = "train" if number < 8 else "validation" if number < 10 else "test"
        rows.append({"name": str(path), "label": CLASSES[number % 2], "split": split, "rows": 960, "cols": 1280})
    return pd.DataFrame(rows).assign(**AREA._asdict(), pixel_nm=np.nan)


def waiting(folder: Path, images: pd.DataFrame) -> None:
    options = Crops(size=800, ratio=0.1, seed=0)
    table = plan_crops(images, options)
    geometry = {"pixels": 448, "side": 224, "margin": 1, "pixel_nm": None}
    write_crops(folder / "crops.zarr", cut_crops(table, read_micrograph, side=224), table, attributes=geometry)
    crops, table = read_crops(folder / "crops.zarr")
    print("fraction of an epoch spent waiting for crops, resnet18_half, 720 crops of 224 px, 2 epochs")
    for kind, memory in (("crops in memory", 4.0), ("crops read from Zarr", 0.0)):
        options = Train(epochs=2, progressive_fraction=0, warm_up=0, memory_gb=memory)
        trained = train_network(crops, table, options, classes=CLASSES)
        print(f"  {kind:24}{100 * trained.waiting:6.2f} %")


def whole_image(images: pd.DataFrame) -> None:
    network = build_model(CLASSES, Train()).eval()
    tiles = cut_tiles(read_micrograph(images["name"][0]), pixels=448, side=224, margin=1, overlap=0.25, area=AREA)
    crops = tiles.crops
    together = seconds(lambda: network_outputs(network, crops, batch_size=len(crops), device="cpu"))
    apart = seconds(
        lambda: [network_outputs(network, crops[i : i + 1], batch_size=1, device="cpu") for i in range(len(crops))]
    )
    print(f"a 1280 x 960 image, {len(crops)} tiles: in one forward pass {1e3 * together:.0f} ms, ", end="")
    print(f"one by one {1e3 * apart:.0f} ms, ratio {apart / together:.1f}")


def published(folder: Path, images: pd.DataFrame) -> None:
    table = plan_crops(images, Crops(size=32, ratio=0.5, seed=1))
    table = table[table["split"] == "test"].reset_index(drop=True)
    crops = np.asarray(cut_crops(table, read_micrograph, side=224))
    files = []
    for number, row in enumerate(table.itertuples()):
        files.append(folder / f"crop_{number}.png")
        area = read_micrograph(row.name)[row.row : row.row + row.rows, row.col : row.col + row.cols]
        Image.fromarray(area).convert("RGB").save(files[-1])
    network = build_model(CLASSES, Train(backbone=B7, normalization="none")).eval()
    arithmetic = resolve_precision("auto", resolve_device("cpu"))
    peer = seconds(lambda: [infer_one(network, path) for path in files[:8]]) / 8
    ours = seconds(lambda: network_outputs(network, crops, batch_size=16, device="cpu", arithmetic=arithmetic)) / len(
        crops
    )
    print(f"{B7}, crops of 224 px, ours in {arithmetic} and batches of 16")
    print(
        f"  inference: Pillow, one by one {1e3 * peer:.0f} ms per crop, ours {1e3 * ours:.0f}, ratio {peer / ours:.1f}"
    )
    peer = seconds(lambda: [train_step(network, load(path), "32-true") for path in files[:4]], repeats=1) / 4
    ours = seconds(lambda: train_step(network, as_input(crops, "cpu"), arithmetic), repeats=1) / len(crops)
    print(
        f"  training: Pillow, one by one {1e3 * peer:.0f} ms per crop, ours {1e3 * ours:.0f}, ratio {peer / ours:.1f}"
    )


def load(path: Path) -> torch.Tensor:
    """Read a crop as the published pipeline does: from its own file, resized by Pillow, to 0..1."""
    pixels = np.asarray(Image.open(path).convert("L").resize((224, 224)), np.float32)
    return torch.from_numpy(pixels / 255)[None, None]


def infer_one(network: SemNetwork, path: Path) -> Any:
    with torch.inference_mode():
        return network(load(path))


def train_step(network: SemNetwork, batch: torch.Tensor, precision: str) -> None:
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16-mixed"):
        loss = cross_entropy(network(batch), torch.zeros(len(batch), dtype=torch.int64))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    network.eval()


def seconds(action: Callable[[], Any], *, repeats: int = 3) -> float:
    """Return the shortest of some repeats, after one that warms up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
