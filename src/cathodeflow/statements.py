"""References of a statement of a module, and its syntax tree without code that cannot change results."""

import ast
import importlib.util
import symtable
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cathodeflow.references import Module

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
WHOLE = "*"
#: Libraries for progress and logging; text passed to them does not count.
SHOWING = ("click", "logging", "tqdm", "warnings")
# Only the default of an options field counts: the options themselves are a parameter of every rule. Its
# description, unit and bounds do not change a value that passed.
_DEFAULTS = ("default", "default_factory")
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log")
_COMPREHENSIONS = ("listcomp", "setcomp", "dictcomp", "genexpr")


class Target(NamedTuple):
    """What an import or a name refers to: `name` of `module`, or `module` itself (None), and an attribute of that."""

    module: str
    name: str | None = None
    attribute: str | None = None


@dataclass
class Statement:
    """Relevant content of a statement: its syntax tree as text and its references, separately for its decorators."""

    text: str = ""
    targets: list[Target] = field(default_factory=list)
    decorators: str = ""
    decorator_targets: list[Target] = field(default_factory=list)
    reads_data: bool = False
    lists_modules: bool = False
    texts: set[str] = field(default_factory=set)


@dataclass
class Scope:
    """A function, class or comprehension: the compiler's tables, names bound so far, and imports inside it."""

    kind: str
    tables: list[symtable.SymbolTable] = field(default_factory=list)
    bound: set[str] = field(default_factory=set)
    imported: dict[str, list[Target]] = field(default_factory=dict)


