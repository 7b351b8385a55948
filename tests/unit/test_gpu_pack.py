"""What the measurements on a graphics card import is on the machine or among the wheels that travel."""

import subprocess
import sys

import pytest

from ..conftest import ROOT

GPU = ROOT / "benchmarks" / "gpu"
# In a process of its own: hide every package that is neither on the machine nor listed, and import all steps.
PROGRAM = """
import importlib, importlib.abc, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()

def needed(name, known):
    if plain(name) in known:
        return known
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return known
    known.add(plain(name))
    for line in lines:
        if "extra ==" not in line:
            needed(re.match(r"[\\w.-]+", line)[0], known)
    return known

known = {plain(line.split("==")[0]) for line in open("packages.txt") if line.strip() and line[0] != "#"} | {"cathodeflow"}
for name in ("torch", "numpy", "scipy", "h5py", "numba", "onnxruntime"):
    needed(name, known)
of = packages_distributions()

class Hiding(importlib.abc.MetaPathFinder):
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        owners = of.get(name.split(".")[0])
        if owners and not known & set(map(plain, owners)):
            return None
        return self.finder.find_spec(name, path, target)

    def find_distributions(self, *context):
        return self.finder.find_distributions(*context) if hasattr(self.finder, "find_distributions") else []

sys.meta_path[:] = map(Hiding, sys.meta_path)
for step in ("machine", "tests", "bragg", "phase", "crystals", "matphase", "efficientnet"):
    importlib.import_module(f"steps.{step}")
import hypothesis
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.positions import build_locator
from cathodeflow.bragg.model import BraggNN
import numpy
build_locator(BraggNN(11, (16, 8, 4, 2)), Locate(engine="torch", device="cpu", uncertainty=True))(
    numpy.ones((1, 11, 11), "f4"), numpy.ones((1, 2), "f4"))
from cathodeflow.sem.model import build_model
from cathodeflow.sem.network_options import Train
build_model(["a", "b"], Train(backbone="tf_efficientnet_b0"))
print("all imported", "onnx" in sys.modules, "matplotlib" in sys.modules, "pyarrow" in sys.modules)
"""


def test_steps_import_what_travels_and_nothing_else():
    paths = f"import sys; sys.path[:0] = [{str(ROOT / 'src')!r}, {str(ROOT / 'benchmarks')!r}, {str(GPU)!r}]"
    done = subprocess.run([sys.executable, "-c", paths + PROGRAM], cwd=GPU, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "all imported False False False"


@pytest.fixture
def wheels(tmp_path):
    """Empty files in place of all wheels."""
    for line in (GPU / "packages.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            (tmp_path / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()
    return tmp_path


def pack(folder):
    """List the wheels of a folder."""
    command = [sys.executable, GPU / "pack", "--list-only", "--folder", folder]
    return subprocess.run(command, capture_output=True, text=True)


def test_wheels_are_listed_with_their_sizes(wheels):
    (wheels / "pandas-3.1.1-py3-none-any.whl").write_bytes(bytes(12_000_000))
    done = pack(wheels)
    assert done.returncode == 0, done.stderr
    assert "12.00 MB  pandas-3.1.1" in done.stdout and "12.00 MB  together, of 60 MB" in done.stdout


def test_more_than_the_limit_fails(wheels):
    with (wheels / "pandas-3.1.1-py3-none-any.whl").open("wb") as file:
        file.truncate(60_100_000)
    done = pack(wheels)
    assert done.returncode == 1 and "60.1 MB of wheels, expected at most 60 MB" in done.stderr


def test_a_wheel_that_is_not_there_is_named(wheels):
    (wheels / "pandas-3.1.1-py3-none-any.whl").unlink()
    done = pack(wheels)
    assert done.returncode == 1 and "lacks pandas==3.1.1" in done.stderr
