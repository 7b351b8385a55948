"""Coverage of the intervals of FIB-SEM properties: how often they hold the truth.

    python benchmarks/fibsem_coverage.py sampling               simulated electrodes, and blocks of a measured one
    python benchmarks/fibsem_coverage.py model --model FILE     segmented slices of simulated electrodes, `measure`
    python benchmarks/fibsem_coverage.py table --rows FILE      the table of rows that were written before

sampling: volumes of 64^3 voxels. Simulated: from the middle of electrodes of 144^3 voxels with particles of 9 to 18
voxels. Measured: the label volume nmc_cbd of the folder fibsem/volumes of CATHODEFLOW_DATA, in blocks of 64^3 and 48^3.

model: the middle 48 x 64 x 64 voxels of electrodes with the particles that the model was trained on
(config/fibsem.yaml), rendered and segmented; FILE is model.pt of a run, with model_errors.json beside it.
`segmentation`: the truth is that of the labels of the same slices. `both`: the truth is that of the material.

The truth of a volume as a sample is the mean of all other volumes of its kind, on the scale of the intervals, with the
directions pooled, as the materials have none. Electrodes have the seeds `--first`, `--first` + 1, ...: those that the
estimators were chosen on are below 1000, those of the tables of docs/fibsem-errors.md are not.

`--rows FILE` keeps a row for each volume and property as they are computed; volumes in it are not made again.

A row of the result: kind, error, property, phase, number of volumes, fraction of the 68 % and of the 95 % intervals
that hold the truth, mean and standard deviation of the difference from the truth, and root mean square of the standard
errors, all on the scale of the intervals.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray

from cathodeflow.fibsem.appearance import render
from cathodeflow.fibsem.error_options import Compared, Measure
from cathodeflow.fibsem.intervals import interval, scaled, slope
from cathodeflow.fibsem.microstructure.property_table import Property, Voxel
from cathodeflow.fibsem.sampling_error import sampling_errors, with_errors
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.fibsem.segmentation_error import correct, from_json
from cathodeflow.fibsem.slice_options import Simulate
from cathodeflow.fibsem.stages.measure import measure
from cathodeflow.fibsem.structure import generate
from cathodeflow.fibsem.validation_errors import compared_properties

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "fibsem"
CLASSES = ("pore", "active", "binder")
FRACTIONS = (0.38, 0.50, 0.12)
#: Those of config/fibsem.yaml.
TRAINED = Simulate(fractions=FRACTIONS, diameter=(14.0, 28.0), contrast=0.75)
#: Electrodes are larger than the volumes: the simulator meets its fractions in each electrode.
ELECTRODE, VOLUME = (112, 128, 128), (48, 64, 64)
ENDS = ("low_68", "high_68", "low_95", "high_95")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["sampling", "model", "table"])
    parser.add_argument("--model", help="File model.pt of a run, with model_errors.json beside it.")
    parser.add_argument("--methods", default="unet,ugsm,matphase", help="Methods of the model.")
    parser.add_argument("--volumes", default="simulated,nmc_cbd 64,nmc_cbd 48", help="Kinds of volumes for `sampling`.")
    parser.add_argument("--electrodes", type=int, default=60, help="Number of them, and at most of measured blocks.")
    parser.add_argument("--first", type=int, default=1000, help="Seed of the first electrode.")
    parser.add_argument("--rows", type=Path, help="CSV file of the rows.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.rows or Path(folder) / "rows.csv"
        seeds = range(given.first, given.first + given.electrodes)
        done = set() if not path.exists() else set(pd.read_csv(path)[["kind", "volume"]].itertuples(False, None))
        if given.kind == "sampling":
            for kind in given.volumes.split(","):
                wanted = [number for number in numbers(kind, seeds) if (kind, number) not in done]
                keep(path, ([{"kind": kind, "volume": number, **row} for row in sampled(cut(kind, number))]
                            for number in wanted))  # fmt: skip
        for number in seeds if given.kind == "model" else ():
            wanted = [method for method in given.methods.split(",") if (method, number) not in done]
            keep(path, segmented(number, given.model, wanted))
        show(pd.read_csv(path))


def keep(path: Path, volumes: Iterable[list[Row]]) -> None:
    """Append the rows of volumes to a file as they come."""
    for rows in volumes:
        pd.DataFrame(rows).to_csv(path, mode="a", header=not path.exists(), index=False)
        print(f"{rows[0]['kind']} {rows[0]['volume']}", file=sys.stderr, flush=True)


def numbers(kind: str, seeds: Iterable[int]) -> list[int]:
    """Numbers of the volumes of a kind."""
    seeds = list(seeds)
    if kind == "simulated":
        return seeds
    blocks = len(places(int(kind.split()[-1])))
    return np.unique(np.linspace(0, blocks - 1, min(len(seeds), blocks)).astype(int)).tolist()


def places(side: int) -> list[tuple[slice, ...]]:
    """Blocks of nmc_cbd that do not overlap."""
    starts = (range(0, n - side + 1, side) for n in (251, 301, 301))
    return [tuple(slice(a, a + side) for a in (z, y, x)) for z, y, x in
            np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3)]  # fmt: skip


def cut(kind: str, number: int) -> NDArray[np.uint8]:
    """Volume of a kind."""
    if kind == "simulated":
        options = Simulate(fractions=FRACTIONS, diameter=(9.0, 18.0))
        return np.ascontiguousarray(generate((144, 144, 144), options, seed=number)[40:104, 40:104, 40:104])
    volume = tifffile.imread(DATA / "volumes/nmc_cbd_251x301x301.tif")
    return np.ascontiguousarray(volume[places(int(kind.split()[-1]))[number]])


def properties(labels: NDArray[np.uint8]) -> list[Property]:
    return compared_properties(np.ascontiguousarray(labels), CLASSES, Voxel(), Compared())


def sampled(labels: NDArray[np.uint8]) -> list[Row]:
    """Properties of a volume with their sampling error."""
    found = properties(labels)
    errors = sampling_errors(labels, found, properties, classes=CLASSES, options=SamplingError())
    return [as_row(one, "sampling", one.value) for one in with_errors(found, errors)]


def as_row(one: Property, error: str, truth: float) -> Row:
    """Row of an interval; `truth` is the value of the labels of the volume."""
    kept = {name: getattr(one, name) for name in ("property", "phase", "direction", "value", "standard_error", *ENDS)}
    return {"error": error, **kept, "truth": truth}


def segmented(number: int, model: str, methods: Iterable[str]) -> Iterator[list[Row]]:
    """Rows of `measure` on a simulated electrode, for each method."""
    start = [(outer - inner) // 2 for outer, inner in zip(ELECTRODE, VOLUME, strict=True)]
    inner = tuple(slice(first, first + side) for first, side in zip(start, VOLUME, strict=True))
    labels = np.ascontiguousarray(generate(ELECTRODE, TRAINED, seed=number)[inner])
    right = {key(one._asdict()): one.value for one in properties(labels)}
    with tempfile.TemporaryDirectory() as folder:
        tifffile.imwrite(f"{folder}/slices.tif", render(labels, TRAINED, seed=number), photometric="minisblack")
        for method in methods:
            options = Measure(model=model, method=method, threads=1, groups=("fractions", "surfaces", "transport"))
            measure(f"{folder}/slices.tif", out=f"{folder}/{method}", options=options)
            rows = pd.read_csv(f"{folder}/{method}/properties.csv").to_dict("records")
            ratio = json.loads(Path(f"{folder}/{method}/properties.json").read_text())["settings"]["pass_ratio"]
            kept = [row for row in rows if key(row) in right]
            made = [as_row(one, "segmentation", right[key(one._asdict())]) for one in
                    segmentation_only(kept, model, method, labels.size, ratio)]  # fmt: skip
            made += [{"error": "both", **{name: row[name] for name in ("property", "phase", "direction", "value",
                      "standard_error", *ENDS)}, "truth": right[key(row)]} for row in kept]  # fmt: skip
            sizes = {key(row): row["as_segmented"] for row in kept}
            yield [{"kind": method, "volume": number, **row, "as_segmented": sizes[key(row)], "pass_ratio": ratio}
                   for row in made]  # fmt: skip


def segmentation_only(rows: list[Row], model: str, method: str, voxels: int, ratio: float) -> list[Property]:
    """Properties with the interval of the segmentation error alone."""
    calibration = json.loads(Path(model).with_name("model_errors.json").read_text())["methods"][method]["properties"]
    found = [Property(row["property"], row["phase"], None if row["direction"] != row["direction"] else
                      int(row["direction"]), row["as_segmented"], row["unit"]) for row in rows]  # fmt: skip
    corrected = correct(found, from_json(calibration), voxels=voxels, ratio=ratio)
    return [
        one._replace(value=better.value, **interval(one.property, better.value, better.error))
        for one in found
        if (better := corrected.get((one.property, one.phase, one.direction))) is not None
    ]


def key(row: Row) -> tuple[str, str, str]:
    missing = row["direction"] is None or row["direction"] != row["direction"]
    return row["property"], row["phase"], "" if missing else str(int(row["direction"]))


def show(rows: pd.DataFrame) -> None:
    """Print the coverage of each property and phase, all directions together."""
    names = ("value", "truth", *ENDS)
    on_scale = {name: [scaled(*pair) for pair in zip(rows["property"], rows[name], strict=True)] for name in names}
    table = rows.assign(**on_scale)
    table["standard_error"] /= [slope(*pair) for pair in zip(rows["property"], rows["value"], strict=True)]
    for (kind, error, name, phase), part in table.groupby(["kind", "error", "property", "phase"], sort=False):
        group = part.assign(true=part["truth"] if error == "segmentation" else of_the_others(part))
        group = group[np.isfinite(group["standard_error"]) & np.isfinite(group["true"])]
        held = {level: ((group[f"low_{level}"] <= group["true"]) & (group["true"] <= group[f"high_{level}"])).mean()
                for level in ("68", "95")}  # fmt: skip
        off = group["value"] - group["true"]
        print(
            f"RESULT fibsem_coverage {kind:10} {error:12} {name:22} {phase:14} n {group['volume'].nunique():3d}"
            f"  68: {held['68']:.2f}  95: {held['95']:.2f}  bias {off.mean():+.3f}  true {off.std():.3f}"
            f"  stated {np.sqrt((group['standard_error'] ** 2).mean()):.3f}",
            flush=True,
        )


def of_the_others(part: pd.DataFrame) -> NDArray[np.float64]:
    """Mean of the true values of all other volumes."""
    sums = part.groupby("volume")["truth"].agg(["sum", "count"]).reindex(part["volume"])
    total = sums["sum"].to_numpy(), sums["count"].to_numpy()
    return (part["truth"].sum() - total[0]) / np.maximum(part["truth"].count() - total[1], 1)


if __name__ == "__main__":
    main()
