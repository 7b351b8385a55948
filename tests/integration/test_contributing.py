"""The guide for contributors: its code blocks, applied to a copy of the repository, do what it says."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

from .conftest import copy_sources

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n# (new|edit) ([\w./]+)(?:, (after|before): ([^\n]+))?\n(.*?)```", re.DOTALL)


def chapter(title: str) -> str:
    """Text below a heading."""
    return GUIDE.split(f"## {title}\n")[1].split("\n## ")[0]


def apply(title: str, root: Path) -> list[tuple[str, str]]:
    """Write the files and edits of a chapter into a copy of the repository; which files were new or edited."""
    done = []
    for kind, name, where, anchor, code in BLOCK.findall(chapter(title)):
        path = root / name
        if kind == "new":
            assert not path.exists(), name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        else:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            found = [number for number, line in enumerate(lines) if line.strip().startswith(anchor)]
            assert found, f"{name}: no line '{anchor}'"
            indent = re.match(r"\s*", lines[found[0]])[0]
            place = found[0]
            if where == "after":
                # Statements may span lines, which are indented more or begin with a bracket.
                place += 1
                while re.match(rf"{indent}[^\w\"]", lines[place]):
                    place += 1
            lines.insert(place, textwrap.indent(code, indent) + ("\n\n" if code.startswith("class") else ""))
            path.write_text("".join(lines), encoding="utf-8")
        done.append((kind, name))
    return done


def python(root: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    result = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def snakemake(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


DIGESTS = """
from cathodeflow.config import techniques
from cathodeflow.code_reach import code_digest
from cathodeflow.provenance import stage_target
from cathodeflow.stage import has_stage
for technique, section in techniques().items():
    for name in section.model_fields:
        if has_stage(f"cathodeflow.{technique}", name):
            print(f"{technique}.{name}", code_digest(stage_target(f"{technique}.{name}")))
"""


def digests(root: Path) -> dict[str, str]:
    return dict(line.split() for line in python(root, DIGESTS).splitlines())


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy of what the workflow needs, with the smallest simulated scan."""
    for name in ("src", "workflow", "profiles", "envs"):
        copy_sources(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (tmp_path / "scans.tsv").write_text("sample\trole\tframes\tstate_of_charge\none\ttrain\tsimulated\t0.1\n")
    (tmp_path / "own.yaml").write_text(
        "bragg:\n  samples: scans.tsv\n  simulate: {n_frames: 3, rows: 64, cols: 64, n_peaks: 30}\n"
    )
    return tmp_path


def test_an_added_stage_is_called_run_and_recorded_and_makes_no_other_stage_stale(clone: Path) -> None:
    before = digests(clone)
    snakemake(clone, "--configfile", "own.yaml", "--", "results/bragg/one/candidates.parquet")
    done = apply("Add a stage", clone)
    assert {(kind, name) for kind, name in done} == {
        ("edit", "src/cathodeflow/bragg/options.py"),
        ("edit", "src/cathodeflow/bragg/peak_options.py"),
        ("new", "src/cathodeflow/bragg/stages/counts.py"),
        ("new", "workflow/rules/bragg_counts.smk"),
    }
    after = digests(clone)
    assert after.pop("bragg.counts") and after == before

    log = snakemake(clone, "--configfile", "own.yaml", "--", "results/bragg/one/counts.csv")
    assert "bragg_counts" in log and "bragg_find_peaks" not in log
    by_workflow = (clone / "results/bragg/one/counts.csv").read_bytes()
    called = python(
        clone,
        "from cathodeflow import bragg; "
        "print(bragg.counts('results/bragg/one/candidates.parquet', out='own.csv')['peaks'])",
    )
    assert (clone / "own.csv").read_bytes() == by_workflow
    candidates = pd.read_parquet(clone / "results/bragg/one/candidates.parquet")
    assert int(called) == len(candidates) == pd.read_csv(clone / "own.csv")["peaks"].sum() > 0


def test_an_added_option_is_a_flag_and_a_key_and_concerns_its_stage_alone(clone: Path) -> None:
    before = digests(clone)
    apply("Add an option", clone)
    after = digests(clone)
    # The comparison of search settings runs the same search.
    assert {name for name in after if after[name] != before[name]} == {"bragg.find_peaks", "bragg.study"}
    text = (clone / "own.yaml").read_text()
    (clone / "own.yaml").write_text(text + "  find_peaks: {max_peaks: 2}\n")
    snakemake(clone, "--configfile", "own.yaml", "--", "results/bragg/one/candidates.parquet")
    found = pd.read_parquet(clone / "results/bragg/one/candidates.parquet")
    assert found.groupby("frame").size().max() == 2


def test_an_added_technique_is_found_by_its_folder(clone: Path) -> None:
    before = digests(clone)
    done = apply("Add a technique", clone)
    assert {kind for kind, _ in done} == {"new"}
    after = digests(clone)
    assert after.pop("xrd.integrate") and after == before
    (clone / "pattern.csv").write_text("angle,intensity\n10,5\n20,7\n170,100\n")
    (clone / "patterns.tsv").write_text("sample\tfile\na\tpattern.csv\n")
    (clone / "own.yaml").write_text("xrd:\n  samples: patterns.tsv\n  integrate: {stop: 90}\n")
    snakemake(clone, "--configfile", "own.yaml", "--", "results/xrd/a/total.csv")
    assert pd.read_csv(clone / "results/xrd/a/total.csv")["total"].tolist() == [12]


TRAIN = """
from cathodeflow import fibsem
fibsem.simulate("raw", options=fibsem.Simulate(n_slices=24, rows=64, cols=64))
fibsem.volume("raw/slices", out="slices.zarr", labels="raw/labels", labels_out="labels.zarr")
fibsem.augment("slices.zarr", "labels.zarr", out="images.zarr", labels_out="image_labels.zarr", pairs="pairs.parquet",
               options=fibsem.Augment(copies=1))
options = fibsem.TrainGlobal(architecture="plain.8", epochs=2, dropout=0.1, device="cpu", precision="32-true")
trained = fibsem.train_global("images.zarr", "image_labels.zarr", "pairs.parquet", split="grouped", out="plain.pt",
                              options=options)
fibsem.predict_global("plain.pt", "images.zarr", "pairs.parquet", split="grouped", out="logits.zarr",
                      entropy="entropy.zarr", labels="predicted.zarr", table="predicted.parquet",
                      options=fibsem.PredictGlobal(device="cpu"))
print(trained.history[-1]["train_loss"] < trained.history[0]["train_loss"])
"""


def test_an_added_network_is_trained_and_applied(clone: Path) -> None:
    apply("Add a network", clone)
    assert python(clone, TRAIN).splitlines()[-1] == "True"
    assert (clone / "predicted.zarr.manifest.json").exists()
