"""Options of a unit cell."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from cathodeflow.errors import InputError
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.cells import UnitCell, read_cell
from cathodeflow.options import Options, option

Length = Annotated[float, Field(gt=0)]
Angle = Annotated[float, Field(gt=0, lt=180)]


class Cell(Options):
    """Unit cell: a CIF file, or lengths, angles and space group."""

    file: InputFile | None = option(None, "CIF file with cell and space group. Default: none, `lengths` are given.")
    lengths: tuple[Length, Length, Length] | None = option(
        None, "Lengths a, b, c of the cell. Default: those of the CIF file.", unit="Angstrom"
    )
    angles: tuple[Angle, Angle, Angle] = option(
        (90.0, 90.0, 120.0), "Angles alpha, beta, gamma of the cell, if `lengths` are given.", unit="deg"
    )
    space_group: str = option("R -3 m", "Space group of the cell, if `lengths` are given.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.file is not None and self.lengths is not None:
            raise ValueError("file or lengths, not both")
        return self


def unit_cell(options: Cell, where: str) -> UnitCell:
    """Return the cell that the options give.

    Parameters
    ----------
    options : Cell
    where : str
        Key of the options, for messages.

    Raises
    ------
    InputError
        Neither a file nor lengths are given, or the file cannot be read.
    """
    if options.file is not None:
        return read_cell(options.file)
    if options.lengths is None:
        raise InputError(where, "no cell", "the lengths of the cell or a CIF file (file)")
    return UnitCell(options.lengths, options.angles, options.space_group)
