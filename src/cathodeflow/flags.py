"""Flags and help texts of options, from the fields of options classes."""

from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from cathodeflow.options import as_flag, flag_name, is_tuple, optional


def flag(key: str, field: FieldInfo) -> click.Option:
    """Make the command-line flag of an option, by its key."""
    names = [flag_name(key), variable(key)]
    if field.annotation is bool:
        names[0] += "/--no-" + names[0][2:]
    return click.Option(
        names,
        default=None,
        help=describe(field),
        metavar=None if field.annotation is bool else _metavar(kind(field)),
    )


def variable(key: str) -> str:
    """Return the parameter name of an option in a command; it differs from the arguments of the stage's function.

    Examples
    --------
    >>> variable("augment.flip")
    'option_augment__flip'
    """
    return "option_" + key.replace(".", "__")


def _metavar(text: str) -> str:
    return f"[{text}]" if "|" in text else text.upper()


def kind(field: FieldInfo) -> str:
    """Type of a field in words: `integer`, `number`, `text`, `yes or no`, or the choices."""
    arms = [arm for arm in get_args(field.annotation) if arm is not type(None)] if optional(field.annotation) else None
    annotation = arms[0] if arms else field.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is dict:
        return "mapping"
    if is_tuple(annotation):
        item = get_args(annotation)[0]
        if choices := _choices(field):
            item = type(choices[0])
        return {int: "integers", float: "numbers"}.get(getattr(item, "__origin__", item), "texts")
    if choices := get_args(annotation):
        return "|".join(map(str, choices))
    names: dict[Any, str] = {int: "integer", float: "number", bool: "yes or no"}
    return names.get(annotation, "text")


def bounds(field: FieldInfo) -> str:
    """Bounds of a field, such as `>= 0, < 1`, or the choices for each value of a list."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(item, key)}" for item in field.metadata for key, sign in signs.items() if hasattr(item, key)
    ]
    if choices := _choices(field):
        found.append("any of " + ", ".join(map(str, choices)))
    return ", ".join(found)


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    """Return the choices for each value of a field with several values, such as (1, 2, 4)."""
    for arm in (field.annotation, *get_args(field.annotation)):
        if get_origin(arm) is tuple and get_origin(item := get_args(arm)[0]) is Literal:
            return get_args(item)
    return ()


def unit(field: FieldInfo) -> str:
    """Give the unit of a field, or an empty text."""
    extra = field.json_schema_extra
    return str(extra["unit"]) if isinstance(extra, dict) else ""


def default(field: FieldInfo) -> str:
    """Default of a field as it is written in YAML."""
    value = field.default
    if isinstance(value, tuple):
        return "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _default_flag(field: FieldInfo) -> str:
    return as_flag(field.default) if isinstance(field.default, tuple) else default(field)


def describe(field: FieldInfo) -> str:
    """Sentence, unit, bounds and default of a field, for the help text."""
    known = "" if field.default is None or field.is_required() else f"default: {_default_flag(field)}"
    facts = [unit(field) and f"[{unit(field)}]", bounds(field), known]
    text = "; ".join(fact for fact in facts if fact)
    return f"{field.description}  ({text})" if text else str(field.description)
