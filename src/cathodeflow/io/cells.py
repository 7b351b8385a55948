"""Unit cells of crystals from CIF files."""

from typing import NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded

_EXPECTED = "a CIF file with the cell of one structure"


class UnitCell(NamedTuple):
    """A unit cell.

    Attributes
    ----------
    lengths : (float, float, float)
        a, b, c [Angstrom].
    angles : (float, float, float), optional
        alpha, beta, gamma [deg]; None: those that the space group asks for.
    space_group : str
        Hermann-Mauguin symbol; `:H` and `:R` name the hexagonal and rhombohedral axes.
    """

    lengths: tuple[float, float, float]
    angles: tuple[float, float, float] | None
    space_group: str


def read_cell(path: str) -> UnitCell:
    """Read cell and space group from the first structure of a CIF file.

    Raises
    ------
    InputError
        The file cannot be read, or has no cell or no space group.
    """
    # Options name this module, and most commands read no cell.
    import gemmi

    with guarded(path, _EXPECTED):
        document = gemmi.cif.read(path)
        blocks = [block for block in document if block.find_value("_cell_length_a")]
        structure = gemmi.make_small_structure_from_block(blocks[0]) if blocks else None
    if structure is None or not structure.cell.is_crystal():
        raise InputError(path, "no cell", _EXPECTED)
    if structure.spacegroup is None:
        raise InputError(path, "no space group", "its Hermann-Mauguin symbol or its operations")
    cell = structure.cell
    return UnitCell((cell.a, cell.b, cell.c), (cell.alpha, cell.beta, cell.gamma), structure.spacegroup.xhm())
