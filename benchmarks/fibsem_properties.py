"""FIB-SEM properties next to those of porespy and TauFactor, in one process, with the ratio of times; and memory.

    python benchmarks/fibsem_properties.py FOLDER      # with nmc_cbd_251x301x301.tif and nmc_128.tif; needs porespy
    python benchmarks/fibsem_properties.py --memory 1024

Of the volumes, `--side` voxels along each axis are used for transport; fractions and surfaces are those of the
whole volume.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from cathodeflow.fibsem.microstructure.blocks import as_labels, count_phases
from cathodeflow.fibsem.microstructure.chords import chord_lengths
from cathodeflow.fibsem.microstructure.compute import compute_properties
from cathodeflow.fibsem.microstructure.surfaces import interface_areas
from cathodeflow.fibsem.microstructure.transport import transport
from cathodeflow.fibsem.properties_options import Properties

CONVERGENCE = 0.01


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = function()
    return found, time.perf_counter() - start


def row(volume: str, name: str, phase: str, peer: str, ours: tuple[float, float], theirs: tuple[float, float]) -> None:
    print(
        f"{volume:16} {name:28} {phase:8} {ours[0]:10.5f} {peer:10} {theirs[0]:10.5f} {ours[0] / theirs[0] - 1:+8.2%}"
        f" {ours[1]:8.2f} {theirs[1]:8.2f} {theirs[1] / ours[1]:7.1f}",
        flush=True,
    )


def generated() -> NDArray[np.uint8]:
    """Three phases with rounded boundaries."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((96, 96, 96)), 4, mode="wrap")
    noise /= noise.std()
    return np.select([noise < -0.25, noise > 0.1], [0, 1], 2).astype(np.uint8)


def compare(name: str, labels: NDArray[np.uint8], classes: tuple[str, ...], side: int, axes: tuple[int, ...]) -> None:
    import porespy
    import taufactor
    from taufactor.metrics import specific_surface_area

    volume = as_labels(labels)
    counts, own = timed(lambda: count_phases(volume, len(classes)).sum(0))
    areas, own_areas = timed(lambda: interface_areas(volume, (1, 1, 1), len(classes)))
    their_areas, theirs = timed(lambda: specific_surface_area(labels, device="cpu"))
    for index, phase in enumerate(classes):
        mask = labels == index
        fraction = timed(lambda mask=mask: float(porespy.metrics.phase_fraction(mask)[True]))
        row(name, "volume_fraction", phase, "porespy", (counts[index] / labels.size, own / len(classes)), fraction)
        ours = float(areas[index].sum()), own_areas / len(classes)
        row(name, "specific_surface_area", phase, "taufactor", ours, (their_areas[str(index)], theirs / len(classes)))
        mesh = timed(lambda mask=mask: _mesh_area(mask) / mask.size)
        row(name, "specific_surface_area", phase, "porespy", ours, mesh)
        chords = timed(lambda index=index: float(chord_lengths(volume, 2, len(classes)).mean[index]))
        row(name, "chord_length_mean 2", phase, "porespy", chords, timed(lambda mask=mask: _chords(mask)))
    part = labels[:side, :side, :side]
    # Compiled before it is timed.
    transport(part[:8, :8, :8] < 9, 0, (1, 1, 1), convergence=CONVERGENCE, solver="compiled")
    transport(generated()[:16, :16, :16] != 1, 0, (1, 1, 1), convergence=CONVERGENCE, solver="compiled")
    for index, phase in enumerate(classes):
        for axis in axes:
            mask = part == index
            one, own = timed(
                lambda mask=mask, axis=axis: transport(
                    mask, axis, (1, 1, 1), convergence=CONVERGENCE, solver="compiled"
                )
            )
            label = f"{name} {len(part)}^3"
            if not np.isfinite(one.tortuosity):
                print(f"{label:16} tortuosity_factor {axis} {phase}: inf ({one.note}), {own:.2f} s", flush=True)
                continue

            def peer(mask: NDArray[np.bool_] = mask, axis: int = axis) -> float:
                image = np.ascontiguousarray(np.moveaxis(mask, axis, 0)).astype(np.uint8)
                solver = taufactor.Solver(image, device="cpu")
                solver.solve(verbose=False, conv_crit=CONVERGENCE)
                return float(solver.tau)

            row(label, f"tortuosity_factor {axis}", phase, "taufactor", (one.tortuosity, own), timed(peer))
            if axis == axes[0]:
                fd = timed(lambda mask=mask, axis=axis: float(porespy.simulations.tortuosity_fd(mask, axis).tortuosity))
                row(label, f"tortuosity_factor {axis}", phase, "porespy", (one.tortuosity, own), fd)


def _mesh_area(mask: NDArray[np.bool_]) -> float:
    import porespy

    mesh = porespy.tools.mesh_region(mask)
    return float(porespy.metrics.mesh_surface_area(verts=mesh.verts, faces=mesh.faces))


def _chords(mask: NDArray[np.bool_]) -> float:
    import porespy

    chords = porespy.filters.apply_chords(mask, axis=2, spacing=0, trim_edges=True)
    return float(np.average(_run_lengths(chords > 0)))


def _run_lengths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    padded = np.pad(mask, ((0, 0), (0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=2).ravel()
    return np.flatnonzero(steps < 0) - np.flatnonzero(steps > 0)


def memory(side: int) -> None:
    """Properties of a volume of this side that is made block by block, and the peak memory of the process."""

    def block(block_info: Any = None) -> NDArray[np.uint8]:
        place = block_info[None]["array-location"]
        z, y, x = (np.arange(start, stop, dtype=np.float32) for start, stop in place)
        wave = np.sin(z / 9)[:, None, None] * np.cos(y / 11)[:, None] + np.sin(y / 9)[:, None] * np.cos(x / 10)
        wave = wave + np.sin(x / 12) * np.cos(z / 8)[:, None, None]
        return np.select([wave < -0.1, wave > 0.15], [0, 1], 2).astype(np.uint8)

    chunks = tuple((128,) * (side // 128) for _ in range(3))
    labels = da.map_blocks(block, chunks=chunks, dtype=np.uint8)
    for group in ("fractions", "surfaces", "connectivity", "chords", "correlation"):
        _, seconds = timed(
            lambda group=group: compute_properties(
                labels, ("pore", "active", "binder"), None, Properties(groups=(group,), max_lag=32)
            )
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{side}^3 {group:14} {seconds:8.1f} s   peak memory {peak:.2f} GB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--memory", type=int)
    arguments = parser.parse_args()
    if arguments.memory:
        memory(arguments.memory)
        return
    heads = ("ours", "peer", "value", "differs", "ours [s]", "peer [s]", "ratio")
    print("{:16} {:28} {:8} {:>10} {:10} {:>10} {:>8} {:>8} {:>8} {:>7}".format("volume", "property", "phase", *heads))
    compare("generated", generated(), ("pore", "active", "binder"), 96, (0, 1, 2))
    if arguments.folder:
        folder = Path(arguments.folder)
        compare("nmc_128", tifffile.imread(folder / "nmc_128.tif").astype(np.uint8), ("a", "b"), arguments.side, (0, 1))
        cbd = tifffile.imread(folder / "nmc_cbd_251x301x301.tif")
        compare("nmc_cbd", cbd, ("pore", "active", "binder"), arguments.side, (0, 2))


if __name__ == "__main__":
    main()
