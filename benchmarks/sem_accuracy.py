"""Train the SEM network on the measured NCM micrographs and test it under several protocols, through the workflow.

    python benchmarks/sem_accuracy.py                  every protocol, somewhat more than an hour on 2 cores
    python benchmarks/sem_accuracy.py time-block       some

The table goes to benchmarks/SEM_RESULTS.txt, a line for every network, when all protocols were run. Data: the folder
sem_ncm of CATHODEFLOW_DATA.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "sem_ncm"
RECIPE = yaml.safe_load((ROOT / "config" / "sem.yaml").read_text())["sem"]
SESSION = "2019-12-03"

# Of grouped protocols: the last fifth of each class in time, three networks; the six classes of one session; blocks of
# time with gaps. And the published one: random originals, half of the image squeezed to 224 x 224, 3840 test crops.
PROTOCOLS: dict[str, dict[str, Any]] = {
    "time-block": {"seeds": 3},
    "one session": {"session": True},
    "published": {
        "split": {"by": "image"}, "crops": {"pixels": None, "side": 224, "size": 19200}, "train": {"epochs": 4},
    },
    "time-block, gap of 3": {"split": {"gap": 3}},
}  # fmt: skip


def main() -> None:
    chosen = sys.argv[1:] or list(PROTOCOLS)
    head = f"{'protocol':22}{'seed':>5}{'minutes':>9}{'images %':>10}{'95 %':>14}{'crops %':>9}{'ECE img':>9}"
    beside = "trivial features, images %: grey histogram, settings, information bar, histogram matched network"
    lines = [f"{head}{'not seen %':>12}   {beside}"]
    print(lines[0], flush=True)
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for line in run(name, Path(folder), **PROTOCOLS[name]):
                print(line, flush=True)
                lines.append(line)
    if chosen == list(PROTOCOLS):
        (ROOT / "benchmarks" / "SEM_RESULTS.txt").write_text("\n".join(lines) + "\n")


def run(name: str, folder: Path, *, seeds: int = 1, session: bool = False, **options: Any) -> list[str]:
    images = write_session(folder / "session.csv") if session else DATA
    (folder / "sem.tsv").write_text(f"sample\timages\nncm\t{images}\n")
    section = {**RECIPE, **options, "versions": {f"seed{seed}": {"seed": seed} for seed in range(seeds)}}
    section |= {"train": {**RECIPE["train"], **options.get("train", {})}, "explain": {"whole": 0}}
    (folder / "config.yaml").write_text(yaml.safe_dump({"sem": section}))
    started = time.monotonic()
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "2", "--quiet", "all"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run([*command, "--configfile", "config.yaml"], cwd=folder, check=True, env={**os.environ, "PATH": path})
    print(f"# {name}: {(time.monotonic() - started) / 60:.1f} minutes in all", flush=True)
    return [line(name, seed, folder / f"results/sem/seed{seed}", folder) for seed in range(seeds)]


def line(name: str, seed: int, results: Path, folder: Path) -> str:
    test = json.loads((results / "test.json").read_text())["metrics"]
    with (results / "audit.csv").open() as stream:
        audit = {(row["method"], row["scope"]): row for row in csv.DictReader(stream)}
    with (folder / f"results/benchmarks/sem/seed{seed}/train.tsv").open() as stream:
        minutes = float(next(csv.DictReader(stream, delimiter="\t"))["s"]) / 60
    beside = ("grey histogram", "instrument settings", "information bar", "network, histograms matched")
    unseen = audit.get(("network", "not seen in training"))
    return (
        f"{name:22}{seed:5d}{minutes:9.1f}{100 * test['image_accuracy']:10.1f}"
        f"{100 * test['image_accuracy_low']:8.1f}-{100 * test['image_accuracy_high']:5.1f}"
        f"{100 * test['crop_accuracy']:9.1f}{test['image_ece']:9.3f}"
        + (f"{100 * float(unseen['accuracy']):7.1f} ({unseen['n']})" if unseen else f"{'none':>12}")
        + "   "
        + ", ".join(
            f"{100 * float(audit[method, 'all']['accuracy']):.0f}" for method in beside if (method, "all") in audit
        )
    )


def write_session(path: Path) -> Path:
    """Write a table of the images of one session, by the dates in their sidecars."""
    rows = []
    for image in sorted(DATA.glob("*/*.jpg")):
        sidecar = Path(f"{image}.txt")
        if sidecar.is_file() and f"Date : {SESSION}" in sidecar.read_text(encoding="utf-8"):
            rows.append([image.resolve(), *image.parent.name.split("_")])
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "composition", "state"], *rows])
    return path


if __name__ == "__main__":
    main()
