"""Dependencies of a result other than data and options: digest of its code, libraries, and commit."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cathodeflow.code_reach import PACKAGE, Reach, is_data, reach
from cathodeflow.io.notes import Notes

FIGURES = "figures"


def stage_target(stage: str, root: Path = PACKAGE) -> str:
    """Return the function of a stage, as `package.module:name`.

    Examples
    --------
    >>> stage_target("bragg.fit")
    'cathodeflow.bragg.stages.fit:fit'
    """
    technique, name = stage.split(".")
    return f"{root.name}.{technique}.stages.{name}:{name}"


def stage_reach(stage: str, root: Path = PACKAGE) -> Reach:
    """Return the reach of a stage; plots only count for stages named `figures`.

    That of this package is remembered from process to process, as following the names takes seconds.
    """
    if root == PACKAGE:
        return _remembered().reach(stage)
    return _follow_stage(stage, root)


def _follow_stage(stage: str, root: Path) -> Reach:
    return reach(stage_target(stage, root), root, plots=stage.endswith(f".{FIGURES}"))


def code_parameter(stage: str, libraries: Iterable[str] = (), root: Path = PACKAGE) -> str:
    """Return the parameter that makes Snakemake run a stage again: code digest, and versions of some of its libraries.

    Parameters
    ----------
    stage : str
        Such as `bragg.fit`.
    libraries : iterable of str
        Names of packages, such as `scikit-image`, or `python`.
    root : Path
        Folder of the package.
    """
    found = stage_reach(stage, root)
    chosen = {canonical(name) for name in libraries}
    made_with = versions(found.libraries) if chosen else {}
    return " ".join([found.digest, *(f"{name} {made_with[name]}" for name in sorted(chosen & made_with.keys()))])


class RememberedReaches:
    """Reaches of a package's stages, noted beside its compiled modules for as long as none of its files changes.

    Where this module is one of these files, what is noted is what it would find.

    Parameters
    ----------
    root : Path
        Folder of the package.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._notes = Notes(root / "__pycache__" / "code_digests")
        self._files = files_digest(root)
        self._known = self._notes.read()
        if not any(key.startswith(self._files) for key in self._known):
            self._notes.clear()

    def reach(self, stage: str) -> Reach:
        """Return the reach of a stage."""
        # Another process may note those of other files meanwhile, so each note names its own.
        key = f"{self._files} {stage}"
        if key not in self._known:
            found = _follow_stage(stage, self._root)
            self._known[key] = [found.digest, sorted(found.libraries)]
            self._notes.add({key: self._known[key]})
        digest, libraries = self._known[key]
        return Reach(digest, frozenset(libraries))


@cache
def _remembered() -> RememberedReaches:
    return RememberedReaches(PACKAGE)


def files_digest(root: Path) -> str:
    """Digest of the names and contents of all files of a package, and of the version of Python that compiles them."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(root.rglob("*")):
        if path.suffix == ".py" or is_data(path):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def canonical(name: str) -> str:
    """Return the normalised name of a package: lower case, with dashes."""
    return name.lower().replace("_", "-").replace(".", "-")


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages of some libraries (import names), by package."""
    packages = _packages()
    names = {canonical(package.name) for library in libraries for package in packages.get(library, ())}
    return {name: version for name in ("python", *sorted(names)) if (version := installed(name))}


def installed(package: str) -> str | None:
    """Return the version of Python or of a package, None if it is not installed."""
    if package == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return None


@cache
def _packages() -> dict[str, list[importlib.metadata.Distribution]]:
    """Return the installed packages that hold each library (import name).

    As `importlib.metadata.packages_distributions`, which takes half a second in every job: it reads the metadata of all
    packages, and makes a path of each of their files.
    """
    found: dict[str, list[importlib.metadata.Distribution]] = {}
    for package in importlib.metadata.distributions():
        libraries = (package.read_text("top_level.txt") or "").split() or _top_level(package.read_text("RECORD") or "")
        for library in libraries:
            found.setdefault(library, []).append(package)
    return found


def _top_level(record: str) -> set[str]:
    r"""Return the import names of the Python files in the list of a package's files.

    Examples
    --------
    >>> sorted(_top_level("six.py,sha256=x,1\nyaml/nodes.py,sha256=x,1\nyaml/nodes.pyi,sha256=x,1\n"))
    ['six', 'yaml']
    """
    files = (line.split(",", 1)[0].strip('"') for line in record.splitlines())
    return {file.split("/", 1)[0].removesuffix(".py") for file in files if file.endswith(".py")}


def git_commit(folder: Path = PACKAGE) -> str | None:
    """Return the commit of the package's checkout, with `+` if files differ from it; None outside a git checkout."""
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        runs = [
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return runs[0] + ("+" if runs[1] else "")
