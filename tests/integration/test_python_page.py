"""The page on stages from Python: its blocks run, and write what they name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_the_block_runs_and_writes_its_outputs(title: str, code: str, tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert re.search(r"\d", result.stdout)
    outputs = re.findall(r"(?:out|vti|statistics|pairs|labels_out)=\"([^\"]+)\"", code)
    assert len(outputs) >= 3 and all((tmp_path / name).exists() for name in outputs)


def test_every_technique_has_a_block() -> None:
    from cathodeflow.config import techniques

    assert {re.search(r"from cathodeflow import (\w+)", code)[1] for _, code in BLOCKS} == set(techniques())
