"""One seed, one result: two runs of all techniques give the same files, bit for bit, with one core or two."""

import subprocess
import sys
from pathlib import Path

from .conftest import ROOT, digests, environment, only_full, tally


@only_full
def test_two_runs_give_the_same_files(tmp_path: Path) -> None:
    with tally("two runs with one seed, --cores 1 and 2, compared bit for bit"):
        for cores in ("1", "2"):
            line = [sys.executable, "benchmarks/reduced.py", str(tmp_path / cores), "--cores", cores]
            done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=3000)
            assert done.returncode == 0, done.stdout + done.stderr
        one, two = digests(tmp_path / "1"), digests(tmp_path / "2")
        assert len(one) > 100
        assert {path for path in one.keys() | two.keys() if one.get(path) != two.get(path)} == set()
