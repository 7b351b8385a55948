"""All four techniques in one small project on raw files of its own: what reruns and determinism are measured on.

python benchmarks/reduced.py FOLDER [--cores N] writes raw data and configuration into FOLDER, and runs the workflow.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """\
seed: 5
device: cpu
tracking: {experiment: reduced}
bragg:
  samples: scans.tsv
  find_peaks: {min_value: 20, min_persistence: 15}
  train: {epochs: 2, threads: 1}
sem:
  samples: images.tsv
  crops: {size: 120, pixels: 96, side: 32}
  train: {epochs: 1, progressive_fraction: 0, threads: 1}
  explain: {per_class: 1, whole: 1}
fibsem:
  samples: volumes.tsv
  networks: {ugsm: {epochs: 1, widths: [4, 8], passes: 2, batch_size: 4, threads: 1}}
  methods: {matphase: ugsm}
  augment: {copies: 1, splits: [grouped]}
  train_idk: {epochs: 1, pixels_per_epoch: 4000, threads: 1}
  train_local: {epochs: 1, pixels_per_epoch: 4000, threads: 1}
bcdi:
  samples: particles.tsv
  simulate: {crystals: 24, size: 16, oversampling: [2.2, 3.8]}
  prepare: {size: [16, 16, 16]}
  phase: {recipe: "10*ER+20*HIO+10*ER", starts: 2, modes: 2, threads: 1}
  train: {architecture: candidates, widths: [4, 8], candidates: 2, epochs: 1, threads: 1}
  evaluate: {crystals: 4, iterations: [5], threads: 1}
  refine: {candidates: 2, iterations: 10, threads: 1}
"""
SHEETS = {
    "scans.tsv": "sample\trole\tframes\tdark\tmask\n"
    "first\ttrain\traw/first/frame_*.tif\traw/first/dark.tif\traw/first/mask.tif\n"
    "second\tmeasure\traw/second/frame_*.tif\traw/second/dark.tif\traw/second/mask.tif\n",
    "images.tsv": "sample\trole\timages\ncathodes\ttrain\traw/cathodes\nadditives\tpredict\traw/additives\n",
    "volumes.tsv": "sample\trole\timages\tlabels\nelectrode\ttrain\traw/electrode/slices\traw/electrode/labels\n"
    "new\tpredict\traw/new/slices\t\n",
    "particles.tsv": "sample\trole\tframes\tdark\twhitefield\tmask\tgeometry\n"
    "particle\tmeasure\traw/particle/frames\traw/particle/dark.tif\traw/particle/whitefield.tif\traw/particle/mask.tif"
    "\traw/particle/geometry.yaml\n",
}
RAW = (
    "bragg simulate raw/first --state-of-charge 0.1 --seed 3 --n-frames 12 --rows 96 --cols 96 --n-peaks 80",
    "bragg simulate raw/second --state-of-charge 0.6 --seed 3 --n-frames 12 --rows 96 --cols 96 --n-peaks 80",
    "sem simulate raw/cathodes --labelled --n-images 3 --rows 120 --cols 160 --seed 3",
    "sem simulate raw/additives --no-labelled --n-images 3 --rows 120 --cols 160 --seed 3",
    "fibsem simulate raw/electrode --number 0 --n-slices 24 --rows 32 --cols 32 --seed 3",
    "fibsem simulate raw/new --number 1 --n-slices 8 --rows 32 --cols 32 --seed 3",
    "bcdi simulate-scan raw/particle --number 0 --frames 24 --rows 32 --cols 32 --seed 3",
)


def environment(checkout: Path = ROOT) -> dict[str, str]:
    """Environment in which commands of a checkout run."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}


def prepare(folder: Path) -> None:
    """Write raw data, sheets and configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG)
    for name, text in SHEETS.items():
        (folder / name).write_text(text)
    for line in RAW:
        command = [sys.executable, "-m", "cathodeflow", *line.split()]
        subprocess.run(command, cwd=folder, env=environment(), check=True)
    for path in (*folder.glob("raw/*/truth.*"), *folder.glob("raw/cathodes/*.parquet")):
        path.unlink()


def snakemake(folder: Path, *arguments: str, checkout: Path = ROOT, snakefile: str = "") -> str:
    """Run snakemake in a folder and return what it prints."""
    file = snakefile or str(checkout / "Snakefile")
    configured = [] if snakefile else ["--configfile", "config.yaml"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", file, *configured, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(checkout), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout + done.stderr


def copy_checkout(folder: Path) -> None:
    """Copy what the workflow consists of, with the time stamps, so that it can be edited."""
    folder.mkdir(parents=True)
    for name in ("src", "workflow", "profiles", "envs", "Snakefile"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)


def main() -> None:
    """Make the project and run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", default="2")
    given = parser.parse_args()
    prepare(given.folder)
    snakemake(given.folder, "--cores", given.cores)


if __name__ == "__main__":
    main()
