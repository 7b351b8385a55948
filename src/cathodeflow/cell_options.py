"""Options of a unit cell, and the cell that they give."""

from cathodeflow.file_arguments import InputFile
from cathodeflow.io.cells import UnitCell, read_cell
from cathodeflow.options import Options, option


class Cell(Options):
    """Unit cell of the particles in the reference state; by default that of a nickel-rich layered oxide (NCM)."""

    file: InputFile | None = option(None, "CIF file with cell and space group, instead of the options below.")
    a: float = option(2.87, "Lattice parameter a.", unit="Angstrom", gt=0)
    b: float | None = option(None, "Lattice parameter b. Default: a.", unit="Angstrom", gt=0)
    c: float | None = option(14.2, "Lattice parameter c; none: a, as in cubic cells.", unit="Angstrom", gt=0)
    space_group: str = option(
        "R -3 m:H",
        "Hermann-Mauguin symbol or number of the space group: cubic, tetragonal, orthorhombic, hexagonal, or trigonal "
        "in hexagonal axes.",
    )


def unit_cell(options: Cell) -> UnitCell:
    """Return the cell of the options, read from the CIF file if there is one."""
    if options.file:
        return read_cell(options.file)
    a, b = options.a, options.a if options.b is None else options.b
    return UnitCell((a, b, a if options.c is None else options.c), None, options.space_group)
