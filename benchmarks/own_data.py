"""`init`, `check` and a short run for every folder of measured data: minutes of each. CATHODEFLOW_DATA names the data.

python benchmarks/own_data.py [FOLDER ...]
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")).resolve()
# As small as each technique allows: whether everything runs, not what comes out.
_FIBSEM = (
    "fibsem: {train_global: {epochs: 2, batch_size: 4}, predict_global: {passes: 2}, train_idk: {epochs: 2,"
    " pixels_per_epoch: 20000}, train_local: {epochs: 1, pixels_per_epoch: 10000}"
)
_BCDI = "bcdi: {phase: {starts: 2, modes: 2, recipe: 5*ER+20*HIO+5*ER}}"
SHORT = {
    "bcdi": _BCDI,
    "bcdi/aps34idc_S0054": _BCDI,
    "fibsem/superalloy_sem": _FIBSEM + "}",
    "fibsem/coating_sem": _FIBSEM + "}",
    "fibsem/volumes": _FIBSEM + ", simulate: {n_slices: 48, rows: 96, cols: 96}}",
    "fibsem": _FIBSEM + "}",
    "bragg_ruby": "bragg: {train: {epochs: 2}}",
    "sem_ncm": "sem: {train: {epochs: 1}, pages: false}",
}


def minutes(command: list[str], folder: Path) -> float:
    """Run a command, and return the minutes that it took."""
    begun = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return (time.monotonic() - begun) / 60


def processor_minutes(folder: Path) -> float:
    """Return the processor time of all jobs, from Snakemake's benchmarks."""
    total = 0.0
    for path in folder.glob("results/benchmarks/**/*.tsv"):
        total += sum(float(row["cpu_time"]) for row in csv.DictReader(path.open(), delimiter="\t"))
    return total / 60


def main() -> None:
    """Print a row for each folder."""
    for name in sys.argv[1:] or SHORT:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            run = [sys.executable, "-m", "cathodeflow"]
            times = [minutes([*run, "init", str(DATA / name)], folder), minutes([*run, "check", "config.yaml"], folder)]
            (folder / "short.yaml").write_text(SHORT[name] + "\n")
            snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
            times.append(minutes([*snakemake, "--configfile", "config.yaml", "short.yaml"], folder))
            jobs = len(list(folder.glob("results/benchmarks/**/*.tsv")))
            print(
                f"RESULT own data {name}: init {times[0]:.2f} min, check {times[1]:.2f} min, run {times[2]:.1f} min,"
                f" {processor_minutes(folder):.1f} min of processor time, {jobs} jobs",
                flush=True,
            )


if __name__ == "__main__":
    main()
