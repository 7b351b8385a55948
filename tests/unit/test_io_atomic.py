"""Outputs that several processes write at once."""

import subprocess
import sys
from pathlib import Path

from cathodeflow.io.tables import read_json

SCRIPT = """\
import sys
from cathodeflow.io.tables import write_json

for number in range(300):
    write_json("same.json", {"of": [number] * 200})
"""


def test_processes_that_write_the_same_output_do_not_take_each_other_for_killed(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert read_json(tmp_path / "same.json") == {"of": [299] * 200}
    assert [path.name for path in tmp_path.iterdir()] == ["same.json"]
