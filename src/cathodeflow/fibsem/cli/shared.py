"""The group of the FIB-SEM commands."""

import click

from cathodeflow import old_flags as flags
from cathodeflow.fibsem.options import Section
from cathodeflow.old_commands import Stages


@click.group(name="fibsem", cls=Stages)
def group() -> None:
    """Phase of every voxel of FIB-SEM or XCT slices, with uncertainty."""


group.section = Section

sample_flag = flags.sample_flag("Name of the volume.")
