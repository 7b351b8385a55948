"""What a result depends on besides data and options: a digest of the code that makes it, and the commit.

Snakemake does not see what a command imports. `code_digest` therefore follows names: from the function behind a stage
to every first-party function, class and constant that it reaches, in whatever module, and hashes their syntax trees
without comments, docstrings and layout. Code that the stage cannot reach does not count, even in the same module.
"""

import ast
import copy
import hashlib
import importlib.util
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
WHOLE = "*"


@dataclass(frozen=True)
class Module:
    """A parsed module: statements by the names they bind, imports by local name, statements that run for effect."""

    name: str
    bound: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imported: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)


def code_digest(target: str, root: Path = PACKAGE) -> str:
    """Digest of all first-party code that `target` reaches.

    The decorators of the target itself do not count: they make it a command, with help texts. Not seen is what is
    reached by text alone: names given to `getattr` or `importlib`, and functions that decorators put into a registry.

    Parameters
    ----------
    target : str
        `package.module:name`, or `package.module` for all of a module.
    root : Path
        Folder of the package.

    Returns
    -------
    str
        16 hexadecimal digits; the same for the same syntax trees, whatever their comments, docstrings and layout.

    Raises
    ------
    ValueError
        The target is not in the package.
    """
    module, _, name = target.partition(":")
    if not (_file(module, root) and (not name or name in _names(_parse(module, root)))):
        raise ValueError(f"{target} is not in {root}")
    place = (module, name or WHOLE)
    while name and place[1] not in _parse(place[0], root).bound:
        place = _imported(_parse(place[0], root).imported[place[1]][0], root)
    command = place
    seen: set[tuple[str, str]] = set()
    pending = [place]
    lines = []
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        statements, more = _resolve(*place, root, bare=place == command)
        pending += more
        # Places in any order, but the statements of a place in theirs.
        lines.append(f"{place[0]}:{place[1]}:" + ";".join(map(normalise, statements)))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def stage_target(stage: str) -> str:
    """Target of `code_digest` for a stage: its function.

    Examples
    --------
    >>> stage_target("bragg.fit")
    'cathodeflow.bragg.stages.fit:fit'
    """
    technique, name = stage.split(".")
    if (PACKAGE / technique / "cli").is_dir():
        return f"cathodeflow.{technique}.cli:{name}"
    return f"cathodeflow.{technique}.stages.{name}:{name}"


def normalise(node: ast.AST) -> str:
    r"""Syntax tree as text, without docstrings and positions, the same from every Python version.

    Examples
    --------
    >>> one, two = (ast.parse(code) for code in ("def f( a ):\n  'Doc.'\n  return a # why", "def f(a): return a"))
    >>> normalise(one) == normalise(two)
    True
    """
    parts = []
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment") or value is None or value == []:
            continue
        if (
            name == "args"
            and isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "option"
        ):
            value = value[:1]  # the default counts, the sentence that describes an option does not
        if isinstance(value, list):
            if name == "body":
                value = [item for item in value if not _is_text(item)]
            text = ",".join(normalise(item) if isinstance(item, ast.AST) else repr(item) for item in value)
        else:
            text = normalise(value) if isinstance(value, ast.AST) else repr(value)
        parts.append(f"{name}={text}")
    return f"{type(node).__name__}({';'.join(parts)})"


