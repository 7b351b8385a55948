"""Draw the import floors of the package, as tests/unit/test_floors.py holds them: python docs/import_floors.py."""

import ast
from collections.abc import Iterator
from html import escape
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "cathodeflow"
PICTURE = Path(__file__).with_suffix(".svg")

#: From the top to the bottom: a module may import what lies on its floor or below.
FLOORS = ("command line", "stages", "workflow", "numeric modules", "helpers", "io", "errors")
_TITLES = {
    "command line": "Command line: commands, checks and documentation made from the stages",
    "stages": "Stages: read files with io, call numeric modules, write files with io",
    "workflow": "Configuration, records, code digests and MLflow",
    "numeric modules": "Numeric modules and options: arrays in, arrays out; techniques do not import each other",
    "helpers": "Helpers of all techniques",
    "io": "io: the only modules that open files; knows no technique",
    "errors": "errors",
}
# All other modules that lie directly in the package are helpers.
_MEMBERS = {
    "command line": {"__init__", "__main__", "checking", "cli", "commands", "reference", "run_crate", "verify"},
    "workflow": {
        "code_reach",
        "config",
        "provenance",
        "record",
        "record_files",
        "references",
        "report",
        "stage",
        "tracking",
    },
}


def techniques() -> list[str]:
    """Names of the techniques."""
    return sorted(path.parent.name for path in PACKAGE.glob("*/options.py"))


def modules() -> dict[str, Path]:
    """Names of all modules without `cathodeflow.`, and their files; packages by `__init__`."""
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor_of(module: str) -> str:
    """Floor of a module such as `bragg.fit`."""
    first, *rest = module.split(".")
    if first in techniques():
        return {"stages": "stages", "__init__": "stages"}.get(rest[0], "numeric modules")
    if first in ("io", "errors"):
        return first
    return next((floor for floor, names in _MEMBERS.items() if first in names), "helpers")


def imports() -> dict[str, set[str]]:
    """Modules of the package that each module imports, inside of functions too."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        found[name] = set()
        for node in _running(ast.parse(path.read_bytes(), str(path))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                if node.level:
                    raise ValueError(f"{path}: a relative import, which is not followed here")
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for target in names:
                if target.split(".")[0] == "cathodeflow":
                    found[name].add(_module(target.removeprefix("cathodeflow").removeprefix("."), known))
        found[name].discard(name)
    return found


def _running(tree: ast.Module) -> Iterator[ast.AST]:
    """Nodes of a module, without those that only type checkers see."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        pending += ast.iter_child_nodes(node)


def _module(target: str, known: dict[str, Path]) -> str:
    """Return the module that defines `target`, the name of a module or of something in one."""
    parts = target.split(".") if target else []
    for end in (len(parts), len(parts) - 1):
        base = ".".join(parts[: max(end, 0)])
        for name in (base, f"{base}.__init__" if base else "__init__"):
            if name in known:
                return name
    raise ValueError(f"no module of {target}")


def picture() -> str:
    """Return the picture as SVG."""
    width, margin, gap, row = 960, 20, 26, 18
    parts: list[str] = []
    y = margin
    for floor in FLOORS:
        lists = _contents(floor)
        lines = {name: _wrapped(names, (width - 2 * margin) // len(lists) - 20) for name, names in lists.items()}
        height = 34 + row * max((len(line) + bool(name) for name, line in lines.items()), default=0)
        parts.append(
            f'<rect x="{margin}" y="{y}" width="{width - 2 * margin}" height="{height}" rx="4" class="floor"/>'
            f'<text x="{margin + 10}" y="{y + 20}" class="title">{escape(_TITLES[floor])}</text>'
        )
        step = (width - 2 * margin) / len(lists)
        for column, (name, line) in enumerate(lines.items()):
            x = margin + 10 + column * step
            if column:
                parts.append(f'<path d="M{x - 10:g} {y + 28}V{y + height}" class="wall"/>')
            for number, text in enumerate([name, *line] if name else line):
                kind = ' class="name"' if name and not number else ""
                parts.append(f'<text x="{x:g}" y="{y + 42 + row * number}"{kind}>{escape(text)}</text>')
        y += height + gap
        if floor != FLOORS[-1]:
            parts.append(f'<path d="M{width // 2} {y - gap + 3}V{y - 8}" class="arrow" marker-end="url(#head)"/>')
    size = f'width="{width}" height="{y - gap + margin}"'
    style = (
        "text{font:13px DejaVu Sans,Arial,sans-serif;fill:#222}.title{font-weight:bold}.name{font-style:italic}"
        ".floor{fill:#f2f5f9;stroke:#5b7083}.wall{stroke:#5b7083;stroke-dasharray:3 3}"
        ".arrow{stroke:#222;stroke-width:1.5}"
    )
    head = (
        '<marker id="head" markerWidth="8" markerHeight="8" refX="4" refY="3" orient="auto">'
        '<path d="M0 0L6 3L0 6z"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style><defs>{head}</defs>'
        '<rect width="100%" height="100%" fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _contents(floor: str) -> dict[str, list[str]]:
    """Names in a floor, by column; of techniques the columns alone, so that a new module of theirs changes nothing."""
    if floor in ("stages", "numeric modules"):
        return {name: [] for name in techniques()}
    if floor in ("io", "errors"):
        return {"": []}
    return {"": sorted({name for name in modules() if "." not in name and floor_of(name) == floor} - {"__init__"})}


def _wrapped(names: list[str], width: int) -> list[str]:
    lines: list[str] = []
    for name in names:
        if lines and 8 * (len(lines[-1]) + len(name) + 2) < width:
            lines[-1] += f", {name}"
        else:
            lines.append(name)
    return lines


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8", newline="\n")
