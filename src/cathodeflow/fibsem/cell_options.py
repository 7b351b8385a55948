"""Options of the cell model with the measured properties of an electrode."""

from typing import Literal

from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option


class Cell(Options):
    """Measured properties of an electrode -> parameters of a cell as a BPX file, and discharge curves."""

    template: InputFile | None = option(
        None,
        "BPX file with the other parameters of the cell; its positive electrode gets the measured ones. Default: a "
        "cylindrical cell with NMC 811 and graphite (LG M50; Chen et al. 2020).",
    )
    pore: str = option("pore", "Name of the pores in the table of properties.")
    active: str = option("active", "Name of the active material in the table of properties.")
    direction: Literal[0, 1, 2] | None = option(
        None,
        "Direction across the electrode, from the current collector to the separator: 0 along the slices, 1 rows, 2 "
        "columns. Default: mean of all directions.",
    )
    surface: Literal["whole", "pores"] = option(
        "whole",
        "Surface of the active material where the reaction takes place: the `whole` surface, where binder conducts "
        "ions, or only that to `pores`.",
    )
    discharge: Literal["auto", "never", "always"] = option(
        "auto", "Discharge curves: `auto` computes them where PyBaMM is installed (`pip install 'cathodeflow[cell]'`)."
    )
    c_rates: tuple[float, ...] = option(
        (1.0, 3.0), "Currents, as multiples of the one that discharges the nominal capacity in an hour.", min_length=1
    )
    samples: int = option(
        16,
        "Cells that are discharged, with properties drawn from the error bars, for each kind of error.",
        ge=2,
        le=2000,
    )
    errors: tuple[Literal["both", "segmentation", "sampling"], ...] = option(
        ("both", "segmentation"),
        "Errors that the properties are drawn from: `both` together, or one term alone, where the table has it.",
        min_length=1,
    )
    model: Literal["DFN", "SPMe"] = option(
        "DFN", "Cell model: Doyle-Fuller-Newman, or single particle with electrolyte."
    )
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)
