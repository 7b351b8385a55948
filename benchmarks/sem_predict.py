"""SEM: `cathodeflow sem predict` on a folder, start-up and time per image, against torch with the same network.

python benchmarks/sem_predict.py [--images 40] [--model MODEL] [--folder IMAGES] [--map 20000]

Without a model the network of config/sem.yaml is used with random weights: the arithmetic is the same. The peer is the
same network run by torch, one image after the other, all threads inside a layer. `--map` is the side of a map that is
classified in parts, with the largest memory of its process.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tifffile
import torch
from PIL import Image

from cathodeflow.io.micrographs import list_micrographs, read_micrograph
from cathodeflow.sem.model import build_model, load_network, save_network
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.onnx_export import onnx_graph
from cathodeflow.sem.ood import feature_statistics
from cathodeflow.sem.predictions import network_outputs
from cathodeflow.sem.tiles import cut_tiles
from cathodeflow.sem.usable_area import UsableArea

CLASSES = ["333", "622", "811"]
GEOMETRY = {"pixels": 640, "side": 288, "margin": 1, "pixel_nm": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--model")
    parser.add_argument("--folder")
    parser.add_argument("--map", type=int, default=0)
    given = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = given.model or write_model(folder / "model.pt")
        images = Path(given.folder) if given.folder else write_images(folder / "images", given.images)
        few = folder / "few"
        few.mkdir()
        paths = list_micrographs(str(images))[: given.images]
        many = folder / "many"
        many.mkdir()
        for number, path in enumerate(paths):
            os.symlink(os.path.abspath(path), many / f"{number:04d}{Path(path).suffix}")
        os.symlink(os.path.abspath(paths[0]), few / Path(paths[0]).name)
        start, start_cpu = min(run(few, model, folder, threads=2) for _ in range(3))
        print(f"RESULTS start-up and one image: {start:.2f} s, of the processor {start_cpu:.2f} s")
        for threads in (1, 2):
            seconds, cpu = min(run(many, model, folder, threads=threads) for _ in range(2))
            each, of_cpu = (1e3 * value / (len(paths) - 1) for value in (seconds - start, cpu - start_cpu))
            print(
                f"RESULTS {len(paths)} images, {threads} threads: {seconds:.2f} s, {each:.0f} ms per further image, "
                f"of the processor {of_cpu:.0f} ms"
            )
        by_torch = peer(model, paths[:8])
        print(f"RESULTS peer, torch, 2 threads inside a layer: of the processor {by_torch:.0f} ms per image")
        if given.map:
            tifffile.imwrite(folder / "map.tif", parts(given.map), shape=(given.map,) * 2, dtype=np.uint8,
                             tile=(512, 512), compression="zlib")  # fmt: skip
            seconds, _ = run(folder / "map.tif", model, folder, threads=2)
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"RESULTS map of {given.map} x {given.map} px: {seconds:.0f} s, at most {memory:.2f} GiB")


def run(images: Path, model: str, folder: Path, *, threads: int) -> tuple[float, float]:
    """Run the command, and return its seconds, and those of the processor, which other work hardly changes."""
    command = [sys.executable, "-m", "cathodeflow", "sem", "predict", images, "--model", model]
    command += ["--out", folder / "p.csv", "--threads", str(threads), "--device", "cpu"]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, cpu


def peer(model: str, paths: list[str]) -> float:
    """Return the processor's milliseconds per image of torch, without its start."""
    torch.set_num_threads(2)
    network, metadata = load_network(model)
    times = []
    for path in paths:
        begin = time.process_time()
        image = read_micrograph(path)
        area = UsableArea(0, image.shape[0], 0, image.shape[1])
        geometry = {name: metadata[name] for name in GEOMETRY}
        tiles = cut_tiles(image, overlap=0.25, area=area, **geometry)
        network_outputs(network, tiles.crops, batch_size=len(tiles.crops), device="cpu")
        times.append(time.process_time() - begin)
    return 1e3 * float(np.median(times))


def write_model(path: Path) -> str:
    model = build_model(CLASSES, Train(backbone="tf_efficientnet_lite0")).eval()
    crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64), dtype=np.uint8)
    features = network_outputs(model, crops, batch_size=6, device="cpu").features
    statistics = feature_statistics(features, np.arange(6) % 3, np.arange(6))
    metadata = GEOMETRY | {"temperature": 1.0, "original_temperature": 1.0, "statistics": statistics}
    save_network(path, model, metadata, graph=onnx_graph(model, metadata | {"classes": CLASSES}))
    return str(path)


def write_images(folder: Path, count: int) -> Path:
    """Write textured images of 1280 x 960 as JPEG, as a microscope hands them over."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (240, 320), np.uint8)
        image = Image.fromarray(coarse).resize((1280, 960), Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=90)
    return folder


def parts(side: int):  # type: ignore[no-untyped-def]
    """Yield the tiles of a map, one texture repeated."""
    tile = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8) // 32 * 32
    for _ in range((-(-side // 512)) ** 2):
        yield tile


if __name__ == "__main__":
    main()
