"""How a stage becomes a command: flags from its options class, one line for bad input, a log."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from cathodeflow.errors import InputError
from cathodeflow.io.runs import join_as_job
from cathodeflow.options import Options, flag_name, from_flags, is_tuple, optional

log = logging.getLogger("cathodeflow")
T = TypeVar("T")


class Stages(click.Group):
    """Commands in the order of the stages, not of the alphabet."""

    section: type[Options]

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands."""
        order = [name.replace("_", "-") for name in self.section.model_fields]
        return sorted(super().list_commands(context), key=order.index)


def stage_command(group: click.Group, options: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function as a command of `group`, with a flag for every option.

    The function gets its arguments from the decorators below this one, and the options as `options`. The command's
    name is the function's with dashes. The function itself is returned unchanged.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in options.model_fields}
            function(options=from_flags(options, values), **arguments)

        parameters = list(reversed(getattr(function, "__click_params__", [])))
        parameters += [flag(name, field) for name, field in options.model_fields.items()]
        summary = (function.__doc__ or "").strip()
        group.add_command(
            click.Command(function.__name__.replace("_", "-"), callback=run, params=parameters, help=summary)
        )
        return function

    return decorate


def flag(name: str, field: FieldInfo) -> click.Option:
    """Command-line flag of one field of an options class."""
    names = [flag_name(name), name]
    if field.annotation is bool:
        names[0] += "/--no-" + names[0][2:]
    return click.Option(
        names,
        default=None,
        help=describe(field),
        metavar=None if field.annotation is bool else _metavar(kind(field)),
    )


def _metavar(text: str) -> str:
    return f"[{text}]" if "|" in text else text.upper()


def kind(field: FieldInfo) -> str:
    """Type of a field in words: `integer`, `number`, `text`, `yes or no`, or the choices."""
    arms = [arm for arm in get_args(field.annotation) if arm is not type(None)] if optional(field.annotation) else None
    annotation = arms[0] if arms else field.annotation
    if get_origin(annotation) is dict:
        return "mapping"
    if is_tuple(annotation):
        item = get_args(annotation)[0]
        item = getattr(item, "__origin__", item)
        return {int: "integers", float: "numbers"}.get(item, "texts")
    if choices := get_args(annotation):
        return "|".join(map(str, choices))
    names: dict[Any, str] = {int: "integer", float: "number", bool: "yes or no"}
    return names.get(annotation, "text")


def bounds(field: FieldInfo) -> str:
    """Bounds of a field, such as `>= 0, < 1`."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(item, key)}" for item in field.metadata for key, sign in signs.items() if hasattr(item, key)
    ]
    return ", ".join(found)


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


def describe(field: FieldInfo) -> str:
    """Sentence, unit, bounds and default of a field, for the help text."""
    known = "" if field.default is None else f"default: {default(field)}"
    facts = [unit(field) and f"[{unit(field)}]", bounds(field), known]
    text = "; ".join(fact for fact in facts if fact)
    return f"{field.description}  ({text})" if text else str(field.description)


def start(log_file: str | None, threads: int | None) -> None:
    """Set up the log and the number of threads of this process, before anything heavy is imported."""
    # A log that cannot be written, on a full disk, must not hide what the job has to say.
    logging.raiseExceptions = False
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    handlers[0].setFormatter(logging.Formatter("%(message)s"))
    if log_file:
        os.makedirs(os.path.dirname(log_file) or ".", exist_ok=True)
        handlers[0].setLevel(logging.ERROR)
        handlers.append(logging.FileHandler(log_file, mode="w", encoding="utf-8"))
        handlers[1].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    log.setLevel(logging.INFO)
    join_as_job()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(lambda _: bool(log_file))
    if threads:
        for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            os.environ[f"{library}_NUM_THREADS"] = str(threads)


def thread_count() -> int:
    """Threads that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))


def progress(items: Iterable[T], label: str, *, total: int | None = None) -> Iterable[T]:
    """Pass items on, showing a bar on a terminal and a plain line in the log now and then elsewhere."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > 30:
            last = time.monotonic()
            log.info("%s: %d%s", label, count, f" of {total}" if total else "")


def run(command: click.Command) -> None:
    """Run the command line; bad input is one line and exit status 1, anything unforeseen says that it is our fault."""
    try:
        command.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        log.error("interrupted")
        sys.exit(130)
    except Exception as error:
        if isinstance(error, InputError):
            # Nothing to look for in the code: the line says it all, and Snakemake shows the log.
            log.error("%s", error)
        elif isinstance(error, OSError) and error.filename:
            log.error("%s: %s", error.filename, error.strerror)
        elif isinstance(error, MemoryError):
            log.error("out of memory: %s", error)
        else:
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.handle(log.makeRecord(log.name, logging.DEBUG, "", 0, "traceback:", (), sys.exc_info()))
            log.error("unexpected %s: %s (a fault of cathodeflow: please report it)", type(error).__name__, error)
        sys.exit(1)
