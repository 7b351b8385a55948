"""Dependencies of a result other than data and options: digest of its code, libraries, and commit.

Snakemake does not detect what a command imports. Therefore `code_digest` follows names from the function of a stage to
every first-party function, class and constant that it uses in any module, and hashes their syntax trees without
comments, docstrings and layout. Code that the stage cannot reach does not count, even in the same module, nor does code
that cannot change a number: `OUTSIDE` and `PLOTS` name the modules.

Excluded everywhere are log messages, the wording of errors, labels of progress bars, and the description, unit and
bounds of options. Their defaults and validators count, since they may replace a value.
"""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from cathodeflow.io.notes import Notes
from cathodeflow.references import Module, is_library, read_module
from cathodeflow.statements import WHOLE, Statement, Target

PACKAGE = Path(__file__).parent
#: Modules that cannot change a number: commands, errors, progress, records, tracking. Patterns without the package's
#: name.
OUTSIDE = (
    "cli", "commands", "errors", "progress", "provenance", "record", "record_files", "reference", "references", "stage",
    "statements", "tracking", "verify",
)  # fmt: skip
#: Modules that draw; they only count for the stages named `FIGURES`.
PLOTS = ("plotting", "io.figures", "*plots")
FIGURES = "figures"

Place = tuple[str, str]


class Reach(NamedTuple):
    """Reach of a target: a digest of the first-party code and data files, and other libraries by import name."""

    digest: str
    libraries: frozenset[str]


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


def code_digest(target: str, root: Path = PACKAGE, *, plots: bool = False) -> str:
    """Compute the digest of all first-party code and data files of the package that `target` reaches.

    The decorators of the target itself do not count, as they only make it a command with help texts. Code that is
    reached only by text is not detected: names given to `getattr` or `importlib`, and functions that decorators put
    into a registry. For a function that reads data files (`__file__`, `importlib.resources`), the files that it names
    count, or else those that its module names, or else all in the folder of the module.

    Parameters
    ----------
    target : str
        `package.module:name`, or `package.module` for all of a module.
    root : Path
        Folder of the package.
    plots : bool
        Whether plots count.

    Returns
    -------
    str
        16 hexadecimal digits; independent of comments, docstrings and layout.

    Raises
    ------
    ValueError
        The target is not in the package.
    """
    return reach(target, root, plots=plots).digest


