"""An option is written once, in its class; and a stage that the configuration knows is wired up everywhere."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cathodeflow.commands import Technique
from cathodeflow.config import techniques
from cathodeflow.options import Options, leaves, options_class
from cathodeflow.stage import Stage, stage_names

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "src" / "cathodeflow"
RULES = ROOT / "workflow" / "rules"
TECHNIQUES = list(techniques())
#: Commands that are no jobs: they do the work of several stages with their options, or convert files of other programs.
ALONE = {"bcdi": {"reconstruct", "import_pattern"}, "bragg": {"measure", "watch"}, "sem": {"export"}}


def stages(technique: str) -> dict[str, type[Options]]:
    """Options classes of a technique by the name of their stage."""
    fields = techniques()[technique].model_fields.items()
    return {name: cls for name, field in fields if (cls := options_class(field))}


def option_names(technique: str) -> dict[str, bool]:
    """Names of all options of a technique, each with whether None is its default in every class that has it."""
    found: dict[str, bool] = {}
    for cls in stages(technique).values():
        for key, field in leaves(cls):
            name = key.rpartition(".")[2]
            found[name] = found.get(name, True) and field.default is None
    return found


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return (node for node in ast.walk(tree) if isinstance(node, kinds))


def defaults(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> Iterator[tuple[ast.arg, ast.expr]]:
    """Parameters of a function that have a default."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    yield from zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True)
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument, default


def second_defaults(tree: ast.AST, names: dict[str, bool]) -> list[str]:
    """Parameters named like an option that have a default of their own.

    None for an option that is None by default says that it is not given. A file that a stage reads or writes may be
    called like an option of another stage.
    """
    return [
        f"line {argument.lineno}: {argument.arg}"
        for function in functions(tree)
        for argument, default in defaults(function)
        if argument.arg in names
        and not (names[argument.arg] and isinstance(default, ast.Constant) and default.value is None)
        and not re.match(r"(Input|Output|Source)", ast.unparse(argument.annotation) if argument.annotation else "")
    ]


def modules(technique: str) -> list[Path]:
    return [path for path in sorted((SOURCES / technique).rglob("*.py")) if path.name != "options.py"]


def test_the_search_finds_a_second_default() -> None:
    names = {"min_area": False, "seed": True, "dark": False}
    for code in (
        "def f(min_area=1): ...",
        "def f(*, seed=0): ...",
        "f = lambda min_area=2: 0",
        "class A:\n def f(self, seed=1): ...",
    ):
        assert second_defaults(ast.parse(code), names), code
    for code in (
        "def f(min_area): ...",
        "def f(*, seed=None): ...",
        "def f(size=1): ...",
        "def f(*, dark: Source | None = None): ...",
    ):
        assert not second_defaults(ast.parse(code), names), code


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_no_function_has_a_default_for_an_option(technique: str) -> None:
    names = option_names(technique)
    found = {
        str(path.relative_to(SOURCES)): wrong
        for path in modules(technique)
        if (wrong := second_defaults(ast.parse(path.read_bytes()), names))
    }
    assert found == {}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_option_is_read(technique: str) -> None:
    """Every option is read as an attribute, or named among those of an architecture, in the code of its stage."""
    for stage, cls in stages(technique).items():
        nodes = [
            node
            for path in reached(f"cathodeflow.{technique}.stages.{stage}")
            for node in ast.walk(ast.parse(path.read_bytes()))
        ]
        read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        read |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert [key for key, _ in leaves(cls) if not set(key.split(".")) <= read] == [], stage


