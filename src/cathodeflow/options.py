"""Options of a stage: one frozen class is the config section, the command-line flags and the schema."""

import difflib
import functools
import json
import re
import shlex
import types
import typing
from collections.abc import Iterator
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from cathodeflow.errors import InputError, InputErrors, RenamedKeyError
from cathodeflow.file_arguments import file_argument
from cathodeflow.io.sources import expanded


class Options(BaseModel):
    """Base of every options class: frozen, no unknown keys, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: Keys of earlier versions with their present names, such as `{"turn": "augment.rotate90"}`: they are
    #: refused with the new name, as a value that was ignored or meant something else would change results silently.
    #: For a key that became two, give both: `{"symmetries": "augment.rotate90 and augment.flip"}`.
    #: For an option that has moved to another stage, begin with `../`, such as `../figures.isosurface`.
    renamed: ClassVar[dict[str, str]] = {}


OptionsT = TypeVar("OptionsT", bound=Options)


def option(default: Any, description: str, *, unit: str | None = None, **bounds: Any) -> Any:
    """Make a field of an options class: default (`...`: none), one sentence, unit, bounds (`ge`, `gt`, `le`, `lt`)."""
    return Field(default, description=description, json_schema_extra={"unit": unit} if unit else None, **bounds)


# Numbers that YAML 1.1 takes for text, as it asks for a point before the exponent and a sign in it.
_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")
_TRUTH = {"yes": True, "y": True, "true": True, "on": True, "no": False, "n": False, "false": False, "off": False}
# Words of pydantic for what people write.
_WORDS = {
    "an object": "a section: lines of `key: value`, indented, with a space after each colon",
    "a valid boolean": "true or false",
    "a valid string": "text",
}
_UNPARSED = re.compile(r", unable to (?:parse|interpret).*")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")
# Command-line value for None, if the default is not None.
_NONE = "none"


def optional(annotation: Any) -> bool:
    """Return whether a field's annotation allows None."""
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return union and type(None) in typing.get_args(annotation)


def is_tuple(annotation: Any) -> bool:
    """Return whether a field is a tuple, which is written with commas on the command line."""
    arms = typing.get_args(annotation) if optional(annotation) else (annotation,)
    return any(typing.get_origin(arm) is tuple for arm in arms)


def options_class(field: FieldInfo) -> type[Options] | None:
    """Return the class of a group of options, such as `augment` of a training; None for a single option."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Options) else None


def leaves(cls: type[Options], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every single option of a class with its key, `group.key` for those of a group."""
    for name, field in cls.model_fields.items():
        if nested := options_class(field):
            yield from leaves(nested, f"{above}{name}.")
        else:
            yield above + name, field


def value_of(options: Options, key: str) -> Any:
    """Value of a single option by its key, such as `augment.flip`."""
    return functools.reduce(getattr, key.split("."), options)


def with_value(options: OptionsT, key: str, value: Any) -> OptionsT:
    """Return options with another value of a single option."""
    name, _, below = key.partition(".")
    return options.model_copy(update={name: with_value(getattr(options, name), below, value) if below else value})


def flag_name(key: str) -> str:
    """Return the command-line flag of a key: `min_value` is `--min-value`, `augment.flip` is `--augment-flip`."""
    return "--" + key.replace("_", "-").replace(".", "-")


def to_flags(options: Options) -> str:
    """Write every option as one line of shell-quoted flags, in the order of the class.

    All values are included, also defaults, so that the line has everything the job depends on and Snakemake, which
    compares it as one string, detects every change.

    Examples
    --------
    >>> class Fit(Options):
    ...     model: str = "gaussian"
    ...     radius: int = 5
    >>> to_flags(Fit(radius=7))
    '--model gaussian --radius 7'
    """
    words: list[str] = []
    for key, field in leaves(type(options)):
        value = value_of(options, key)
        if isinstance(value, bool):
            words.append(flag_name(key) if value else "--no-" + flag_name(key)[2:])
        elif value is not None:
            text = as_flag(value)
            # With '=' a value that begins with a minus sign is not read as a flag.
            joined = f"{flag_name(key)}={shlex.quote(text)}" if text.startswith("-") else None
            words += [joined] if joined else [flag_name(key), shlex.quote(text)]
        elif field.default is not None:
            words += [flag_name(key), _NONE]
    return " ".join(words)


