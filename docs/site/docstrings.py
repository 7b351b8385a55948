"""Markdown from numpy docstrings, read from the source without importing it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

_HEADING = re.compile(r"^([A-Z][A-Za-z ]+)\n-{3,}\n", re.MULTILINE)
_Documented = ast.FunctionDef | ast.ClassDef


def module_page(title: str, package: Path, name: str, intro: str) -> str:
    """Write one page with the public functions and classes of all modules of a package.

    Parameters
    ----------
    title, intro : str
        Heading and first paragraph of the page.
    package : path
        Folder of the package.
    name : str
        Name of the package, such as `cathodeflow.bragg`.
    """
    parts = [f"# {title}\n\n{intro}\n"]
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package).with_suffix("")
        if inside.parts[0] == "stages" or inside.name.startswith("_") or "options" in inside.name:
            continue
        tree = ast.parse(path.read_text())
        found = [text for node in _public(tree) if (text := documented(node))]
        if found:
            parts.append(f"## `{name}.{'.'.join(inside.parts)}`\n\n{prose(ast.get_docstring(tree) or '')}\n")
            parts += found
    return "\n".join(parts)


def _public(tree: ast.Module) -> Iterator[_Documented]:
    for node in tree.body:
        if isinstance(node, _Documented) and not node.name.startswith("_"):
            yield node


def documented(node: _Documented, *, level: int = 3) -> str:
    """Return heading, signature and docstring of a function or class; empty without a docstring."""
    text = ast.get_docstring(node)
    if not text:
        return ""
    kind = "class" if isinstance(node, ast.ClassDef) else "def"
    parts = [f"{'#' * level} `{node.name}`\n"]
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        parts.append(f"```python\n{kind} {node.name}({ast.unparse(node.args)}){returns}\n```\n")
    parts.append(markdown(text))
    return "\n".join(parts)


def markdown(text: str) -> str:
    """Write a numpy docstring as Markdown: prose, then its sections, with parameters as a list."""
    first, *rest = _HEADING.split(text)
    parts = [prose(first)]
    for heading, body in zip(rest[::2], rest[1::2], strict=True):
        parts.append(f"**{heading}**\n")
        if heading == "Examples":
            parts.append(f"```pycon\n{body.strip()}\n```\n")
        elif heading in ("Notes", "References", "See Also"):
            parts.append(prose(body))
        else:
            parts.append(_entries(body))
    return "\n".join(parts)


def prose(text: str) -> str:
    """Escape what Markdown or HTML would take for markup outside of code."""
    pieces = re.split(r"(`[^`]*`)", text.strip())
    pieces[::2] = [re.sub(r"([<*_\[\]|])", r"\\\1", piece) for piece in pieces[::2]]
    return "".join(pieces) + "\n"


def _entries(body: str) -> str:
    """Write `name : type` lines with indented texts as a list."""
    lines: list[str] = []
    for line in body.strip("\n").splitlines():
        if line.startswith(" "):
            if lines:
                lines[-1] += " " + prose(line).strip()
        elif line.strip():
            name, _, kind = line.partition(" : ")
            lines.append(f"- `{name.strip()}`" + (f" ({prose(kind).strip()})" if kind else "") + ":")
    return "\n".join(re.sub(r"([`)]):$", r"\1", line) for line in lines) + "\n"
