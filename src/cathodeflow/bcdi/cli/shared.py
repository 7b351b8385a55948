"""What the commands of coherent diffraction imaging share: their group, flags and files."""

from typing import Any

import click

from cathodeflow import old_flags as flags
from cathodeflow.bcdi.options import Section, Strain
from cathodeflow.old_commands import Stages


class Commands(Stages):
    """The stages, and before them the one command that does them all."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands."""
        order = ["reconstruct", *(name.replace("_", "-") for name in self.section.model_fields)]
        return sorted(self.commands, key=order.index)


@click.group(name="bcdi", cls=Commands)
def group() -> None:
    """3D image and strain of one particle from coherent diffraction."""


group.section = Section

sample_flag = flags.sample_flag("Name of the scan.")
out_flag = click.option("--out", required=True, metavar="FILE", help="File of results to write.")
spec_flag = click.option("--spec", metavar="FILE", help="SPEC file of 34-ID-C.")
scan_flag = click.option("--scan", type=int, metavar="NUMBER", help="Number of the scan in the SPEC file.")


def read_spec(spec: str | None, scan: int | None) -> Any:
    """Read the scan of a SPEC file, None where there is none."""
    from cathodeflow.errors import InputError
    from cathodeflow.io.spec import read_spec_scan

    if spec is None:
        return None
    if scan is None:
        raise InputError("--scan", "nothing", f"the number of a scan in {spec}")
    return read_spec_scan(spec, scan)


def find_geometry(spec: Any, file: str | None, options: Strain) -> tuple[Any, list[str]]:
    """Put a geometry together: what the options say goes first.

    Returns
    -------
    geometry : Geometry, optional
        None where something is missing.
    missing : list of str
        What is.

    Raises
    ------
    InputError
        The file holds something else, or a value out of its range.
    """
    from cathodeflow.bcdi.aps_34idc import geometry_of_34idc
    from cathodeflow.bcdi.geometry import Geometry
    from cathodeflow.errors import InputError
    from cathodeflow.io.text import read_yaml
    from cathodeflow.options import from_config

    values: dict[str, Any] = {}
    if spec is not None:
        values = geometry_of_34idc(spec)._asdict()
    if file is not None:
        given = read_yaml(file)
        for name in given:
            if name not in Geometry._fields:
                raise InputError(f"{file}: {name}", "an unknown key", "one of " + ", ".join(Geometry._fields))
        values |= from_config(Strain, given, file).model_dump(include=set(given))
    values |= {name: value for name in Geometry._fields if (value := getattr(options, name)) is not None}
    missing = [name for name in Geometry._fields if name not in values and name not in Geometry._field_defaults]
    return (None if missing else Geometry(**values)), missing
