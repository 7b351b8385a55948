"""A stage of the workflow: one function, for notebooks and as a command of a rule."""

import functools
import importlib
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

from cathodeflow.errors import InputError
from cathodeflow.file_arguments import (
    FileArgument,
    InputFile,
    InputFolder,
    InputStore,
    OutputFile,
    OutputFolder,
    OutputStore,
    Source,
    file_argument,
)
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.sources import shown, undecodable
from cathodeflow.options import Options, leaves, value_of
from cathodeflow.stage_warnings import logged_warnings, warn_if_empty

__all__ = [
    "FileArgument", "InputFile", "InputFolder", "InputStore", "Metrics", "OutputFile", "OutputFolder", "OutputStore",
    "Source", "Stage", "exported", "file_argument", "has_stage", "parameter_texts", "stage", "stage_file",
    "stage_names", "technique_names", "with_own_data",
]  # fmt: skip


class Metrics(dict[str, Any]):
    """Figures of merit of a stage by name; None if one could not be computed.

    Parameters
    ----------
    values : mapping
    history : iterable of mapping
        For trainings: one row per epoch, with the key `epoch`.
    figures : iterable of str
        For stages that draw: the image files.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        history: Iterable[Mapping[str, Any]] = (),
        figures: Iterable[str] = (),
    ) -> None:
        super().__init__(values)
        self.history = [dict(row) for row in history]
        self.figures = list(figures)


class Stage:
    """A stage: called like its function, with `sample` and `record` as further keywords.

    Parameters
    ----------
    function : callable
        Positional arguments are inputs; keyword-only ones are outputs, further settings, and `options`, whose
        annotation is the options class. Its numpy docstring has the help text of every argument.
    name : str
        Such as `bragg.fit`.
    """

    def __init__(self, function: Callable[..., Metrics], name: str) -> None:
        self.function, self.name = function, name
        functools.update_wrapper(self, function)
        hints = get_type_hints(function, include_extras=True)
        self.options_class: type[Options] = hints["options"]
        #: Parameters of the function except `options`.
        self.arguments = {
            name: parameter.replace(annotation=hints[name])
            for name, parameter in inspect.signature(function).parameters.items()
            if name != "options"
        }
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=str | None)
            for name in ("sample", "record")
            if name not in self.arguments
        ]
        options = inspect.Parameter(
            "options", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=self.options_class
        )
        self.__signature__ = inspect.Signature([*self.arguments.values(), options, *more], return_annotation=Metrics)

    def __call__(
        self,
        *arguments: Any,
        options: Options | None = None,
        sample: str | None = None,
        record: str | os.PathLike[str] | None = None,
        **keywords: Any,
    ) -> Metrics:
        """Run the stage, and write its record if `record` names a file.

        Parameters
        ----------
        arguments, keywords
            Those of the function; paths may be `pathlib.Path`.
        options : Options, optional
            Default: those of the options class.
        sample : str, optional
            Name of the sample in the record. Default: the name of the record's folder.
        record : path, optional
            JSON file for options, figures of merit, and digests of inputs and outputs.

        Raises
        ------
        InputError
            An input cannot be used: one line each.
        """
        given = self.options_class() if options is None else options
        name = sample or (Path(record).absolute().parent.name if record else "sample")
        if "sample" in self.arguments:
            keywords["sample"] = name
        bound = inspect.signature(self.function).bind(*arguments, options=given, **keywords)
        for argument, value in bound.arguments.items():
            if argument in self.arguments and file_argument(self.arguments[argument].annotation):
                bound.arguments[argument] = _as_text(value)
        self._check_outputs(bound.arguments, given, record)
        with logged_warnings() as warnings:
            if record is None:
                metrics = self.function(*bound.args, **bound.kwargs)
                warn_if_empty(self.name, metrics, warnings)
                return metrics
            # Slow to import, which would delay `--help`.
            from cathodeflow.record import begin, write_record

            # A notebook runs many stages in one process; the record is only for this one and the stages that it calls.
            before = dict(WRITTEN)
            WRITTEN.clear()
            begun = begin()
            try:
                metrics = self.function(*bound.args, **bound.kwargs)
                warn_if_empty(self.name, metrics, warnings)
                write_record(
                    os.fspath(record),
                    stage=self.name,
                    sample=name,
                    options=given,
                    metrics=metrics,
                    history=metrics.history,
                    figures=metrics.figures,
                    inputs=self._files(bound.arguments, given, output=False),
                    begun=begun,
                    warnings=warnings,
                )
            finally:
                WRITTEN.update(before)
        return metrics

    def _files(
        self, arguments: Mapping[str, Any], options: Options, *, output: bool, kinds: Iterable[str] = ()
    ) -> list[str]:
        """List the files that are read, or written: those of the arguments, and those that options name."""
        given = [(arguments[name], item.annotation) for name, item in self.arguments.items() if name in arguments]
        given += [(value_of(options, key), field.annotation) for key, field in leaves(type(options))]
        files = [(value, file) for value, annotation in given if (file := file_argument(annotation))]
        named = [value for value, file in files if file.output == output and (not kinds or file.metavar in kinds)]
        flat = [path for value in named for path in (value if isinstance(value, list | tuple) else [value])]
        return [path for path in flat if path]

    def _check_outputs(
        self, arguments: Mapping[str, Any], options: Options, record: str | os.PathLike[str] | None
    ) -> None:
        """Refuse outputs that would replace anything but files and stores, before hours are spent on them."""
        from cathodeflow.io.manifests import is_own_store  # imports more than `--help` has time for
        from cathodeflow.io.stage_outputs import require_outputs

        files, stores, folders = (
            self._files(arguments, options, output=True, kinds=[kind]) for kind in ("FILE", "STORE", "FOLDER")
        )
        files += [os.fspath(record)] if record else []
        # Results are often written into a folder that others of them are read from.
        read = self._files(arguments, options, output=False, kinds=("FILE", "STORE", "SOURCE"))
        require_outputs(files=files, stores=stores, folders=folders, inputs=read, is_ours=is_own_store)

    def summary(self) -> str:
        """Return the first paragraphs of the docstring, without its sections."""
        return re.split(r"\n\w+\n-{3,}", inspect.getdoc(self.function) or "")[0].strip()

    def help(self) -> dict[str, str]:
        """Return the text of every argument, from the section `Parameters` of the docstring."""
        return parameter_texts(inspect.getdoc(self.function) or "")


def stage(name: str) -> Callable[[Callable[..., Metrics]], Stage]:
    """Decorate a function to make it the stage `name`, such as `bragg.fit`."""
    return lambda function: Stage(function, name)


def parameter_texts(docstring: str) -> dict[str, str]:
    r"""Return the texts of the section `Parameters` of a numpy docstring, by name.

    Examples
    --------
    >>> parameter_texts("Fit.\n\nParameters\n----------\na, b : path\n    Two\n    files.\n")
    {'a': 'Two files.', 'b': 'Two files.'}
    """
    section = re.search(r"^Parameters\n-{3,}\n(.*?)(?=^\w+\n-{3,}|\Z)", docstring, re.DOTALL | re.MULTILINE)
    texts: dict[str, str] = {}
    for names, text in re.findall(
        r"^(\S.*?)(?: :.*)?\n((?:[ \t]+.*\n?|\n(?=[ \t]))+)", section[1] if section else "", re.MULTILINE
    ):
        texts |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return texts


def exported(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a technique's package: its stages and options classes, imported when used.

    The stage `fit` is the function of that name in the package's module `stages.fit`.

    Examples
    --------
    >>> from cathodeflow import bragg
    >>> bragg.fit.name, bragg.Fit().max_iterations
    ('bragg.fit', 100)
    """

    def names() -> list[str]:
        section = importlib.import_module(f"{package}.options").Section
        classes = [
            section.model_fields[name].annotation.__name__ for name in section.model_fields if has_stage(package, name)
        ]
        return stage_names(package, section.model_fields) + classes

    def get(name: str) -> Any:
        if has_stage(package, name):
            return getattr(importlib.import_module(f"{package}.stages.{name}"), name)
        # Groups of options have classes that the section does not name.
        files = sorted(
            stage_file(package, "").parent.parent.glob("*options.py"), key=lambda file: file.stem != "options"
        )
        for file in files if name[:1].isupper() else ():
            module = importlib.import_module(f"{package}.{file.stem}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'")

    return get, names


