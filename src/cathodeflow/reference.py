"""The reference of all settings, generated from the options classes."""

import inspect

from pydantic.fields import FieldInfo

from cathodeflow.config import Settings, config_class, techniques
from cathodeflow.flags import bounds, default, kind, unit
from cathodeflow.options import Options

HEAD = """# Settings

This file is generated from the options classes by `make reference`; a test checks that it is up to date.

A configuration is one YAML file with the settings of the workflow and one section per technique to run. Missing keys
have their default. `cathodeflow check FILE` checks a file with its sample sheets, as does every run before its first
job. `cathodeflow schema` prints the JSON schema, for editors that complete and check YAML files.

A sample sheet is a table with a header line and one row per sample: text with tabs, commas or semicolons between the
cells, or the first sheet of an Excel workbook (.xlsx). Lines that begin with `#` are comments; an empty cell takes the
default. Further columns are kept in the records of the sample and as tags in MLflow. Paths are relative to the working
folder of the workflow; `~` and variables such as `$DATA` are expanded, also in the configuration.
"""


def markdown() -> str:
    """Write all settings as Markdown: a table for the workflow, then sample sheet and stages of each technique."""
    parts = [HEAD, "## Workflow\n", _table("", config_class(), tuple(Settings.model_fields))]
    for name, section in techniques().items():
        parts += [f"## `{name}`\n", f"{inspect.cleandoc(section.__doc__ or '')}\n", "### Sample sheet\n"]
        parts.append(_table("", section.sample_class, head="column"))
        own = [key for key, field in section.model_fields.items() if not _options_class(field)]
        parts += ["### Settings of the technique\n", _table(f"{name}.", section, tuple(own))]
        for key, field in section.model_fields.items():
            if stage := _options_class(field):
                parts += [f"### `{name}.{key}`\n", f"{inspect.cleandoc(stage.__doc__ or '')}\n", _table("", stage)]
    return "\n".join(parts)


def _table(prefix: str, cls: type[Options], names: tuple[str, ...] = (), *, head: str = "key") -> str:
    rows = [f"| {head} | type | unit | bounds | default | meaning |", "|---|---|---|---|---|---|"]
    for name, field in cls.model_fields.items():
        if names and name not in names:
            continue
        if nested := _options_class(field):
            rows += _table(f"{prefix}{name}.", nested).splitlines()[2:]
            continue
        cells = [
            f"`{prefix}{name}`",
            kind(field).replace("|", ", "),
            unit(field),
            bounds(field),
            "required" if field.is_required() else default(field),
            field.description or "",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _options_class(field: FieldInfo) -> type[Options] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None
