"""Coverage of the intervals of FIB-SEM properties: how often they hold the truth.

    python benchmarks/fibsem_coverage.py sampling             44 simulated electrodes and 64 blocks of a measured one
    python benchmarks/fibsem_coverage.py model --model FILE   segmented slices of 44 simulated electrodes, `measure`

sampling: volumes of 64^3 voxels. Simulated: cut from electrodes of 104 x 112 x 112 voxels with particles of 9 to 18
voxels. Measured: the label volume nmc_cbd of the folder fibsem/volumes of CATHODEFLOW_DATA. The truth of a volume is
the mean of all other volumes of its kind, on the scale of the intervals.

model: electrodes of 48 x 64 x 64 voxels with the particles that the model was trained on (config/fibsem.yaml), rendered
and segmented. `segmentation`: the truth is that of the labels of the same slices. `both`: the truth is the mean of the
labels of all other electrodes.

A row of the result: kind, error, property, phase, number of intervals, fraction of 68 % and of 95 % intervals that hold
the truth, true standard deviation and mean standard error, both on the scale of the intervals.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.error_options import Compared, Measure
from cathodeflow.fibsem.intervals import scaled
from cathodeflow.fibsem.microstructure.property_table import Property, Voxel
from cathodeflow.fibsem.options import Simulate
from cathodeflow.fibsem.sampling_error import sampling_errors, with_errors
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.fibsem.stages.measure import measure
from cathodeflow.fibsem.structure import generate
from cathodeflow.fibsem.validation_errors import compared_properties

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "fibsem"
CLASSES = ("pore", "active", "binder")
ELECTRODES = 44
#: Those of config/fibsem.yaml.
TRAINED = Simulate(fractions=(0.38, 0.50, 0.12), diameter=(14.0, 28.0), contrast=0.75, n_slices=48, rows=64, cols=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["sampling", "model"])
    parser.add_argument("--model", help="File model.pt of a run, with model_errors.json beside it.")
    parser.add_argument("--methods", default="ugsm,unet,matphase", help="Methods of the model.")
    parser.add_argument("--electrodes", type=int, default=ELECTRODES)
    arguments = parser.parse_args()
    if arguments.kind == "sampling":
        for name, volumes in (("simulated", simulated(arguments.electrodes)), ("nmc_cbd", measured())):
            show(name, "sampling", [[as_row(one) for one in own] for own in map(sampled, volumes)])
        return
    for method in arguments.methods.split(","):
        pairs = [segmented(number, arguments.model, method) for number in range(arguments.electrodes)]
        own = [[{**row, "truth": row["own_truth"]} for row in rows] for rows, _ in pairs]
        show(method, "segmentation", [[only_segmentation(row) for row in rows] for rows in own])
        show(method, "both", [rows for rows, _ in pairs], truths=[truth for _, truth in pairs])


def simulated(count: int) -> Iterator[NDArray[np.uint8]]:
    options = Simulate(fractions=(0.38, 0.50, 0.12), diameter=(9.0, 18.0))
    for seed in range(count):
        yield generate((104, 112, 112), options, seed=seed)[20:84, 24:88, 24:88]


def measured() -> Iterator[NDArray[np.uint8]]:
    volume = tifffile.imread(DATA / "volumes/nmc_cbd_251x301x301.tif")
    for z in (0, 62, 124, 187):
        for y in (0, 79, 158, 237):
            for x in (0, 79, 158, 237):
                yield volume[z : z + 64, y : y + 64, x : x + 64]


def properties(labels: NDArray[np.uint8]) -> list[Property]:
    return compared_properties(np.ascontiguousarray(labels), CLASSES, Voxel(), Compared())


def sampled(labels: NDArray[np.uint8]) -> list[Property]:
    """Properties of a volume with their sampling error."""
    found = properties(labels)
    errors = sampling_errors(labels, found, properties, classes=CLASSES, options=SamplingError())
    print(".", end="", file=sys.stderr, flush=True)
    return with_errors(found, errors)


def segmented(number: int, model: str, method: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `measure` on a simulated electrode, with the properties of its labels."""
    labels = generate((80, 112, 112), TRAINED, seed=1000 + number)[16:64, 24:88, 24:88]
    with tempfile.TemporaryDirectory() as folder:
        tifffile.imwrite(f"{folder}/slices.tif", render(labels, TRAINED, seed=1000 + number), photometric="minisblack")
        options = Measure(model=model, method=method, threads=1, groups=("fractions", "surfaces", "transport"))
        measure(f"{folder}/slices.tif", out=f"{folder}/out", options=options)
        rows = pd.read_csv(f"{folder}/out/properties.csv").to_dict("records")
    truth = [as_row(one) for one in properties(labels)]
    right = {key(row): row["value"] for row in truth}
    print(".", end="", file=sys.stderr, flush=True)
    kept = [{**row, "own_truth": right[key(row)]} for row in rows if key(row) in right]
    return kept, truth


