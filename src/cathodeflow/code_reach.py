"""Code of the package that a stage reaches: its digest, and the libraries that it uses.

Snakemake does not detect what a command imports. Therefore `code_digest` follows names from the function of a stage to
every first-party function, class and constant that it uses in any module, and hashes their syntax trees without
comments, docstrings and layout. Code that the stage cannot reach does not count, even in the same module, nor does code
that cannot change a number: `OUTSIDE` and `PLOTS` name the modules.

Excluded everywhere are log messages, the wording of errors, labels of progress bars, and the description, unit and
bounds of options. Their defaults and validators count, since they may replace a value.
"""

import hashlib
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from cathodeflow.references import Module, is_library, read_module
from cathodeflow.statements import WHOLE, Statement, Target

PACKAGE = Path(__file__).parent
#: Modules that cannot change a number: commands, errors, progress, records, tracking. Patterns without the package's
#: name.
OUTSIDE = (
    "cli", "code_reach", "commands", "errors", "progress", "provenance", "record", "record_files", "reference",
    "references", "stage", "statements", "tracking", "verify",
)  # fmt: skip
#: Modules that draw; they only count for the stages named `FIGURES`.
PLOTS = ("plotting", "io.figures", "*plots")

Place = tuple[str, str]


class Reach(NamedTuple):
    """Reach of a target: a digest of the first-party code and data files, and other libraries by import name."""

    digest: str
    libraries: frozenset[str]


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
        found = {path for folder in folders for path in folder.rglob("*") if is_data(path)}
        for texts in (read.texts, module.texts):
            if named := {path for path in found if any(path.name == text.rpartition("/")[2] for text in texts)}:
                found = named
                break
        return [
            f"{path.relative_to(self.root).as_posix()}:{hashlib.sha256(path.read_bytes()).hexdigest()}"
            for path in sorted(found)
        ]


def is_data(path: Path) -> bool:
    """Whether a file of the package is neither code nor compiled."""
    return path.suffix not in (".py", ".pyc") and "__pycache__" not in path.parts and path.is_file()
