"""Run all faults and write how often each was tried and survived: what `make faults` does.

python tests/faults/table.py [OPTIONS OF PYTEST] prints the table, and writes it to benchmarks/FAULTS.txt.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def table(lines: list[str]) -> str:
    """Add up what the tests counted."""
    counts: dict[str, list[int]] = {}
    for line in lines:
        fault, tried, survived = json.loads(line)
        total = counts.setdefault(fault, [0, 0])
        total[0] += tried
        total[1] += survived
    rows = [f"{fault:<76}{tried:>8}{survived:>10}" for fault, (tried, survived) in counts.items()]
    return "\n".join([f"{'fault':<76}{'tried':>8}{'survived':>10}", *rows]) + "\n"


def main() -> None:
    """Run the tests and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "tally")
        log.touch()
        line = [sys.executable, "-m", "pytest", "-n", "0", "--timeout", "3600", "tests/faults", *sys.argv[1:]]
        done = subprocess.run(line, cwd=ROOT, env={**os.environ, "CATHODEFLOW_FAULTS": str(log)}, check=False)
        text = table(log.read_text().splitlines())
    print(text)
    if not sys.argv[1:]:
        (ROOT / "benchmarks/FAULTS.txt").write_text(text)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
