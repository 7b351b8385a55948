"""Commands of the stages: arguments and options as flags, one-line errors for bad input, the log."""

import ast
import importlib
import inspect
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import click

from cathodeflow.errors import InputError
from cathodeflow.flags import flag, variable
from cathodeflow.interruption import Interrupted, interrupt_on_signals
from cathodeflow.io.guard import one_line
from cathodeflow.io.run_journal import COMMAND
from cathodeflow.io.runs import join_as_job
from cathodeflow.low_memory import is_out_of_memory, limit_text
from cathodeflow.options import Options, flag_name, from_flags, leaves, renamed
from cathodeflow.progress import SHARED_TERMINAL
from cathodeflow.stage import Stage, file_argument, stage_file, stage_names

log = logging.getLogger("cathodeflow")


class _LogFile(logging.FileHandler):
    """A log file; what cannot be written to it, as the disk is full, goes elsewhere."""

    def __init__(self, path: str, otherwise: logging.Handler | None) -> None:
        super().__init__(path, mode="w", encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self._otherwise = otherwise

    def handleError(self, record: logging.LogRecord) -> None:
        """Pass an error on."""
        if self._otherwise and record.levelno >= self._otherwise.level:
            self._otherwise.handle(record)


class Technique(click.Group):
    """Commands of a technique: one per stage, imported only when it is called."""

    def __init__(self, package: str) -> None:
        self._package = package
        self._section = importlib.import_module(f"{package}.options").Section
        super().__init__(package.rpartition(".")[2], help=importlib.import_module(package).__doc__)

    def list_commands(self, context: click.Context) -> list[str]:
        """List the stages in the order of the section, not alphabetically."""
        return [name.replace("_", "-") for name in stage_names(self._package, self._section.model_fields)]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Import the stage."""
        if name not in self.list_commands(context):
            return None
        stage = name.replace("-", "_")
        return command(getattr(importlib.import_module(f"{self._package}.stages.{stage}"), stage))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the stages with the first line of their docstrings, without importing them."""
        rows = [(name, self._first_line(name.replace("-", "_"))) for name in self.list_commands(context)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _first_line(self, stage: str) -> str:
        tree = ast.parse(stage_file(self._package, stage).read_bytes())
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == stage]
        return (ast.get_docstring(functions[0]) or "").split("\n")[0]


class StageCommand(click.Command):
    """Command that explains its arguments, and recognises the flags of earlier versions."""

    options_class: type[Options]
    argument_texts: dict[str, str]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the arguments before the options; click itself lists options only."""
        if self.argument_texts:
            with formatter.section("Arguments"):
                formatter.write_dl(list(self.argument_texts.items()))
        super().format_options(context, formatter)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Refuse the old name of a flag, and name the new one."""
        try:
            return super().parse_args(context, args)
        except click.NoSuchOption as error:
            old = error.option_name.removeprefix("--").removeprefix("no-").replace("-", "_")
            if now := renamed(self.options_class, (old,)):
                # An option that has moved to another stage begins with that stage.
                stage, new = (now[1].replace("_", "-"), now[2:]) if now[0] == ".." else (None, now)
                flags = " and ".join(map(flag_name, ".".join(new).split(" and ")))
                other = f" of the command {stage}" if stage else ""
                raise click.UsageError(f"{error.option_name} was renamed to {flags}{other}", context) from None
            raise


def command(stage: Stage) -> click.Command:
    """Make the command of a stage from its function's signature, its docstring and its options class.

    Positional parameters are arguments (one or more for a sequence); keyword-only ones are flags, required if they
    have no default. Every stage has `--sample` and `--record`.
    """
    keys = [key for key, _ in leaves(stage.options_class)]

    def run(**arguments: Any) -> None:
        options = from_flags(stage.options_class, {key: arguments.pop(variable(key)) for key in keys})
        positional = [
            arguments.pop(name)
            for name, parameter in stage.arguments.items()
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        ]
        stage(*positional, options=options, **arguments)

    texts = stage.help()
    parameters: list[click.Parameter] = [
        argument(parameter, texts.get(name, "")) for name, parameter in stage.arguments.items()
    ]
    shared = {
        "sample": "Name of the sample in the record. Default: the name of the record's folder.",
        "record": "JSON file to write with the options, the figures of merit, and digests of the outputs.",
    }
    parameters += [
        click.Option([f"--{name}"], metavar="FILE" if name == "record" else "NAME", help=text)
        for name, text in shared.items()
        if name not in stage.arguments
    ]
    parameters += [flag(key, field) for key, field in leaves(stage.options_class)]
    name = stage.name.rpartition(".")[2].replace("_", "-")
    made = StageCommand(name, callback=run, params=parameters, help=stage.summary())
    made.options_class = stage.options_class
    made.argument_texts = {
        name.upper(): texts.get(name, "")
        for name, parameter in stage.arguments.items()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }
    return made


def argument(parameter: inspect.Parameter, text: str) -> click.Parameter:
    """Make the argument or flag of a parameter of a stage's function."""
    annotation = parameter.annotation
    file = file_argument(annotation)
    many = get_origin(annotation) is not None and issubclass(_origin(annotation), Sequence)
    if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
        return click.Argument([parameter.name], nargs=-1 if many else 1, required=True)
    given = {} if parameter.default is inspect.Parameter.empty else {"default": parameter.default}
    names = [flag_name(parameter.name), parameter.name]
    # Of texts whose number is known, such as the three steps of a voxel.
    fixed = next((get_args(arm) for arm in (annotation, *get_args(annotation)) if get_origin(arm) is tuple), ())
    kinds = [arm for arm in (annotation, *get_args(annotation)) if arm in (int, float, bool)]
    if kinds == [bool]:
        names[0] += "/--no-" + names[0][2:]
    return click.Option(
        names,
        required=not given,
        type=kinds[0] if kinds else str,
        metavar=file.metavar if file else None,
        multiple=many,
        nargs=len(fixed) if fixed else 1,
        help=text,
        show_default=given.get("default") not in (None, "", False),
        **given,
    )


def _origin(annotation: Any) -> type:
    origin = get_origin(annotation)
    return origin if isinstance(origin, type) else object


def start(log_file: str | None, threads: int | None) -> None:
    """Set up the log and the number of threads of this process, before large libraries are imported."""
    # If the log cannot be written because the disk is full, the errors of the job must still be shown.
    logging.raiseExceptions = False
    terminal = logging.StreamHandler()
    terminal.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [terminal]
    if log_file:
        os.makedirs(os.path.dirname(log_file) or ".", exist_ok=True)
        terminal.setLevel(logging.ERROR)
        shared = bool(os.environ.get(SHARED_TERMINAL))
        handlers = [_LogFile(log_file, terminal if shared else None), *([] if shared else handlers)]
    logging.basicConfig(level=logging.WARNING, handlers=handlers)
    log.setLevel(logging.INFO)
    if log_file:
        # A line to paste; the terminal shows errors alone.
        log.info("%scathodeflow %s", COMMAND, shlex.join(sys.argv[1:]))
    join_as_job()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(lambda _: bool(log_file))
    if threads:
        for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
            os.environ[f"{library}_NUM_THREADS"] = str(threads)


def main(entry: click.Command) -> None:
    """Run the command line; bad input gives one line and exit status 1, other exceptions a request to report them."""
    interrupt_on_signals()
    try:
        entry.main(standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Interrupted as error:
        # Where there is a log it is the workflow that was stopped, which says so once for all its jobs.
        log.warning("interrupted by %s", error)
        sys.exit(128 + signal.Signals[str(error)])
    except Exception as error:
        if isinstance(error, InputError):
            # The line is sufficient without a traceback, and Snakemake shows the log.
            log.error("%s", error)
        elif is_out_of_memory(error):
            log.error("out of memory: %s%s", one_line(error), limit_text())
        elif isinstance(error, OSError) and error.filename:
            log.error("%s: %s", error.filename, error.strerror)
        else:
            for handler in logging.getLogger().handlers:
                if isinstance(handler, logging.FileHandler):
                    handler.handle(log.makeRecord(log.name, logging.DEBUG, "", 0, "traceback:", (), sys.exc_info()))
            log.error("unexpected %s: %s (a bug in Cathodeflow; please report it)", type(error).__name__, error)
        sys.exit(1)
