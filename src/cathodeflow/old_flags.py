"""Flags and arguments that the commands of several techniques share."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def sample_flag(text: str, default: str | None = None) -> Decorator:
    """Add the flag that names what the job is for."""
    return click.option("--sample", default=default, required=default is None, help=text)


def record_flag(required: bool = True) -> Decorator:
    """Add the flag of the record."""
    text = "JSON file for options and figures of merit."
    return click.option("--record", required=required, metavar="FILE", help=text)


def live_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Add the flags of a tracking server that shows curves while a training goes on."""
    live = click.option(
        "--live",
        metavar="URI",
        envvar="CATHODEFLOW_LIVE",
        help="MLflow server that gets the curves while the training goes on.",
    )
    experiment = click.option(
        "--experiment", default="cathodeflow", envvar="CATHODEFLOW_EXPERIMENT", help="MLflow experiment for --live."
    )
    decorated: Any = live(experiment(function))
    return decorated


def compute_device(device: str | None) -> str:
    """Name torch's device for the option `device`.

    Raises
    ------
    InputError
        `cuda` without a GPU that torch can use.
    """
    from cathodeflow.learning import resolve_device

    return resolve_device(device or "auto").type