def has_stage(package: str, name: str) -> bool:
    """Return whether a technique's package has a stage of this name, without importing it."""
    return name.isidentifier() and stage_file(package, name).is_file()


def stage_names(package: str, fields: Iterable[str]) -> list[str]:
    """Return the names of a technique's stages: first the fields of its section, then others, which have no rule."""
    first = [name for name in fields if has_stage(package, name)]
    files = sorted(path.stem for path in stage_file(package, "").parent.glob("[!_]*.py"))
    return first + [name for name in files if name not in first]


def stage_file(package: str, name: str) -> Path:
    """Source file of a technique's stage."""
    return Path(__file__).parent.joinpath(*package.split(".")[1:], "stages", f"{name}.py")


def technique_names() -> list[str]:
    """Names of the techniques: the packages with a module `options`; nothing is imported."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/options.py"))


def with_own_data() -> list[str]:
    """Names of the techniques for which `cathodeflow init` writes a configuration: those with a module `own_data`."""
    return [name for name in technique_names() if Path(__file__).with_name(name).joinpath("own_data.py").is_file()]


def _as_text(value: Any) -> Any:
    """Paths as texts, which can be written into records."""
    if isinstance(value, list | tuple):
        return [_as_text(item) for item in value]
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(text, str) and undecodable(text):
        raise InputError(shown(text), "a name that is not in UTF-8", "a name in UTF-8; rename it")
    return text