def reached(module: str) -> list[Path]:
    """Files of a module and of what it imports of its technique, the training loop and unit cells, without options modules."""
    found: dict[str, Path] = {}
    pending = [module]
    package = module.split(".")[1]
    while pending:
        name = pending.pop()
        path = (SOURCES.parent / Path(*name.split("."))).with_suffix(".py")
        if name in found or not path.is_file() or path.name == "options.py":
            continue
        found[name] = path
        for node in ast.walk(ast.parse(path.read_bytes())):
            inside = (f"cathodeflow.{package}", "cathodeflow.training", "cathodeflow.cell")
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(inside):
                pending += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return list(found.values())


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_stage_has_a_module_and_a_command_and_the_other_way_round(technique: str) -> None:
    known = stages(technique)
    package = f"cathodeflow.{technique}"
    assert set(stage_names(package, techniques()[technique].model_fields)) == set(known) | ALONE.get(technique, set())
    for name, cls in known.items():
        stage = getattr(importlib.import_module(f"{package}.stages.{name}"), name)
        assert isinstance(stage, Stage)
        assert (stage.name, stage.options_class) == (f"{technique}.{name}", cls)
        # Every argument has a text for the help.
        assert set(stage.arguments) <= set(stage.help()), name
        assert re.match(r"[A-Z][a-z]+ .*\.$", stage.summary().split("\n")[0]), name
    assert [name.replace("-", "_") for name in Technique(package).list_commands(None)][: len(known)] == list(known)  # type: ignore[arg-type]


def rules(technique: str) -> tuple[str, dict[str, str]]:
    """What stands before the rules of a technique in all its files, and the text of every rule with a job by its name."""
    heads, texts = "", {}
    for path in sorted(RULES.glob(f"{technique}*.smk")):
        head, *parts = re.split(r"^rule (\w+):\n", path.read_text(), flags=re.MULTILINE)
        heads += head
        texts |= {name: text for name, text in zip(parts[::2], parts[1::2], strict=True) if "shell:" in text}
    return heads, texts


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_stage_has_a_rule_with_its_code_memory_and_time_and_the_other_way_round(technique: str) -> None:
    found: set[str] = set()
    head, texts = rules(technique)
    for name, text in texts.items():
        command = re.search(rf'command\(\s*f?"{technique} ([\w-]+) ', text)
        assert command, f"{name}: command"
        stage = f"{technique}.{command[1].replace('-', '_')}"
        found.add(stage)
        params = f'**stage_params("{stage}")' in text or f'code=code("{stage}")' in text
        assert params, f"{name}: no code and options of {stage}"
        assert re.search(rf'\*\*resources\("{stage}", mem_mb=\d+, runtime=\d+\)', text), f"{name}: memory and time"
        assert f'logs("{stage}", ' in text and f'benchmarks("{stage}", ' in text, f"{name}: log and benchmark"
        for section in ("output", "threads", "conda", "message"):
            assert re.search(rf"^    {section}:", text, re.MULTILINE), f"{name}: {section}"
        # The record of a job is asked for, so that its stage runs again when it is deleted.
        for record in re.findall(r'^        record=f?"([^"]+)"', text, re.MULTILINE):
            # A folder of the route of a reconstruction holds a record of the same name.
            file, folder = Path(record).name, Path(record).parent.name
            named = file in head or (Path(file).stem == folder and 'f"{route}.json"' in head)
            assert named, f"{name}: {record} is no target"
    joined = {f"{technique}.{name}" for name in ALONE.get(technique, set())}
    assert found - joined == {f"{technique}.{name}" for name in stages(technique)}


def test_every_stage_is_documented() -> None:
    """Every stage has a section of the reference, and every section is that of a stage."""
    text = (ROOT / "config" / "README.md").read_text()
    documented = re.findall(r"^### `(\w+\.\w+)`$", text, re.MULTILINE)
    assert sorted(documented) == sorted(f"{name}.{stage}" for name in techniques() for stage in stages(name))


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_a_renamed_key_leads_to_one_that_is_there(technique: str) -> None:
    everything = {f"{name}.{key}" for name, cls in stages(technique).items() for key, _ in leaves(cls)}
    for name, cls in stages(technique).items():
        keys = dict(leaves(cls))
        for old, new in cls.renamed.items():
            there = [
                key.removeprefix("../") if key.startswith("../") else f"{name}.{key}" for key in new.split(" and ")
            ]
            assert old not in keys and set(there) <= everything, f"{old}: {new}"