def reach(target: str, root: Path = PACKAGE, *, plots: bool = False) -> Reach:
    """Follow the names from `target`; parameters and errors are those of `code_digest`."""
    return package_code(root, OUTSIDE if plots else (*OUTSIDE, *PLOTS)).reach(target)


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
        if path.suffix == ".py" or _is_data(path):
            digest.update(f"\0{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def package_code(root: Path, outside: tuple[str, ...]) -> "PackageCode":
    """Return the code of a package, which is read once per process."""
    return PackageCode(root, outside)


class PackageCode:
    """First-party modules of a package, read when they are needed."""

    def __init__(self, root: Path, outside: tuple[str, ...]) -> None:
        self.root, self.outside = root, outside
        self._modules: dict[str, Module] = {}
        self._resolved: dict[tuple[str, str, bool], tuple[str, list[Place], set[str]]] = {}
        self._reached: dict[str, Reach] = {}
        self._outside: dict[str, bool] = {}

    @cached_property
    def files(self) -> dict[str, Path]:
        """Files of all modules, by name."""
        found = {}
        for path in self.root.rglob("*.py"):
            parts = path.relative_to(self.root).with_suffix("").parts
            found[".".join((self.root.name, *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
        return found

    def module(self, name: str) -> Module:
        """Parse a module."""
        if name not in self._modules:
            path = self.files[name]
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            self._modules[name] = read_module(name, path.read_bytes(), package, self.outside)
        return self._modules[name]

    def reach(self, target: str) -> Reach:
        """Follow the names from a target on."""
        if target not in self._reached:
            self._reached[target] = self._follow(target)
        return self._reached[target]

    def _follow(self, target: str) -> Reach:
        module, _, name = target.partition(":")
        if module not in self.files or (name and name not in self.module(module)):
            raise ValueError(f"{target} is not in {self.root}")
        start = (module, name or WHOLE)
        while name and start[1] not in self.module(start[0]).bound:
            start = self._places(self.module(start[0]).imported[start[1]][0])[0]
        command = start
        seen: set[Place] = set()
        pending = [start]
        lines, libraries = [], set()
        while pending:
            node = pending.pop()
            if node in seen or self._is_outside(node[0]):
                continue
            seen.add(node)
            text, more, used = self._resolve(*node, bare=node == command)
            pending += more
            libraries |= used
            # The order of the nodes does not matter, but that of the statements of a node does.
            lines.append(f"{node[0]}:{node[1]}:{text}")
        digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
        return Reach(digest, frozenset(libraries))

    def _is_outside(self, module: str) -> bool:
        if module not in self._outside:
            own = module.partition(".")[2]
            self._outside[module] = any(fnmatch(own, pattern) for pattern in self.outside)
        return self._outside[module]

    def _resolve(self, name: str, wanted: str, *, bare: bool) -> tuple[str, list[Place], set[str]]:
        if (name, wanted, bare) not in self._resolved:
            self._resolved[name, wanted, bare] = self._resolve_anew(name, wanted, bare=bare)
        return self._resolved[name, wanted, bare]

    def _resolve_anew(self, name: str, wanted: str, *, bare: bool) -> tuple[str, list[Place], set[str]]:
        """Return the statements that define a name (without decorators if `bare`), their references, and libraries."""
        module = self.module(name)
        # Importing a module runs it and its parent packages.
        statements = list(module.effects)
        parent = name.rpartition(".")[0]
        leads: list[Place] = [(parent, "")] if parent else []
        targets = [target for target in module.unused_imports if target.module.split(".")[0] != self.root.name]
        # A star import may bind the name.
        targets += module.imported.get(WHOLE, [])
        if wanted == WHOLE:
            statements += [statement for group in module.bound.values() for statement in group]
            targets += [target for found in module.imported.values() for target in found]
        elif wanted in module:
            statements += module.bound.get(wanted, [])
            targets += module.imported.get(wanted, [])
        elif wanted and f"{name}.{wanted}" in self.files:
            leads.append((f"{name}.{wanted}", WHOLE))
        texts = []
        for statement in statements:
            read = module.read(statement)
            plain = bare and statement not in module.effects
            texts.append(read.text if plain or not read.decorators else f"{read.decorators}@{read.text}")
            own = read.targets if plain else read.decorator_targets + read.targets
            texts += self._data(module, read) if read.reads_data else []
            targets += own
            if read.lists_modules:
                # A package that lists its own modules, such as `io.formats`, may run any of them.
                leads += [(other, WHOLE) for other in sorted(self.files) if other.rpartition(".")[0] == name]
        libraries = set()
        for target in targets:
            places = self._places(target)
            leads += places
            if not places and is_library(target.module):
                libraries.add(target.module.split(".")[0])
        return ";".join(texts), list(dict.fromkeys(leads)), libraries

    def _places(self, target: Target) -> list[Place]:
        """Return the nodes in the package that a target refers to."""
        base, name, attribute = target
        if base not in self.files:
            return []
        if name is None or name == WHOLE:
            return [(base, WHOLE)]
        whole = f"{base}.{name}"
        return [(whole, attribute or WHOLE) if whole in self.files else (base, name)]

    def _data(self, module: Module, read: Statement) -> list[str]:
        """Return the digests of the data files that a statement of a module can read."""
        near = {module.package} | {text for text in module.texts if text in self.files}
        near |= {f"{target.module}.{target.name}" for target in read.targets}
        folders = [self.files[name].parent for name in sorted(near & self.files.keys())]
        found = {path for folder in folders for path in folder.rglob("*") if _is_data(path)}
        for texts in (read.texts, module.texts):
            if named := {path for path in found if any(path.name == text.rpartition("/")[2] for text in texts)}:
                found = named
                break
        return [
            f"{path.relative_to(self.root).as_posix()}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            for path in sorted(found)
        ]


def _is_data(path: Path) -> bool:
    return path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts and path.is_file()


def canonical(name: str) -> str:
    """Return the normalised name of a package: lower case, with dashes."""
    return name.lower().replace("_", "-").replace(".", "-")


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages of some libraries (import names), by package."""
    packages = _packages()
    names = {canonical(package) for library in libraries for package in packages.get(library, ())}
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
def _packages() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


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
