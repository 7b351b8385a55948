"""Planning of large graphs: time and memory of `snakemake -n` for 100, 1,000 and 10,000 scans.

python benchmarks/big_graph.py [--scans 100 1000 10000] [--frames 1]

Each scan has raw files of its own. Beside it stands Snakemake's own share: the same rules, files and jobs in a workflow
written out here that imports nothing and calls no function of ours. Everything lies in a temporary folder.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CONFIG = "device: cpu\nbragg:\n  samples: scans.tsv\n"
# A workflow of the same shape: (rule, inputs, outputs), each per scan, and a network that is trained on every tenth.
CHAIN = [
    ("frames", ["raw/{scan}/frame_0.tif"], ["frames.h5", "frames.json"]),
    ("find_peaks", ["frames.h5"], ["candidates.parquet", "candidates.json"]),
    ("fit", ["frames.h5", "candidates.parquet"], ["peaks.h5", "fit.json"]),
    ("patches", ["frames.h5", "peaks.h5"], ["patches.h5", "patches.json"]),
    (
        "locate",
        ["frames.h5", "candidates.parquet", "results/model.pt"],
        ["located.parquet", "located.h5", "locate.json"],
    ),
    (
        "compare",
        ["frames.h5", "peaks.h5", "located.parquet"],
        ["compare.csv", "compare.json", *(f"figure_{n}.png" for n in range(4))],
    ),
]
TRAINED = 10


class Measured(NamedTuple):
    """Seconds, peak memory [MB] and jobs of a dry run."""

    seconds: float
    megabytes: float
    jobs: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--frames", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'scans':>7}{'jobs':>8}{'ours [s]':>10}{'[MB]':>7}{'plain Snakemake [s]':>21}{'[MB]':>7}")
    for count in arguments.scans:
        with tempfile.TemporaryDirectory() as folder:
            make_project(Path(folder), count, arguments.frames)
            ours = dry_run(Path(folder), ["--snakefile", str(ROOT / "Snakefile"), "--configfile", "config.yaml"])
            (Path(folder) / "plain.smk").write_text(plain_workflow())
            plain = dry_run(Path(folder), ["--snakefile", "plain.smk"])
        print(
            f"{count:>7}{ours.jobs:>8}{ours.seconds:>10.1f}{ours.megabytes:>7.0f}"
            f"{plain.seconds:>21.1f}{plain.megabytes:>7.0f}",
            flush=True,
        )


def make_project(folder: Path, count: int, frames: int) -> None:
    """Write the sheet, and raw files that are there but are never opened by a dry run."""
    rows = ["sample\trole\tframes"]
    for number in range(count):
        raw = folder / "raw" / f"s{number:05d}"
        raw.mkdir(parents=True)
        for frame in range(frames):
            (raw / f"frame_{frame}.tif").write_bytes(b"II*\0")
        rows.append(f"s{number:05d}\t{'measure' if number % TRAINED else 'train'}\traw/s{number:05d}/frame_*.tif")
    (folder / "scans.tsv").write_text("\n".join(rows) + "\n")
    (folder / "config.yaml").write_text(CONFIG)


def plain_workflow() -> str:
    """Return rules of the same shape as ours, with nothing of ours in them."""
    per_scan = [f"results/{{scan}}/{file}" for rule, _, files in CHAIN if rule != "patches" for file in files]
    text = f"""
rows = [line.rstrip("\\n").split("\\t") for line in open("scans.tsv")][1:]
SCANS = [row[0] for row in rows]
TRAINED = [row[0] for row in rows if row[1] == "train"]

rule all:
    input: expand({per_scan!r}, scan=SCANS), "results/model.pt"

rule train:
    input: expand("results/{{scan}}/patches.h5", scan=TRAINED)
    output: "results/model.pt"
    shell: "false"
"""
    for rule, inputs, outputs in CHAIN:
        given = [name if "/" in name else f"results/{{scan}}/{name}" for name in inputs]
        made = [f"results/{{scan}}/{name}" for name in outputs]
        text += f"""
rule {rule}:
    input: {given!r}
    output: {made!r}
    log: "results/logs/{{scan}}/{rule}.log"
    benchmark: "results/benchmarks/{{scan}}/{rule}.tsv"
    params: options="--one 1 --two 2", code="0123456789abcdef"
    resources: mem_mb=2000, runtime=60
    shell: "false"
"""
    return text


def dry_run(folder: Path, arguments: list[str]) -> Measured:
    """Plan everything as a person would, and measure it."""
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "2", *arguments]
    begin = time.perf_counter()
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    text = (folder / "output.txt").read_text()
    if status:
        sys.exit(text[-3000:])
    total = next(line.split()[1] for line in text.splitlines() if line.startswith("total"))
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return Measured(seconds, usage.ru_maxrss / unit, int(total))


if __name__ == "__main__":
    main()
