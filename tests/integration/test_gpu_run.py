"""The measurements on a graphics card run, small and on a CPU, so that a card's minutes are not spent on errors."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import ROOT

RUN = ROOT / "benchmarks" / "gpu" / "run"
# What every step has to write: a figure for each, with its unit.
NUMBER = r"\d[\d.e+]*"
FIGURES = {
    "tests": [r"\d+ passed"],
    "bragg": [
        *(rf"inference, {precision}, batch \d+{how}: {NUMBER} patches/s, peak {NUMBER} GiB.*card waits {NUMBER} %"
          for precision in ("float32", "bfloat16") for how in ("", ", CUDA graph")),
        rf"locator, copies included: {NUMBER} patches/s",
        rf"locator with standard errors, copies included: {NUMBER} patches/s",
        rf"training, \d+ peaks, \d+ epochs, 32-true: {NUMBER} s, median error {NUMBER} px",
        rf"torch.compile: {NUMBER} patches/s",
    ],
    "phase": [
        *(rf"{starts}, {long} .*: {NUMBER} iterations/s.*card waits" for starts, long in (("1 start", 6), ("2 starts", 6))),
        rf"1 start, iterations alone: {NUMBER} iterations/s.*an iteration {NUMBER} times",
        *(rf"{name} .*, batch {batch}, image and 20 iterations: {NUMBER} volumes/s.*card waits"
          for name in ("autophasenn", "candidates") for batch in (1, 2)),
    ],
    "crystals": [
        rf"drawn by one process: {NUMBER} crystals/s",
        rf"made on the card, batch \d+: {NUMBER} crystals/s.*card waits",
        rf"drawn by \d+ processes and made: {NUMBER} crystals/s",
        *(rf"{name} at .*, {what}: {NUMBER} volumes/s.*card waits"
          for name in ("autophasenn", "candidates")
          for what in ("training, 32-true", "training, bf16-mixed", "training on new crystals, bf16-mixed")),
        *(rf"{name}: epoch 1, \d+ crystals, loss {NUMBER}" for name in ("autophasenn", "candidates")),
        *(rf"{name}: successes .* 1 unseen" for name in ("autophasenn", "candidates")),
        *(rf"\b{regime}\b" for regime in ("weak", "medium", "strong", "extreme")),
    ],
    "matphase": [
        *(rf"{name}: {NUMBER} epochs/s.*peak {NUMBER} GiB.*card waits" for name in ("unet", "ugsm")),
        rf"stochastic passes, T = 2: {NUMBER} slices/s",
        rf"lcgar: {NUMBER} windows/s in training.*card waits",
        *(rf"test: {name}.*: mean IoU {NUMBER}, accuracy {NUMBER}" for name in ("unet", "ugsm", "matphase")),
    ],
    "efficientnet": [
        *(rf"tf_efficientnet_b0, .*{what}, {precision}.*: {NUMBER} crops/s.*card waits"
          for what in ("inference", "training") for precision in ("bfloat16", "float32")),
        rf"waits for crops {NUMBER} % of the time",
    ],
}  # fmt: skip


def start(results: Path, *options: str) -> subprocess.Popen[str]:
    """Start a reduced run."""
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([RUN, "--reduced", "--results", results, *options], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Results of a run of all steps, with time enough on a busy machine."""
    results = tmp_path_factory.mktemp("gpu") / "GPU_RESULTS.txt"
    process = start(results, "--minutes", "20")
    _, errors = process.communicate(timeout=1300)
    log = Path(f"{results}.log").read_text()[-3000:]
    assert process.returncode == 0, f"{results.read_text()}\n{errors}\n{log}"
    return results.read_text()


@pytest.mark.parametrize("step", FIGURES)
def test_every_figure_is_written(whole, step):
    lines = "\n".join(line for line in whole.splitlines() if line.startswith(f"{step}: "))
    for figure in FIGURES[step]:
        assert re.search(figure, lines), f"no line like {figure} in\n{lines}"
    assert re.search(rf"^{step}: done in \d+ s$", lines, re.MULTILINE)
    assert not re.search(r"not reached|out of memory|\bnan\b|failed", lines)


def test_results_say_that_they_are_of_no_card(whole):
    assert "its figures mean nothing" in whole.splitlines()[0]
    assert "no graphics card; everything runs on the CPU" in whole


def test_a_run_that_is_cut_leaves_the_figures_so_far(tmp_path):
    results = tmp_path / "cut.txt"
    process = start(results, "--steps", "bragg,phase", "--minutes", "20")
    end = time.monotonic() + 300
    while not (results.exists() and "bragg: inference" in results.read_text()) and time.monotonic() < end:
        assert process.poll() is None, results.read_text()
        time.sleep(0.2)
    process.terminate()
    assert process.wait(timeout=30) == 143
    lines = results.read_text().splitlines()
    assert any("patches/s" in line for line in lines)
    assert lines[-1].startswith("all: ended from outside")
    assert not any(line.startswith("phase") for line in lines)


def test_a_tiny_limit_ends_every_step_in_time(tmp_path):
    results = tmp_path / "tiny.txt"
    process = start(results, "--minutes", "0.05")
    process.communicate(timeout=300)
    text = results.read_text()
    assert process.returncode == 0, text
    for step in FIGURES:
        assert re.search(rf"^{step}: (not reached|cut after its \d s|done)", text, re.MULTILINE), text
    assert text.startswith("machine: ")


def test_without_a_card_the_whole_form_is_refused(tmp_path):
    process = subprocess.run([RUN, "--results", tmp_path / "none.txt"], capture_output=True, text=True,
                             env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    assert process.returncode == 2
    assert "no graphics card that torch can use; --reduced runs on a CPU" in process.stderr


@pytest.mark.parametrize(
    "options", [["--minutes", "eight"], ["--fast"], ["--steps", "sem"]], ids=["minutes", "option", "step"]
)
def test_wrong_options_are_named(options, tmp_path):
    process = subprocess.run([RUN, "--results", tmp_path / "none.txt", *options], capture_output=True, text=True)
    assert process.returncode == 2
    assert options[-1] in process.stderr and len(process.stderr.splitlines()) == 1
