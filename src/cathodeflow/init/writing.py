"""The written configuration and sample sheets, which never replace a file."""

import importlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.init.files import Contents, look
from cathodeflow.init.proposal import Proposal, quoted
from cathodeflow.init.technique import Guess, guess
from cathodeflow.io.text import write_new

_LISTED = 8


class Written(NamedTuple):
    """A written configuration: its path, those of all files, and lines for the person who called."""

    config: str
    files: list[str]
    lines: list[str]


def initialise(folder: str, out: str, technique: str | None) -> Written:
    """Look at raw data, and write a configuration and a sample sheet per technique.

    Parameters
    ----------
    folder : str
        Raw data.
    out : str
        Folder to write `config.yaml` and `TECHNIQUE.tsv` into.
    technique : str, optional
        The technique of all images. Default: it is guessed for each.

    Raises
    ------
    InputError
        There is no raw data, or a file exists already; nothing is written then.
    """
    contents = look(os.path.abspath(folder))
    found = guess(contents)
    if technique is not None:
        groups = [group for guessed in found.values() for group in guessed.groups]
        found = {technique: Guess(groups, [f"--technique {technique}"])} if groups else {}
    if not found:
        raise InputError(folder, _nothing(contents), "detector frames, micrographs or slices in a format that is read")
    # Techniques are not imported, but found by their names, as those that others add.
    modules = {name: importlib.import_module(f"cathodeflow.{name}.own_data") for name in sorted(found)}
    proposals = [
        module.propose(found[name].groups, contents, ", ".join(found[name].why)) for name, module in modules.items()
    ]
    config = os.path.join(out, "config.yaml")
    sheets = {proposal.technique: os.path.join(out, f"{proposal.technique}.tsv") for proposal in proposals}
    if there := [path for path in (config, *sheets.values()) if os.path.lexists(path)]:
        raise InputErrors.of(
            [
                InputError(path, "a file", "none, as init replaces no file: choose another folder with --out")
                for path in there
            ]
        )
    os.makedirs(out, exist_ok=True)
    for proposal in proposals:
        write_new(sheets[proposal.technique], sheet_text(proposal))
    write_new(config, config_text(folder, proposals, sheets))
    return Written(
        config, [config, *sheets.values()], [*_lines(folder, proposals, contents, guessed=technique is None)]
    )


def sheet_text(proposal: Proposal) -> str:
    """Write a sample sheet, with what is to be filled in as comments above."""
    comments = ["# Written by `cathodeflow init`. Columns are separated by tabs; empty cells mean the default."]
    rows = ["\t".join(row.get(name, "") for name in proposal.columns) for row in proposal.rows]
    return "\n".join([*comments, "\t".join(proposal.columns), *rows, ""])


def config_text(folder: str, proposals: Sequence[Proposal], sheets: dict[str, str]) -> str:
    """Write the configuration file: a section per technique, with comments on what was found and what is missing."""
    lines = [
        f"# Written by `cathodeflow init` for {folder}.",
        "# config/README.md explains every key; missing keys take their default.",
        "# CONFIG is this file, and CLONE the folder of Cathodeflow:",
        "#     cathodeflow check CONFIG",
        "#     snakemake -s CLONE/Snakefile --cores all --configfile CONFIG",
        "seed: 0",
    ]
    for proposal in proposals:
        name = proposal.technique
        lines += ["", f"# Guessed from: {proposal.why}.", *(f"# Found: {text}" for text in proposal.found[:_LISTED])]
        lines += [f"# Not in the files: {text}" for text in proposal.unknown]
        lines += [f"{name}:", f"  samples: {quoted(sheets[name])}", *(f"  {line}" for line in _with_values(proposal))]
    return "\n".join([*lines, ""])


def _with_values(proposal: Proposal) -> list[str]:
    """Return the lines of a section; a group of options without any value is left out, as YAML reads it as nothing."""
    lines = proposal.options
    kept = []
    for number, line in enumerate(lines):
        below = [other for other in lines[number + 1 :] if other.strip() and not other.strip().startswith("#")]
        empty = line.endswith(":") and not line.startswith((" ", "#")) and not (below and below[0].startswith(" "))
        kept.append(f"# {line}" if empty else line)
    return kept


def _lines(folder: str, proposals: Sequence[Proposal], contents: Contents, *, guessed: bool) -> list[str]:
    lines = []
    for proposal in proposals:
        lines.append(f"{folder}: {proposal.technique} ({proposal.why})")
        lines += [f"  {text}" for text in proposal.found]
        lines += [f"  not in the files: {text}" for text in proposal.unknown]
    if guessed and len(proposals) == 1:
        lines.append(f"If it is not {proposals[0].technique}: call init again with --technique")
    for path, reason in contents.unused[:_LISTED]:
        lines.append(f"not used: {path}: {reason}")
    if (more := len(contents.unused) - _LISTED) > 0:
        lines.append(f"not used: {more} more files")
    return lines


def _nothing(contents: Contents) -> str:
    """Say what a folder without raw data holds."""
    named = [f"{os.path.basename(path)}: {reason}" for path, reason in contents.unused[:_LISTED]]
    return "no raw data" + f" ({'; '.join(named)})" * bool(named)
