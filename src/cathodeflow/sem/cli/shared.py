"""What the SEM commands share: their group and flags."""

from collections.abc import Callable

import click

from cathodeflow.commands import Stages
from cathodeflow.sem.options import Section


@click.group(name="sem", cls=Stages)
def group() -> None:
    """Composition and state of cathodes, told from SEM micrographs."""


group.section = Section


def sample_flag(default: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the flag that names what the job is for."""
    return click.option("--sample", default=default, required=default is None, help="Name of the data set or network.")


def record_flag(required: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the flag of the record."""
    text = "JSON file for options and figures of merit."
    return click.option("--record", required=required, metavar="FILE", help=text)


def compute_device(device: str | None) -> str:
    """Name torch's device for the option `device`.

    Raises
    ------
    InputError
        `cuda` without a GPU that torch can use.
    """
    import torch

    from cathodeflow.errors import InputError

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device", "cuda, but no GPU that torch can use", "cpu or auto")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
