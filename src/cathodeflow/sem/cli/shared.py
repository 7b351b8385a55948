"""What the SEM commands share: their group and flags."""

from functools import partial

import click

from cathodeflow import old_flags as flags
from cathodeflow.old_commands import Stages
from cathodeflow.sem.options import Section


@click.group(name="sem", cls=Stages)
def group() -> None:
    """Composition and state of cathodes, told from SEM micrographs."""


group.section = Section

sample_flag = partial(flags.sample_flag, "Name of the data set or network.")
