"""`make env` takes just the Pythons that the package is made for, and says so before it downloads anything."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("3, 10", False), ("3, 11", True), ("3, 12", True), ("3, 13", True), ("3, 14", False), ("4, 0", False)],
)
def test_env_takes_the_pythons_of_pyproject(tmp_path: Path, version: str, accepted: bool) -> None:
    python = tmp_path / "python"
    as_version = f"import sys; sys.version_info = ({version}, 0, 'final', 0); exec(sys.argv[1])"
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -c ] && exec {shlex.quote(sys.executable)} -c {shlex.quote(as_version)} "$2"\n'
        f"touch {shlex.quote(str(tmp_path / 'called'))}; exit 7\n"
    )
    python.chmod(0o755)
    made = subprocess.run(
        ["make", "env", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode != 0  # the Python above makes no environment
    assert (tmp_path / "called").exists() == accepted
    text = f"{python} is Python {version.replace(', ', '.')}, expected >=3.11,<3.14"
    assert (text in made.stderr) != accepted, made.stderr