def git_commit(folder: Path = PACKAGE) -> str | None:
    """Commit checked out where the package lies, with `+` where files differ from it; None outside a git checkout."""
    commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        runs = [
            subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return runs[0] + ("+" if runs[1] else "")


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _file(module: str, root: Path) -> Path | None:
    package, *parts = module.split(".")
    if package != root.name:
        return None
    base = root.joinpath(*parts)
    candidates = (base.with_suffix(".py"), base / "__init__.py") if parts else (base / "__init__.py",)
    return next((path for path in candidates if path.is_file()), None)


@cache
def _parse(module: str, root: Path) -> Module:
    path = _file(module, root)
    assert path is not None
    parsed = Module(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement in ast.parse(path.read_bytes(), str(path)).body:
        if _is_text(statement):
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            _add_imports(parsed, statement, package)
        elif isinstance(statement, DEFINITIONS):
            parsed.bound.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [name for target in targets for name in _changed(target)]
            for name in dict.fromkeys(names):
                parsed.bound.setdefault(name, []).append(statement)
            parsed.effects.extend([] if names else [statement])
        else:
            # A condition, a loop or a call at module level may do anything: it always counts.
            parsed.effects.append(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    _add_imports(parsed, node, package)
    return parsed


def _changed(target: ast.expr) -> list[str]:
    """Names that an assignment to `target` binds or changes: also `table` of `table[0]` and `Class` of `Class.size`."""
    if isinstance(target, ast.Tuple | ast.List):
        return [name for item in target.elts for name in _changed(item)]
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
        target = target.value
    return [target.id] if isinstance(target, ast.Name) else []


def _add_imports(parsed: Module, node: ast.Import | ast.ImportFrom, package: str) -> None:
    for name, target in _imports(node, package):
        parsed.imported.setdefault(name, []).append(target)


def _imports(node: ast.Import | ast.ImportFrom, package: str) -> list[tuple[str, tuple[str, str | None]]]:
    if isinstance(node, ast.Import):
        return [(alias.asname or alias.name.split(".")[0], (alias.name, None)) for alias in node.names]
    base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
    return [(alias.asname or alias.name, (base or "", alias.name)) for alias in node.names]


def _names(module: Module) -> set[str]:
    return set(module.bound) | set(module.imported)


def _resolve(module: str, name: str, root: Path, *, bare: bool = False) -> tuple[list[ast.stmt], list[tuple[str, str]]]:
    """Statements that define a name of a module, without decorators if `bare`, and the places these lead to."""
    if not _file(module, root):
        return [], []
    parsed = _parse(module, root)
    # Importing a module runs it, and the packages above it.
    statements = list(parsed.effects)
    parent = module.rpartition(".")[0]
    leads = [(parent, "")] if parent else []
    # Whatever a star brings in may be what is looked for.
    leads += [_imported(target, root) for target in parsed.imported.get(WHOLE, [])]
    if name == WHOLE:
        statements += [statement for group in parsed.bound.values() for statement in group]
        leads += [_imported(target, root) for targets in parsed.imported.values() for target in targets]
    elif name in parsed.bound or name in parsed.imported:
        own = parsed.bound.get(name, [])
        statements += [_undecorated(statement) if bare else statement for statement in own]
        leads += [_imported(target, root) for target in parsed.imported.get(name, [])]
    elif name and _file(f"{module}.{name}", root):
        leads.append((f"{module}.{name}", WHOLE))
    for statement in statements:
        leads += _leads(statement, parsed, root)
    return statements, leads


def _undecorated(statement: ast.stmt) -> ast.stmt:
    if not isinstance(statement, DEFINITIONS):
        return statement
    bare = copy.copy(statement)
    bare.decorator_list = []
    return bare


def _imported(target: tuple[str, str | None], root: Path) -> tuple[str, str]:
    module, name = target
    if name is None or name == WHOLE:
        return module, WHOLE
    return (f"{module}.{name}", WHOLE) if _file(f"{module}.{name}", root) else (module, name)


def _leads(statement: ast.stmt, module: Module, root: Path) -> Iterator[tuple[str, str]]:
    """Names of the module, and of first-party modules, that a statement uses."""
    package = module.name if (root.joinpath(*module.name.split(".")[1:]) / "__init__.py").is_file() else ""
    through: set[ast.AST] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for _, target in _imports(node, package or module.name.rpartition(".")[0]):
                yield _imported(target, root)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in module.imported:
            # `frames.read` of `from package.io import frames` needs `read` alone.
            for base, name in module.imported[node.value.id]:
                whole = f"{base}.{name}" if name else base
                if "." not in base or name:
                    through.add(node.value)
                    yield (whole, node.attr) if _file(whole, root) else (base, name or WHOLE)
                else:
                    yield base, WHOLE
        elif isinstance(node, ast.Name) and node.id == "__path__" and package:
            # A package that lists its own modules, as `io.formats` does, may run any of them.
            folder = root.joinpath(*package.split(".")[1:])
            yield from ((f"{package}.{file.stem}", WHOLE) for file in folder.glob("*.py") if file.stem != "__init__")
        elif isinstance(node, ast.Name) and node not in through and node.id in _names(module):
            yield module.name, node.id
