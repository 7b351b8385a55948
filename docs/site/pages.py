"""Pages of the reference that are made from the package: commands, stages, and the functions of the modules."""

import ast
import re
from importlib import import_module
from pathlib import Path

import click
from docstrings import documented, module_page

TITLES = {"bragg": "Bragg peaks", "sem": "SEM micrographs", "fibsem": "FIB-SEM slices", "bcdi": "Coherent diffraction"}


def generated(root: Path) -> dict[str, str]:
    """Return the pages by their place below docs/."""
    package = root / "src" / "cathodeflow"
    pages = {"reference/commands.md": commands(), "reference/stages.md": stages(package)}
    pages["reference/settings.md"] = settings((root / "config" / "README.md").read_text())
    for name, title in TITLES.items():
        intro = (
            f"Public functions and classes of `cathodeflow.{name}`, made from their docstrings. Numeric functions take "
            "arrays and an options object, and open no file. Options classes are described in "
            "[Settings](settings.md), stages in [Stages](stages.md)."
        )
        pages[f"reference/python-{name}.md"] = module_page(
            f"Python: {title}", package / name, f"cathodeflow.{name}", intro
        )
    return pages


def settings(reference: str) -> str:
    """Put type, unit, bounds and default of config/README.md into one column, so that the meaning fits beside them."""
    lines = []
    for line in reference.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("| ") else []
        if len(cells) == 6 and cells[1] == "type":
            line = f"| {cells[0]} | values | meaning |"
        elif len(cells) == 6:
            key, kind, unit, bounds, default, meaning = cells
            known = default if default == "required" else f"default: {default}"
            facts = "; ".join(fact for fact in (kind, unit and f"[{unit}]", bounds, known) if fact)
            line = f"| {key} | {facts} | {meaning} |"
        elif line.startswith("|---|---|---|---|---|---|"):
            line = "|---|---|---|"
        lines.append(line)
    return "\n".join(lines) + "\n"


def stages(package: Path) -> str:
    """Write the stage functions of all techniques with their docstrings."""
    parts = [
        "# Stages\n\nEvery stage is a function: `from cathodeflow import bragg; bragg.fit(...)`. It takes the paths "
        "below and `options`, an object of the options class of the same name, and returns its figures of merit. "
        "[Stages from Python](../python.md) has an example for each technique.\n"
    ]
    for name, title in TITLES.items():
        parts.append(f"## {title}\n")
        for path in sorted((package / name / "stages").glob("[a-z]*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.FunctionDef) and node.name == path.stem:
                    parts.append(documented(node).replace(f"### `{node.name}`", f"### `{name}.{node.name}`"))
    return "\n".join(parts)


def commands() -> str:
    """Write usage, text and arguments of every command."""
    from cathodeflow.cli import cli

    parts = [
        "# Commands\n\n`cathodeflow COMMAND --help` prints all flags. The flags of a stage are its "
        "[settings](settings.md): `bragg.fit.max_chi2` is `--max-chi2` of `cathodeflow bragg fit`.\n"
    ]
    context = click.Context(cli, info_name="cathodeflow")
    for name in cli.list_commands(context):
        found = cli.get_command(context, name)
        assert found is not None
        parts.append(f"## `cathodeflow {name}`\n")
        if isinstance(found, click.Group):
            inner = click.Context(found, info_name=name, parent=context)
            parts.append((import_module(f"cathodeflow.{name}").__doc__ or "") + "\n")
            for one in found.list_commands(inner):
                stage = found.get_command(inner, one)
                assert stage is not None
                parts.append(f"### `{name} {one}`\n\n{_help(stage, click.Context(stage, info_name=one, parent=inner))}")
        else:
            parts.append(_help(found, click.Context(found, info_name=name, parent=context)))
    return "\n".join(parts)


def _help(command: click.Command, context: click.Context) -> str:
    usage = re.sub(r"\s+", " ", command.get_usage(context)).removeprefix("Usage: ")
    text = re.sub(r"^\x08\n?", "", command.help or "", flags=re.MULTILINE)
    return f"```text\n{usage}\n```\n\n{text}\n"
