"""Help texts and the reference use the words of the field, as readers stumble over others."""

import re
from importlib import import_module

import click
import pytest

from cathodeflow.cli import cli
from cathodeflow.commands import command
from cathodeflow.config import techniques
from cathodeflow.reference import markdown
from cathodeflow.stage import Stage, has_stage

# What readers stumbled over, and what to write.
BANNED = {
    r"likewise|besides|there is but": "plain word order",
    r"tells?\b|answers?\b|told": "a model predicts, segments or classifies; a file states",
    r"goes the way|is held to|what is left of": "say what it does",
    r"shares?\b(?! memory)": "fraction",
    r"the grey|greys": "intensity, grey level",
    r"strangeness|strangest|foreign": "out-of-distribution (OOD) score",
    r"(?<!standard )\bdeviation": "standard deviation (sigma)",
    r"most epochs|steps of so many|a step of": "maximum number of epochs; batch, training step",
    r"weights to begin with": "pretrained weights, initial checkpoint",
    r"mIU": "mIoU",
    r"crosswise": "cross-validation, out-of-fold",
    r"sheet of the samples": "sample sheet",
    r"what belongs to": "isosurface, support",
    r"anew": "again",
    r"\bleast\b(?! squares)|\bgreatest\b|\bfewest\b": "minimum, maximum, smallest, at least one ...",
}
ALLOWED = re.compile(
    r"`[^`]*`|at least|least squares|least-squares|(?:does|did) not answer|(?:absolute|median absolute) deviation"
)


def stages() -> list[tuple[str, Stage]]:
    return [
        (f"{technique} {name}", getattr(import_module(f"cathodeflow.{technique}.stages.{name}"), name))
        for technique, section in techniques().items()
        for name in section.model_fields
        if has_stage(f"cathodeflow.{technique}", name)
    ]


def texts() -> list[tuple[str, str]]:
    """Every text that `--help` and the reference show, with the command and flag that it belongs to."""
    found = [("config/README.md", line) for line in markdown().splitlines()]
    made = [("cathodeflow", cli), *cli.commands.items(), *((name, command(one)) for name, one in stages())]
    for name, one in made:
        found.append((name, one.help or ""))
        found += [(f"{name} {flag.name}", flag.help or "") for flag in one.params if isinstance(flag, click.Option)]
        found += [(f"{name} {argument}", text) for argument, text in getattr(one, "argument_texts", {}).items()]
    return found


def test_every_argument_is_explained_and_no_summary_is_cut() -> None:
    shown = command(import_module("cathodeflow.bragg.stages.fit").fit).get_help(click.Context(cli))
    assert re.search(r"Arguments:\n +FRAMES +Frames file", shown)
    assert [where for where, text in texts() if not text.strip() and not where.startswith("config")] == []
    assert "..." not in cli.get_help(click.Context(cli)).partition("Commands:")[2]


@pytest.mark.parametrize("pattern", BANNED)
def test_no_text_uses_a_banned_word(pattern: str) -> None:
    word = re.compile(rf"\b(?:{pattern})", re.IGNORECASE)
    wrong = [f"{where}: {text}" for where, text in texts() if word.search(ALLOWED.sub("", text))]
    assert not wrong, f"write: {BANNED[pattern]}\n" + "\n".join(wrong)


def test_every_option_and_argument_has_a_text_that_stands_alone() -> None:
    """It begins with a capital letter, a number or code, and ends with a full stop."""
    described = [(name, text) for name, text in texts() if " " in name and not name.startswith("config/")]
    assert len(described) > 400
    wrong = [
        f"{name}: '{text}'" for name, text in described if not re.match(r"[A-Z0-9`(].*\.( +\(.*\))?$", text, re.DOTALL)
    ]
    assert not wrong, "\n".join(wrong)