def imports(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[tuple[str, Target]]:
    """Yield the names that an import binds, and what they refer to."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            parent, _, last = alias.name.rpartition(".")
            if alias.asname and parent:
                yield alias.asname, Target(parent, last)
            else:
                yield alias.asname or alias.name.split(".")[0], Target(alias.name)
        return
    base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module
    for alias in node.names:
        yield alias.asname or alias.name, Target(base or "", alias.name)


def normalise(node: ast.AST) -> str:
    r"""Syntax tree as text, without docstrings and positions, the same from every Python version.

    Examples
    --------
    >>> first, second = (ast.parse(code) for code in ("def f( a ):\n  'Doc.'\n  return a # why", "def f(a): return a"))
    >>> normalise(first) == normalise(second)
    True
    """
    parts = []
    for name, value in ast.iter_fields(node):
        if name in ("ctx", "kind", "type_comment") or value is None or value == []:
            continue
        if isinstance(value, list):
            if name == "body":
                value = [item for item in value if not is_text(item)]
            text = ",".join(normalise(item) if isinstance(item, ast.AST) else repr(item) for item in value)
        else:
            text = normalise(value) if isinstance(value, ast.AST) else repr(value)
        parts.append(f"{name}={text}")
    return f"{type(node).__name__}({';'.join(parts)})"


def read_statement(module: "Module", statement: ast.stmt) -> Statement:
    """Return the relevant content of a statement of a module."""
    return _Reader(module).read(statement)


class _Reader(ast.NodeTransformer):
    """Collects the references of a statement, and removes code that cannot change results."""

    def __init__(self, module: "Module") -> None:
        self.module = module
        self.scopes: list[Scope] = [Scope("module", [module.table])]
        self.found = Statement()

    def read(self, statement: ast.stmt) -> Statement:
        decorators = statement.decorator_list if isinstance(statement, DEFINITIONS) else []
        kept = [self.visit(decorator) for decorator in decorators]
        self.found.decorators = ",".join(map(normalise, kept))
        self.found.decorator_targets, self.found.targets = self.found.targets, []
        if isinstance(statement, DEFINITIONS):
            statement.decorator_list = []
        left = self.visit(statement)
        self.found.text = normalise(left) if left else ""
        return self.found

    # Names

    def _is_global(self, name: str) -> bool:
        direct = True
        for scope in reversed(self.scopes):
            if scope.kind == "comprehension" and name in scope.bound:
                return False
            if scope.kind == "class" and direct:
                symbols = _symbols(scope.tables, name)
                if any(symbol.is_declared_global() for symbol in symbols):
                    return True
                if any(symbol.is_local() for symbol in symbols):
                    return name not in scope.bound  # before it is bound, the name is that of the module
            if scope.kind == "function" and (symbols := _symbols(scope.tables, name)):
                return any(symbol.is_global() for symbol in symbols)
            direct = False
        return True

    def _lookup(self, name: str) -> list[Target]:
        """Return what a name in the present scope was imported as."""
        if self._is_global(name):
            return self.module.imported.get(name, [])
        return next((scope.imported[name] for scope in reversed(self.scopes) if name in scope.imported), [])

    def _target(self, node: ast.expr) -> Target | None:
        """Return what a called expression refers to, if it is a name or an attribute of a name."""
        attribute = None
        while isinstance(node, ast.Attribute):
            attribute, node = node.attr, node.value
        if not isinstance(node, ast.Name):
            return None
        found = self._lookup(node.id)
        if found:
            return found[0]._replace(attribute=attribute)
        if self._is_global(node.id) and node.id in self.module.bound:
            return Target("logging") if self.module.is_logger(node.id) else Target(self.module.name, node.id, attribute)
        return None

    def _refer(self, targets: list[Target]) -> None:
        self.found.targets += targets
        self.found.reads_data |= any(
            f"{target.module}.{target.name}".startswith(("importlib.resources", "pkgutil")) for target in targets
        )

    def visit_Name(self, node: ast.Name) -> ast.Name:
        if isinstance(node.ctx, ast.Store) and self.scopes[-1].kind in ("module", "class"):
            return node
        if not self._is_global(node.id):
            self._refer(self._lookup(node.id))
        elif node.id in self.module:
            self._refer([Target(self.module.name, node.id)])
        elif node.id == "__file__":
            self.found.reads_data = True
        elif node.id == "__path__":
            self.found.lists_modules = True
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and (targets := self._lookup(node.value.id)):
            # `frames.read` of `from package.io import frames` needs only `read`.
            self._refer([target._replace(attribute=node.attr) for target in targets])
            return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str):
            self.found.texts.add(node.value)
        return node

    # Code that cannot change results

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Call) and (target := self._target(_first_call(node.value).func)):
            # Figures of merit may be computed in the call that writes the record.
            silent = self.module.is_outside(target) and not self.module.is_outside(target, "record")
            silent &= _first_call(node.value) is node.value
            warns = target.module == "warnings" and "warn" in (target.name, target.attribute)
            logs = target.name in ("log", "LOG", "logger") and target.attribute in _LEVELS
            if silent or warns or logs or target.module == "logging":
                return None
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [argument for argument in node.exc.args if not _is_wording(argument)]
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        target = self._target(node.func)
        if self.module.is_outside(target, "errors"):
            return ast.Constant("error")
        outside = self.module.is_outside(target)
        if target and (outside or target.module.split(".")[0] in SHOWING):
            node.args = [argument for argument in node.args if not _is_wording(argument)]
            node.keywords = [keyword for keyword in node.keywords if not _is_wording(keyword.value)]
        if self.module.is_outside(target, "training"):
            # Name of a training in its progress bar and log.
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "label"]
        if target and _is_option(target):
            node.args = node.args[:1]
            node.keywords = [keyword for keyword in node.keywords if keyword.arg in _DEFAULTS]
        if outside:
            node.func = ast.Constant("outside")
        return self.generic_visit(node)

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        scope = next(scope for scope in reversed(self.scopes) if scope.kind != "comprehension")
        for name, target in imports(node, self.module.package):
            scope.imported.setdefault(name, []).append(target)
            if scope.kind != "function" or name == WHOLE or _is_global_in(scope, name):
                self._refer([target])
        node.names = [
            alias
            for alias, (_, target) in zip(node.names, imports(node, self.module.package), strict=True)
            if not self.module.is_outside(target)
        ]
        return node if node.names else None

    visit_Import = visit_ImportFrom = _visit_import

    # Scopes

    def _enter(self, kind: str, name: str, node: Any) -> Scope:
        outer = next(scope for scope in reversed(self.scopes) if scope.kind != "comprehension")
        tables = [
            child
            for table in outer.tables
            for child in _children(table)
            if (child.get_type(), child.get_name().strip("<>"), child.get_lineno()) == (kind, name, node.lineno)
        ]
        scope = Scope(kind, tables)
        self.scopes.append(scope)
        return scope

    def _visit_list(self, nodes: list[Any]) -> list[Any]:
        return [left for node in nodes if (left := self.visit(node)) is not None]

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.decorator_list = self._visit_list(node.decorator_list)
        node.args = self.visit(node.args)
        if node.returns:
            node.returns = self.visit(node.returns)
        self._enter("function", node.name, node)
        node.body = self._visit_list(node.body)
        self.scopes.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_function

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        node.args = self.visit(node.args)
        self._enter("function", "lambda", node)
        node.body = self.visit(node.body)
        self.scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for part in (node.decorator_list, node.bases, node.keywords):
            part[:] = self._visit_list(part)
        scope = self._enter("class", node.name, node)
        body = []
        for statement in node.body:
            names = _bound_by(statement)
            body += self._visit_list([statement])
            scope.bound |= names
        node.body = body
        self.scopes.pop()
        return node

    def _visit_comprehension(self, node: Any) -> ast.AST:
        # The first iterable belongs to the enclosing scope.
        node.generators[0].iter = self.visit(node.generators[0].iter)
        scope = Scope("comprehension")
        for generator in node.generators:
            scope.bound |= {item.id for item in ast.walk(generator.target) if isinstance(item, ast.Name)}
        self.scopes.append(scope)
        for number, generator in enumerate(node.generators):
            if number:
                generator.iter = self.visit(generator.iter)
            generator.target = self.visit(generator.target)
            generator.ifs = self._visit_list(generator.ifs)
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                setattr(node, name, self.visit(getattr(node, name)))
        self.scopes.pop()
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension


def _symbols(tables: list[symtable.SymbolTable], name: str) -> list[symtable.Symbol]:
    return [table.lookup(name) for table in tables if name in table.get_identifiers()]


def _is_global_in(scope: Scope, name: str) -> bool:
    return any(symbol.is_declared_global() for symbol in _symbols(scope.tables, name))


def _children(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """Functions and classes inside a scope, also inside its comprehensions, which Python 3.12 inlines."""
    for child in table.get_children():
        if child.get_type() in ("function", "class") and child.get_name().strip("<>") not in _COMPREHENSIONS:
            yield child
        else:
            yield from _children(child)


def _bound_by(statement: ast.stmt) -> set[str]:
    if isinstance(statement, DEFINITIONS):
        return {statement.name}
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return set()
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def is_text(node: object) -> bool:
    """Whether a statement is only text, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_wording(node: ast.AST) -> bool:
    """Whether an expression is text: a constant, an f-string, or several of them joined."""
    if isinstance(node, ast.Starred):
        return _is_wording(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return _is_wording(node.left) or _is_wording(node.right)
    if isinstance(node, ast.IfExp):
        return _is_wording(node.body) and _is_wording(node.orelse)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _first_call(node: ast.Call) -> ast.Call:
    """Return the first call of a chain such as `getLogger("x").setLevel(3)`."""
    inner: ast.expr = node.func
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    return _first_call(inner) if isinstance(inner, ast.Call) else node


def _is_option(target: Target) -> bool:
    return (target.module.endswith(".options") and target.name == "option") or target[:2] == ("pydantic", "Field")