def as_flag(value: Any) -> str:
    """Write a value as its flag takes it; tuples with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def from_flags(cls: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """Build options from command-line values by key; None means not given, which keeps the default.

    Raises
    ------
    InputError
        Naming the flag, its value and what was expected.
    """
    given: dict[str, Any] = {}
    fields = dict(leaves(cls))
    for key, value in values.items():
        if value is None:
            continue
        *groups, name = key.split(".")
        inner = given
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = _from_text(value, fields[key])
    try:
        return cls.model_validate(given)
    except ValidationError as error:

        def name_of(location: tuple[Any, ...]) -> str:
            key = ".".join(map(str, location))
            return flag_name(next((known for known in fields if key == known or key.startswith(f"{known}.")), key))

        raise as_input_error(error, cls, name_of) from None


def _from_text(value: Any, field: FieldInfo) -> Any:
    annotation = field.annotation
    if value == _NONE and optional(annotation) and field.default is not None:
        return None
    if isinstance(value, str) and is_tuple(annotation):
        return [part.strip() for part in value.split(",") if part.strip()]
    if typing.get_origin(annotation) is typing.Literal:
        # Pydantic accepts a numeric choice only as a number.
        return {str(choice): choice for choice in typing.get_args(annotation)}.get(value, value)
    return value


def from_config(cls: type[OptionsT], section: Any, where: str) -> OptionsT:
    """Build options from a section of a YAML file, without converting text to numbers.

    Except what people write and YAML takes for text: numbers such as `3e-3`, a quoted `'yes'`, and `~` and variables of
    the environment in the names of files.

    Raises
    ------
    InputError
        A line for every wrong key: `where`, the key, the value and what was expected.
    """
    try:
        return cls.model_validate_json(json.dumps(_as_meant(cls, section), default=str), strict=True)
    except ValidationError as error:
        raise as_input_error(error, cls, lambda location: f"{where}: " + ".".join(map(str, location))) from None


def _as_meant(annotation: Any, value: Any) -> Any:
    """Replace text in a section by what was meant, as `from_config` says."""
    if isinstance(value, dict):
        types_below = {key: _type_at(annotation, str(key)) for key in value}
        # A section without a line in it, as when all of them are comments. In a mapping a name alone says something.
        named = typing.get_origin(annotation) is dict
        empty = {key for key, below in value.items() if below is None and not named and _is_group(types_below[key])}
        return {key: _as_meant(types_below[key], below) for key, below in value.items() if key not in empty}
    if isinstance(value, list):
        inner = next((typing.get_args(arm) for arm in (annotation, *typing.get_args(annotation)) if is_tuple(arm)), ())
        return [_as_meant(inner[0] if inner else None, item) for item in value]
    if not isinstance(value, str):
        return value
    types_here = {annotation, *typing.get_args(annotation)}
    if {float, int} & types_here and _EXPONENT.fullmatch(value):
        number = float(value)
        return number if float in types_here else int(number) if number.is_integer() else value
    if bool in types_here:
        return _TRUTH.get(value.strip().casefold(), value)
    return expanded(value) if file_argument(annotation) else value


def _is_group(annotation: Any) -> bool:
    """Whether a field is a group of options that all have defaults, and cannot be left out by None."""
    if not (isinstance(annotation, type) and issubclass(annotation, Options)):
        return False
    return not any(field.is_required() for field in annotation.model_fields.values())


def _type_at(annotation: Any, key: str) -> Any:
    """Return the annotation of a key inside a type: that of a field, or of the values of a mapping."""
    if typing.get_origin(annotation) is dict:
        return typing.get_args(annotation)[1]
    cls = _class_at(annotation, ())
    if cls is None or key not in cls.model_fields:
        return None
    return full_annotation(cls.model_fields[key])


def full_annotation(field: FieldInfo) -> Any:
    """Return the annotation of a field with what an alias such as `InputFile` says of it, which pydantic takes off."""
    return typing.Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def as_tuples(values: Any) -> Any:
    """Convert the lists of a section to tuples, as pydantic expects after a validator that runs before the others.

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
    """Convert each of pydantic's errors to where, found and expected."""
    found: list[InputError] = []
    for problem in error.errors(include_url=False):
        location = tuple(problem["loc"])
        if problem["type"] == "too_short" and found:
            continue  # too short only because the items reported before were dropped
        if problem["type"] == "extra_forbidden" and (now := renamed(cls, location)):
            found.append(RenamedKeyError(name(location), name(now).rpartition(": ")[2]))
        elif problem["type"] == "extra_forbidden":
            known = _fields_at(cls, location[:-1])
            close = difflib.get_close_matches(str(location[-1]), known, 1)
            expected = f"'{close[0]}'" if close else _home(cls, location) or "one of " + ", ".join(known)
            found.append(InputError(name(location), "an unknown key", expected))
        elif problem["type"] == "missing":
            found.append(InputError(name(location), "nothing", "a value"))
        else:
            expected = _expected(problem["msg"], problem["input"])
            found.append(
                InputError(name(location) if location else name(("options",)), _shown(problem["input"]), expected)
            )
    return InputErrors.of(found)


