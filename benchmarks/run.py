"""Run every benchmark, print its table, and keep all of them in benchmarks/RESULTS.txt.

Each script measures ours and its peer in turns in one process, or in processes of equal kind; compare ratios, not
seconds. Give names to run only some: python benchmarks/run.py fit find_peaks
"""

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
SCRIPTS = [
    "find_peaks",
    "fit",
    "bragg_measure",
    "bragg_watch",
    "braggnn",
    "frames_memory",
    "startup",
    "sem",
    "fibsem",
    "bcdi",
]


def main() -> int:
    chosen = sys.argv[1:] or SCRIPTS
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    head = f"{datetime.date.today()}, {model}, {os.cpu_count()} cores, Python {platform.python_version()}\n"
    print(head)
    parts, failed = [head], 0
    for name in chosen:
        result = subprocess.run([sys.executable, FOLDER / f"{name}.py"], stdout=subprocess.PIPE, text=True)
        failed += result.returncode != 0
        parts.append(f"== {name}\n{result.stdout}")
        print(parts[-1], flush=True)
    if chosen == SCRIPTS and not failed:
        (FOLDER / "RESULTS.txt").write_text("\n".join(parts))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
