"""Break the code in one line at a time and see whether a test fails: what `make mutants` does.

python tests/faults/mutants.py [--only TEXT] [--jobs N] [--limit SECONDS] runs the mutants of `mutants.toml`. The named
tests first run against a copy of the package as it is, where they must pass. Then every mutant is applied to a copy of
its own, and the tests named with it must fail. With `--only`, mutants whose file or description holds TEXT are run.
"""

import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "cathodeflow"
SCORE = ROOT / "benchmarks" / "MUTANTS.txt"
#: First lines of the score.
HEADING = """\
Wrong lines in the code that a test sees: `make mutants` puts each line of tests/faults/mutants.toml into a copy of the
package of its own and runs the tests named with it. The same tests pass on the code as it is. By file: killed of tried.

"""
#: Exit status of pytest: all passed, and some failed.
PASSED, FAILED = 0, 1
# Code that cannot run is no wrong result: any test at all would see it.
_CRASHED = re.compile(r"^E +(?:\S+\.)?(NameError|UnboundLocalError|SyntaxError|TypingError)\b", re.MULTILINE)
LIBRARIES = (
    "dask.array", "h5py", "hdf5plugin", "hypothesis.extra.numpy", "matplotlib", "numba", "numpy", "pandas", "PIL.Image",
    "pyarrow.parquet", "pydantic", "scipy.ndimage", "scipy.optimize", "scipy.stats", "sklearn.metrics", "tifffile",
    "timm", "torch", "zarr",
)  # fmt: skip


class Mutant(NamedTuple):
    """One wrong line: the file in the package, its text, the wrong text, what is wrong, and tests that must see it."""

    file: str
    old: str
    new: str
    what: str
    tests: tuple[str, ...]


class Outcome(NamedTuple):
    """What became of a mutant: `killed`, `survived`, `timed out` or `broken` (its code or its tests could not be run)."""

    result: str
    seconds: float
    output: str


def read_mutants() -> list[Mutant]:
    """Read the list; test functions are named by their file in tests/unit and their name, `fit::threshold`."""
    table = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text(encoding="utf-8"))
    return [
        Mutant(file, one["old"], one["new"], one["what"], tuple(map(_node, one["tests"])))
        for file, mutants in table.items()
        for one in mutants
    ]


def _node(test: str) -> str:
    module, name = test.split("::")
    return f"tests/unit/test_{module}.py::test_{name}"


def problem(mutant: Mutant, package: Path = PACKAGE) -> str | None:
    """Say why an entry of the list no longer applies; None if it does."""
    path = package / mutant.file
    if not path.is_file():
        return f"{mutant.file}: no such file"
    times = path.read_text(encoding="utf-8").count(mutant.old)
    if times != 1:
        return f"{mutant.file}: {mutant.old!r} stands there {times} times, expected once"
    if mutant.old == mutant.new:
        return f"{mutant.file}: {mutant.old!r} is not changed"
    for test in mutant.tests:
        file, name = test.split("::")
        if not (ROOT / file).is_file() or f"def {name.partition('[')[0]}(" not in (ROOT / file).read_text("utf-8"):
            return f"{mutant.file}, {mutant.what}: no test {test}"
    return None if mutant.tests else f"{mutant.file}, {mutant.what}: no test"


def _load_libraries() -> None:
    """Import what tests take seconds to import, once for all the processes that begin as copies of this one."""
    # Mutants run side by side, each with one thread; libraries read this when they are imported.
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)


def _run_tests(source: Path, tests: Sequence[str], log: Path) -> None:
    """Run tests against the package in a folder, in a process of its own."""
    # A session of its own, so that processes which the tests start can be ended with it.
    os.setsid()
    with log.open("w") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.chdir(ROOT)
    sys.path[0:1] = [str(source), str(ROOT)]
    os.environ["PYTHONPATH"] = str(source)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    found = importlib.import_module(PACKAGE.name).__file__
    if not found or not Path(found).is_relative_to(source):
        sys.exit(f"found the package in {found}, expected it in {source}")
    sys.exit(int(pytest.main(["-x", "-n", "0", "-p", "no:cacheprovider", *tests])))


