"""The group of the FIB-SEM commands."""

import click

from cathodeflow import flags
from cathodeflow.commands import Stages
from cathodeflow.fibsem.options import Section


@click.group(name="fibsem", cls=Stages)
def group() -> None:
    """Phase of every voxel of FIB-SEM or XCT slices, with uncertainty."""


group.section = Section

sample_flag = flags.sample_flag("Name of the volume.")
