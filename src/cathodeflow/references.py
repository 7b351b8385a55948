"""References of a module's statements by name, and their syntax trees without code that cannot change results.

A name refers to the module if it is global in its scope, as determined by the compiler (`symtable`):
parameters, local variables, variables of comprehensions and class attributes of the same name do not.
"""

import ast
import symtable
import sys
from fnmatch import fnmatch
from functools import cached_property, lru_cache

from cathodeflow.statements import DEFINITIONS, SHOWING, Statement, Target, imports, is_text, read_statement


class Module:
    """A parsed module: statements by the names they bind, imports by local name, and statements with side effects.

    Parameters
    ----------
    name : str
        Such as `package.module`.
    source : bytes
    package : str
        The package that relative imports start from.
    outside : tuple of str
        Patterns of first-party modules, without the package's name, that cannot change results.
    """

    def __init__(self, name: str, source: bytes, package: str, outside: tuple[str, ...]) -> None:
        self.name, self.package, self.outside = name, package, outside
        self.bound: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, list[Target]] = {}
        self.effects: list[ast.stmt] = []
        self.tree = ast.parse(source, name)
        self.table = symtable.symtable(source.decode(), name, "exec")
        self._read: dict[int, Statement] = {}
        for statement in self.tree.body:
            self._add(statement)

    def _add(self, statement: ast.stmt) -> None:
        if is_text(statement) or _is_for_types(statement):
            return
        if isinstance(statement, ast.Import | ast.ImportFrom):
            self._add_imports(statement)
        elif isinstance(statement, DEFINITIONS):
            self.bound.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [name for target in targets for name in _changed(target)]
            for name in dict.fromkeys(names):
                self.bound.setdefault(name, []).append(statement)
            self.effects.extend([] if names else [statement])
        else:
            # A condition, a loop or a call at module level may have any effect, so it always counts.
            self.effects.append(statement)
            for node in ast.walk(statement):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    self._add_imports(node)

    def _add_imports(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, target in imports(node, self.package):
            self.imported.setdefault(name, []).append(target)

    def __contains__(self, name: str) -> bool:
        return name in self.bound or name in self.imported

    @cached_property
    def texts(self) -> set[str]:
        """All string constants, which are searched for names of data files."""
        return {
            node.value for node in ast.walk(self.tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }

    @cached_property
    def unused_imports(self) -> list[Target]:
        """Imports whose names are never used; those of other libraries are assumed to be for their side effects."""
        used = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        return [target for name, targets in self.imported.items() if name not in used for target in targets]

    def is_logger(self, name: str) -> bool:
        """Whether a name of the module is a logger."""
        return any(
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Call)
            and isinstance(statement.value.func, ast.Attribute)
            and statement.value.func.attr == "getLogger"
            for statement in self.bound.get(name, ())
        )

    def is_outside(self, target: Target | None, *patterns: str) -> bool:
        """Whether a target is in a module that cannot change results, or in a module of given patterns."""
        if target is None:
            return False
        modules = (target.module, f"{target.module}.{target.name}")
        inside = [
            module.partition(".")[2] for module in modules if module.startswith(self.name.partition(".")[0] + ".")
        ]
        return any(fnmatch(module, pattern) for module in inside for pattern in patterns or self.outside)

    def read(self, statement: ast.stmt) -> Statement:
        """Return the relevant content of a statement of the module."""
        if id(statement) not in self._read:
            self._read[id(statement)] = read_statement(self, statement)
        return self._read[id(statement)]


@lru_cache(maxsize=4096)
def read_module(name: str, source: bytes, package: str, outside: tuple[str, ...]) -> Module:
    """Parse a module; results are cached by content."""
    return Module(name, source, package, outside)


def _changed(target: ast.expr) -> list[str]:
    """Names that an assignment to `target` binds or changes: also `table` of `table[0]` and `Class` of `Class.size`."""
    if isinstance(target, ast.Tuple | ast.List):
        return [name for item in target.elts for name in _changed(item)]
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Starred):
        target = target.value
    return [target.id] if isinstance(target, ast.Name) else []


def _is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_library(module: str) -> bool:
    """Whether a module is of a library that can change results: not the standard library, logging or progress."""
    top = module.split(".")[0]
    return bool(top) and top not in sys.stdlib_module_names and top not in SHOWING