class Started:
    """Tests that run in a process of their own; `deadline` is the time at which they are ended."""

    def __init__(self, source: Path, tests: Sequence[str], log: Path, limit: float) -> None:
        self.log, self.begun, self.deadline = log, time.monotonic(), time.monotonic() + limit
        self.process = multiprocessing.get_context("fork").Process(target=_run_tests, args=(source, tests, log))
        self.process.start()

    def outcome(self) -> Outcome | None:
        """Return how the tests ended; None while they run."""
        result = None
        if self.process.is_alive():
            if time.monotonic() < self.deadline:
                return None
            result = "timed out"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()
        result = result or {PASSED: "survived", FAILED: "killed"}.get(self.process.exitcode or 0, "broken")
        output = self.log.read_text(errors="replace")
        if result == "killed" and _CRASHED.search(output):
            result = "broken"
        return Outcome(result, time.monotonic() - self.begun, output)


def check_tests(source: Path, mutants: Sequence[Mutant], limit: float) -> None:
    """End the run where a named test fails on the code as it is: it would kill every mutant."""
    # One process: what it compiles is kept beside the sources, and the mutants' copies begin with it.
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    started = Started(source, tests, source.with_name("log"), 20 * limit)
    while (outcome := started.outcome()) is None:
        time.sleep(0.1)
    if outcome.result != "survived":
        sys.exit(f"{outcome.output}\nfound tests that fail on the code as it is, expected that they pass")


def copied(source: Path, folder: Path, mutant: Mutant) -> Path:
    """Make a copy of the package with one mutant."""
    copy = folder / "src"
    shutil.copytree(source, copy)
    path = copy / PACKAGE.name / mutant.file
    path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
        compiled.unlink()
    return copy


def tried(mutants: Sequence[Mutant], source: Path, limit: float, jobs: int) -> list[Outcome]:
    """Run the tests of all mutants, some side by side, and print what becomes of each."""
    outcomes: dict[int, Outcome] = {}
    waiting, running = list(enumerate(mutants)), dict[int, Started]()
    while waiting or running:
        while waiting and len(running) < jobs:
            number, mutant = waiting.pop(0)
            folder = source.with_name(f"mutant-{number}")
            running[number] = Started(copied(source, folder, mutant), mutant.tests, folder / "log", limit)
        for number, started in list(running.items()):
            if (outcome := started.outcome()) is None:
                continue
            outcomes[number], mutant = outcome, mutants[number]
            del running[number]
            shutil.rmtree(started.log.parent)
            print(f"{outcome.result:<10}{outcome.seconds:>6.1f} s  {mutant.file}: {mutant.what}", flush=True)
            if outcome.result == "broken":
                print(outcome.output, flush=True)
        time.sleep(0.05)
    return [outcomes[number] for number in range(len(mutants))]


def score(mutants: Sequence[Mutant], outcomes: Sequence[Outcome]) -> str:
    """One line for each file, one for each mutant that was not killed, and the sum."""
    lines = []
    for file in dict.fromkeys(mutant.file for mutant in mutants):
        here = [outcome for mutant, outcome in zip(mutants, outcomes, strict=True) if mutant.file == file]
        lines.append(f"{file:<40}{sum(outcome.result == 'killed' for outcome in here):>4} of {len(here):>3}")
    for mutant, outcome in zip(mutants, outcomes, strict=True):
        if outcome.result != "killed":
            lines.append(f"{outcome.result}: {mutant.file}, {mutant.what}")
    killed = sum(outcome.result == "killed" for outcome in outcomes)
    lines.append(f"killed {killed} of {len(mutants)} ({100 * killed / len(mutants):.1f} %)")
    return "\n".join(lines)


def main() -> None:
    """Run the list and print what became of each mutant."""
    parser = argparse.ArgumentParser(description="Break the code one line at a time; tests must fail.")
    parser.add_argument("--only", default="", help="run the mutants whose file or description holds this text")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="mutants run side by side")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for the tests of one mutant")
    chosen = parser.parse_args()
    mutants = [one for one in read_mutants() if chosen.only in f"{one.file} {one.what}"]
    if not mutants:
        sys.exit(f"found no mutant with {chosen.only!r}, expected some")
    if problems := [found for mutant in mutants if (found := problem(mutant))]:
        sys.exit("\n".join(problems))
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        source = Path(folder, "src")
        _load_libraries()
        shutil.copytree(ROOT / "src", source)
        check_tests(source, mutants, chosen.limit)
        print(f"the tests pass on the code as it is ({time.monotonic() - begun:.0f} s)", flush=True)
        outcomes = tried(mutants, source, chosen.limit, chosen.jobs)
    text = score(mutants, outcomes)
    print(f"{text}\n{time.monotonic() - begun:.0f} s with {chosen.jobs} at a time")
    if not chosen.only:
        SCORE.write_text(f"{HEADING}{text}\n")
    sys.exit(any(outcome.result == "broken" for outcome in outcomes))


if __name__ == "__main__":
    main()
