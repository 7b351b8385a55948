"""`init`, `check` and a short run for every folder of measured data: minutes of each. CATHODEFLOW_DATA names the data.

python benchmarks/own_data.py [--keep FOLDER] [NAME ...]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")).resolve()
STEPS = ("init", "check", "run")
# As small as each technique allows: whether everything runs, not what comes out.
_FIBSEM = (
    "fibsem: {train_global: {epochs: 2, batch_size: 4, passes: 2}, train_idk: {epochs: 2,"
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


def processor_seconds() -> float:
    """Return the processor time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def minutes(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command, and return the minutes that it took, and those of processor time."""
    begun, used = time.monotonic(), processor_seconds()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return (time.monotonic() - begun) / 60, (processor_seconds() - used) / 60


def measured(name: str, folder: Path) -> str:
    """Run everything for the data of a name in a folder, and return the row."""
    run = [sys.executable, "-m", "cathodeflow"]
    times = [minutes([*run, "init", str(DATA / name)], folder), minutes([*run, "check", "config.yaml"], folder)]
    (folder / "short.yaml").write_text(SHORT[name] + "\n")
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    times.append(minutes([*snakemake, "--configfile", "config.yaml", "short.yaml"], folder))
    jobs = len(list(folder.glob("results/benchmarks/**/*.tsv")))
    words = (f"{step} {wall:.2f} ({used:.2f}) min" for step, (wall, used) in zip(STEPS, times, strict=True))
    return f"{', '.join(words)} (processor time in brackets), {jobs} jobs"


def main() -> None:
    """Print a row for each folder; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SHORT), metavar="NAME", help="folders; default: all")
    parser.add_argument("--keep", type=Path, help="folder for the results; default: they are removed")
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as place:
            folder = arguments.keep / name.replace("/", "-") if arguments.keep else Path(place)
            folder.mkdir(parents=True, exist_ok=True)
            try:
                row = measured(name, folder)
            except RuntimeError as error:
                row, failed = f"failed: {error}", True
            print(f"RESULT own data {name}: {row}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
