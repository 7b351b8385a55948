"""Accuracy of the FIB-SEM methods: runs of the workflow, and their tables side by side.

    python benchmarks/fibsem_accuracy.py                     all of these, hours on 2 cores
    python benchmarks/fibsem_accuracy.py demo coating        some
    python benchmarks/fibsem_accuracy.py demo --folder DIR   in a folder that is kept: a finished run is only read

demo: config/fibsem.yaml. paper: config/fibsem-paper.yaml with fewer steps (config/fibsem-paper-cpu.yaml). superalloy
and coating: measured micrographs of other materials with config/fibsem-images.yaml. Data: the folder fibsem of
CATHODEFLOW_DATA. Tables of all go to benchmarks/FIBSEM_RESULTS.txt when all are run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "fibsem"
IMAGES = {
    "superalloy": ["matrix", "precipitate", "small precipitate"],
    "coating": ["coating", "oxide", "crack"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="demo, paper, superalloy, coating")
    parser.add_argument("--folder", type=Path, help="Folder of the runs, each below it by its name.")
    arguments = parser.parse_args()
    runs = ["demo", "paper", *IMAGES]
    tables = []
    with tempfile.TemporaryDirectory() as made:
        for name in arguments.runs or runs:
            folder = (arguments.folder or Path(made)) / name
            folder.mkdir(parents=True, exist_ok=True)
            tables.append(f"== {name}\n{table(run(name, folder))}\n")
            print(tables[-1], flush=True)
    if not arguments.runs:
        (ROOT / "benchmarks" / "FIBSEM_RESULTS.txt").write_text("\n".join(tables))


def run(name: str, folder: Path) -> Path:
    """Run the workflow, and tell where its table is."""
    configs, volume = ["config/fibsem.yaml"], "electrode"
    if not (folder / "config").exists():
        (folder / "config").symlink_to(ROOT / "config")
    if name == "paper":
        configs = ["config/fibsem-paper.yaml", "config/fibsem-paper-cpu.yaml"]
        (folder / "data").mkdir(exist_ok=True)
        if not (folder / "data/fibsem").exists():
            (folder / "data/fibsem").symlink_to(DATA.resolve())
    elif name in IMAGES:
        configs, volume = ["config/fibsem-images.yaml", "mine.yaml"], "measured"
        section = {"samples": "images.tsv", "volume": {"classes": IMAGES[name]}}
        (folder / "mine.yaml").write_text(yaml.safe_dump({"fibsem": section}))
        where = DATA.resolve() / f"{name}_sem"
        (folder / "images.tsv").write_text(
            f"sample\trole\timages\tlabels\nmeasured\ttrain\t{where}/images\t{where}/labels\n"
        )
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "2", "--quiet", "all"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    subprocess.run([*command, "--configfile", *configs], cwd=folder, check=True, env=environment)
    return folder / "results/fibsem" / volume / "metrics.csv"


def table(path: Path) -> str:
    """Means over the seeds, and the least and the largest mIU of them."""
    rows = pd.read_csv(path)
    errors = [name for name in rows if name.startswith("fraction_error_") and not name.endswith(("_low", "_high"))]
    scores = [name for name in rows if name.startswith("f1_") and not name.endswith(("_low", "_high"))]
    shown = ["miu", "fiu", *scores, "accuracy", "accuracy_best5", "accuracy_worst5", "boundary_f1", "specks", "ece"]
    groups = rows.groupby(["split", "model"], sort=False)
    means = groups[[*shown, *errors]].mean()
    means.insert(1, "miu_least", groups["miu"].min())
    means.insert(2, "miu_most", groups["miu"].max())
    means.insert(0, "seeds", groups["seed"].nunique())
    return means.reset_index().to_string(index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