def only_segmentation(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the interval of its segmentation error alone."""
    from scipy.stats import t

    # Degrees of freedom of the shortest direction-free calibration: four blocks of the validation slices.
    error, factor = row["segmentation_error"], row["value"] * (1 - row["value"]) if row["value"] < 1 else row["value"]
    middle, freedom = scaled(row["property"], row["value"]), 3.0
    own = error / (factor if row["property"] in ("volume_fraction", "effective_diffusivity") else row["value"])
    held = {}
    for level, fraction in (("68", 0.6827), ("95", 0.95)):
        half = float(t.ppf(0.5 + fraction / 2, freedom)) * own
        held[level] = abs(scaled(row["property"], row["own_truth"]) - middle) <= half
    return {**row, "held": held, "standard_error": error}


def as_row(one: Property) -> dict[str, Any]:
    return one._asdict()


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    missing = row["direction"] is None or row["direction"] != row["direction"]
    return row["property"], row["phase"], "" if missing else str(int(row["direction"]))


def show(
    kind: str, error: str, volumes: list[list[dict[str, Any]]], truths: list[list[dict[str, Any]]] | None = None
) -> None:
    """Print the coverage of each property and phase, all directions together."""
    values: dict[tuple[str, str, str], list[float]] = {}
    for rows in truths or volumes:
        for row in rows:
            values.setdefault(key(row), []).append(scaled(row["property"], row["value"]))
    groups: dict[tuple[str, str], list[tuple[bool, bool, float, float]]] = {}
    for number, rows in enumerate(volumes):
        for row in rows:
            name, middle = row["property"], scaled(row["property"], row["value"])
            if not np.isfinite(row["standard_error"]):
                continue
            if "held" in row:
                true = scaled(name, row["own_truth"])
                inside = row["held"]["68"], row["held"]["95"]
            else:
                others = [value for index, value in enumerate(values[key(row)]) if index != number]
                true = float(np.nanmean(others))
                ends = [scaled(name, row[column]) for column in ("low_68", "high_68", "low_95", "high_95")]
                inside = ends[0] <= true <= ends[1], ends[2] <= true <= ends[3]
            unit = (
                row["value"] * (1 - row["value"])
                if name in ("volume_fraction", "effective_diffusivity")
                else row["value"]
            )
            groups.setdefault((name, row["phase"]), []).append((*inside, middle - true, row["standard_error"] / unit))
    for (name, phase), found in groups.items():
        table = np.array(found, dtype=float)
        print(
            f"RESULT fibsem_coverage {kind:10} {error:12} {name:22} {phase:14} n {len(table):3d}"
            f"  68: {table[:, 0].mean():.2f}  95: {table[:, 1].mean():.2f}"
            f"  true {np.sqrt((table[:, 2] ** 2).mean()):.3f}  stated {np.sqrt((table[:, 3] ** 2).mean()):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
