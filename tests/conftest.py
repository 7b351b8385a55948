"""What tests of several kinds share: real Snakemake runs, and the demo run once."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).parents[1]

# The same examples in every run: a test that fails for one of us fails for all. HYPOTHESIS_PROFILE=search draws others.
# Machines are shared: how long an example takes says nothing.
settings.register_profile("repeat", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

# Whenever snakemake starts, its executor for Slurm asks Slurm for a setting, and where Slurm's commands are but none of
# its daemons the answer takes nine seconds. Tests that start the daemons name their configuration.
os.environ["SLURM_CONF"] = os.devnull


# Threads that wait for each other give up the core, which another worker's test needs; by default they burn it, and a
# training beside another takes ten times as long. Results do not depend on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no worker is left alone with one at the end, and none waits for the demo.

    One worker runs the demo while the other goes through the files of real runs and measured data that do not need it;
    then come those that do, and last the unit tests, which are many and short.
    """
    needing = {item.path for item in items if "demo" in getattr(item, "fixturenames", ())}

    def rank(item: pytest.Item) -> int:
        if item.path.name == "test_demo.py":
            return 0
        if item.path.parent.name not in ("integration", "faults", "real"):
            return 3
        return 2 if item.path in needing else 1

    items.sort(key=rank)


@dataclass(frozen=True)
class Project:
    """A copy of the workflow (`checkout`) and a folder that it runs in, with the configuration `config.yaml`."""

    folder: Path
    checkout: Path

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run snakemake in the folder."""
        # The option --configfile takes all words up to the next option, so that files to make must not follow it.
        options = ["--snakefile", str(self.checkout / "Snakefile"), "--configfile", "config.yaml", "--cores", "2"]
        command = [sys.executable, "-m", "snakemake", *options]
        result = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": str(self.checkout / "src"),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=1700,
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    def planned(self, *arguments: str) -> dict[str, int]:
        """Jobs that a dry run plans, by rule; `all` and the total left out."""
        output = self.snakemake("--dry-run", *arguments)
        text = output.stdout + output.stderr
        table = re.search(r"^Job stats:\njob\s+count\n[- ]+\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
        if not table:
            assert "Nothing to be done" in text, text
            return {}
        rows = dict(line.split() for line in table.group(1).splitlines())
        return {rule: int(count) for rule, count in rows.items() if rule not in ("all", "total")}


def run_stage(folder: Path, technique: str, *line: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a technique in a folder."""
    command = [sys.executable, "-m", "cathodeflow", "--log", "log.txt", "--threads", "2", technique, *line]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def once(name: str, factory: pytest.TempPathFactory, worker: str, make: Callable[[Path], None]) -> Path:
    """Give a folder that is made once for all workers of a test run: the first makes it, others wait for it."""
    base = factory.getbasetemp() if worker == "master" else factory.getbasetemp().parent
    with FileLock(base / f"{name}.lock"):
        if not (base / f"{name}.made").exists():
            (base / name).mkdir(exist_ok=True)
            make(base / name)
            (base / f"{name}.made").touch()
    return base / name


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """The demo, as `make demo` runs it, in a folder of its own."""

    def make(folder: Path) -> None:
        (folder / "config").symlink_to(ROOT / "config")
        (folder / "config.yaml").write_text((ROOT / "config" / "config.yaml").read_text())
        Project(folder, ROOT).snakemake()

    return Project(once("demo", tmp_path_factory, worker_id, make), ROOT)
