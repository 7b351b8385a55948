"""Help texts and the reference use the words of the field, as readers stumble over others."""

import re

import pytest

from cathodeflow.cli import cli
from cathodeflow.commands import command
from cathodeflow.config import config_class, techniques
from cathodeflow.reference import markdown
from cathodeflow.stage import has_stage

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
ALLOWED = re.compile(r"`[^`]*`|at least|least squares|least-squares|(?:absolute|median absolute) deviation")


def texts() -> list[tuple[str, str]]:
    """Every text that `--help` shows, with the command and flag that it belongs to."""
    found = [("reference", line) for line in markdown().splitlines()]
    found += [(name, one.help or "") for name, one in cli.commands.items()]
    found += [(f"cathodeflow {one.name}", getattr(one, "help", None) or "") for one in cli.params]
    for one in cli.commands.values():
        found += [(f"{one.name} {parameter.name}", getattr(parameter, "help", None) or "") for parameter in one.params]
    for technique, section in techniques().items():
        package = f"cathodeflow.{technique}"
        for name in section.model_fields:
            if has_stage(package, name):
                module = __import__(f"{package}.stages.{name}", fromlist=[name])
                made = command(getattr(module, name))
                found.append((f"{technique} {name}", made.help or ""))
                found += [(f"{technique} {name} {one.name}", getattr(one, "help", None) or "") for one in made.params]
    return found


@pytest.mark.parametrize("pattern", BANNED)
def test_no_text_uses_a_banned_word(pattern: str) -> None:
    word = re.compile(rf"\b(?:{pattern})", re.IGNORECASE)
    wrong = [f"{where}: {text}" for where, text in texts() if word.search(ALLOWED.sub("", text))]
    assert not wrong, f"write: {BANNED[pattern]}\n" + "\n".join(wrong)


def test_every_option_and_argument_is_a_full_phrase() -> None:
    """A capital letter at the beginning, a full stop at the end; no text is missing."""
    wrong = [
        f"{where}: '{text}'"
        for where, text in texts()
        if where.count(" ") == 2
        and "option_" not in where
        and not re.match(r"^[A-Z`0-9(].*[.:]\)?$", text.replace("\n", " "))
        and where.rsplit(" ", 1)[1] not in ("help",)
        and _is_flag(where)
    ]
    for where, section in [("settings", config_class()), *techniques().items()]:
        for name, field in section.model_fields.items():
            if not re.match(r"^[A-Z`0-9(].*\.$", (field.description or "").replace("\n", " ")):
                wrong.append(f"{where}.{name}: '{field.description}'")
    assert not wrong, "\n".join(wrong)


def _is_flag(where: str) -> bool:
    technique, stage, name = where.split(" ")
    if technique not in techniques() or not has_stage(f"cathodeflow.{technique}", stage):
        return False
    module = __import__(f"cathodeflow.{technique}.stages.{stage}", fromlist=[stage])
    made = command(getattr(module, stage))
    return any(one.name == name and hasattr(one, "help") for one in made.params)