def _home(cls: type[BaseModel], location: tuple[Any, ...]) -> str:
    """Say in which sections of the same level a key belongs that is not indented; empty if in none."""
    sections = {name: at for name in _fields_at(cls, location[:-1]) if (at := _class_at(cls, (*location[:-1], name)))}
    homes = [name for name, at in sections.items() if str(location[-1]) in at.model_fields]
    return f"it indented, in {' or '.join(homes)}" if homes else ""


def _expected(message: str, value: Any) -> str:
    text = _UNPARSED.sub("", message.removeprefix("Input should be ").removeprefix("Value error, "))
    if text == "a valid number" and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        return f"a point before the decimals: {value.strip().replace(',', '.')}"
    quoted = ", in quotes" if text == "a valid string" and isinstance(value, bool | int | float) else ""
    return _WORDS.get(text, text) + quoted


def _shown(value: Any) -> str:
    """Write a value as an error shows it: without the password of an address."""
    return re.sub(r"(//)[^\s'\"]*@|([?&]\w+=)[^\s'\"&]+", lambda found: f"{found[1] or found[2]}...", repr(value))


def renamed(cls: type[BaseModel], location: tuple[Any, ...]) -> tuple[str, ...] | None:
    """Return the present location of an option, if the key at `location` is its old name."""
    *above, key = map(str, location)
    at = _class_at(cls, tuple(above))
    now = at.renamed.get(key) if at is not None and issubclass(at, Options) else None
    if now and now.startswith("../"):
        return (*(above[:-1] or [".."]), *now[3:].split("."))
    return (*above, *now.split(".")) if now else None


def _fields_at(cls: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    at = _class_at(cls, location)
    return list(at.model_fields) if at else []


def _class_at(annotation: Any, location: tuple[Any, ...]) -> type[BaseModel] | None:
    """Return the class of the options at a location inside a type, such as a section; None for anything else."""
    if typing.get_origin(annotation) is dict and location:
        # A mapping of names to options, such as `networks`, has any key.
        return _class_at(typing.get_args(annotation)[1], location[1:])
    arms = (annotation, *typing.get_args(annotation))
    cls = next((arm for arm in arms if isinstance(arm, type) and issubclass(arm, BaseModel)), None)
    if cls is None or not location:
        return cls
    field = cls.model_fields.get(str(location[0]))
    return _class_at(field.annotation, location[1:]) if field else None
