"""Ten thousand damaged files: every reader says what is wrong in its own words, and none crashes, hangs or blows up."""

import json
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT, environment, tally, times
from .seeds import SEEDS

#: MB that reading small damaged files may take beyond those already taken.
MEMORY = 1500


def test_damaged_files_end_in_our_own_error(tmp_path: Path) -> None:
    examples = times(10_000 // len(SEEDS) + 1, 8)
    line = [sys.executable, "-m", "tests.faults.fuzz", str(tmp_path / "files"), str(examples), "20"]
    (tmp_path / "files").mkdir()
    with tally("a damaged file of any kind read (fuzz)", examples * len(SEEDS)):
        done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=3000)
        reports = [json.loads(text) for text in done.stdout.splitlines() if text.startswith("{")]
        last = next(iter(sorted(tmp_path.glob("files/*/last"))), None)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\n{last and last.read_text()}"
        assert [one["name"] for one in reports] == [one.name for one in SEEDS]
        assert [fault for one in reports for fault in one["faults"]] == []
        assert max(one["memory_mb"] for one in reports) < MEMORY
        # Damage that no reader saw would test nothing.
        assert all(one["refused"] > 0 for one in reports if one["name"] not in ("image.png.txt", "record.json"))
