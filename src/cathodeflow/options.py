"""Options of a stage: one frozen class is the config section, the command-line flags and the schema."""

import difflib
import json
import shlex
import types
import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cathodeflow.errors import InputError, InputErrors


class Options(BaseModel):
    """Base of every options class: frozen, no unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


OptionsT = TypeVar("OptionsT", bound=Options)


def option(default: Any, description: str, *, unit: str | None = None, **bounds: Any) -> Any:
    """Field of an options class: default (`...` for none), one sentence, unit, and bounds (`ge`, `gt`, `le`, `lt`)."""
    return Field(default, description=description, json_schema_extra={"unit": unit} if unit else None, **bounds)


# How the command line says that an optional value is not given, where the default is a value.
_NONE = "none"


def optional(annotation: Any) -> bool:
    """Whether a field's annotation admits None."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return union and type(None) in typing.get_args(annotation)


def is_tuple(annotation: Any) -> bool:
    """Whether a field holds a tuple, written with commas on the command line."""
    arms = typing.get_args(annotation) if optional(annotation) else (annotation,)
    return any(typing.get_origin(arm) is tuple for arm in arms)


def flag_name(field: str) -> str:
    """Command-line flag of a field: `min_value` is `--min-value`."""
    return "--" + field.replace("_", "-")


def to_flags(options: Options) -> str:
    """Every option as one line of shell-quoted flags, in the order of the class.

    All values stand there, defaults too, so that the line says everything the job depends on and Snakemake, which
    compares it as one string, sees every change.

    Examples
    --------
    >>> class Fit(Options):
    ...     model: str = "gaussian"
    ...     radius: int = 5
    >>> to_flags(Fit(radius=7))
    '--model gaussian --radius 7'
    """
    words: list[str] = []
    for name, value in options:
        if isinstance(value, bool):
            words.append(flag_name(name) if value else "--no-" + flag_name(name)[2:])
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            # With '=' a value that begins with a minus sign is not taken for a flag.
            joined = f"{flag_name(name)}={shlex.quote(text)}" if text.startswith("-") else None
            words += [joined] if joined else [flag_name(name), shlex.quote(text)]
        elif type(options).model_fields[name].default is not None:
            words += [flag_name(name), _NONE]
    return " ".join(words)


def from_flags(cls: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """Build options from command-line values; what is None was not given and keeps its default.

    Raises
    ------
    InputError
        Naming the flag, its value and what was expected.
    """
    given = {name: value for name, value in values.items() if value is not None}
    for name, value in given.items():
        annotation = cls.model_fields[name].annotation
        if value == _NONE and optional(annotation) and cls.model_fields[name].default is not None:
            given[name] = None
        elif isinstance(value, str) and is_tuple(annotation):
            given[name] = [part for part in value.split(",") if part]
        elif typing.get_origin(annotation) is typing.Literal:
            # Pydantic takes a choice that is a number for one only as a number.
            choices = {str(choice): choice for choice in typing.get_args(annotation)}
            given[name] = choices.get(value, value)
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        raise as_input_error(error, cls, lambda location: flag_name(str(location[0]))) from None


def from_config(cls: type[OptionsT], section: Any, where: str) -> OptionsT:
    """Build options from a section of a YAML file, without converting text to numbers.

    Raises
    ------
    InputError
        A line for every wrong key: `where`, the key, the value and what was expected.
    """
    try:
        return cls.model_validate_json(json.dumps(section, default=str), strict=True)
    except ValidationError as error:
        raise as_input_error(error, cls, lambda location: f"{where}: " + ".".join(map(str, location))) from None


def as_tuples(values: Any) -> Any:
    """Turn the lists of a section into tuples: what a validator that runs before the others hands on is no JSON.

    Examples
    --------
    >>> as_tuples({"widths": [8, 16], "deep": {"sides": [1]}})
    {'widths': (8, 16), 'deep': {'sides': (1,)}}
    """
    if isinstance(values, dict):
        return {key: as_tuples(value) for key, value in values.items()}
    return tuple(as_tuples(value) for value in values) if isinstance(values, list) else values


def as_input_error(
    error: ValidationError, cls: type[BaseModel], name: typing.Callable[[tuple[Any, ...]], str]
) -> InputError:
    """Say each of pydantic's complaints as where, found, expected."""
    found: list[InputError] = []
    for problem in error.errors(include_url=False):
        location = tuple(problem["loc"])
        if problem["type"] == "too_short" and found:
            continue  # what is too short is what was left after the items said before
        if problem["type"] == "extra_forbidden":
            known = _fields_at(cls, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), known, 1)
            expected = f"'{close[0]}'" if close else "one of " + ", ".join(known)
            found.append(InputError(name(location), "an unknown key", expected))
        elif problem["type"] == "missing":
            found.append(InputError(name(location), "nothing", "a value"))
        else:
            expected = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            found.append(
                InputError(name(location) if location else name(("options",)), repr(problem["input"]), expected)
            )
    return InputErrors.of(found)


def _fields_at(cls: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for key in location:
        field = cls.model_fields.get(str(key))
        arms = (field.annotation, *typing.get_args(field.annotation)) if field else ()
        classes = [arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)]
        if not classes:
            return []
        cls = classes[0]
    return list(cls.model_fields)
