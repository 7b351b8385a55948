"""Options of the errors of properties: sampling, and segmentation calibrated on validation slices."""

from typing import Literal

from cathodeflow.fibsem.predict_options import DEVICE, THREADS, TILE, Predict
from cathodeflow.fibsem.properties_options import Group
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device


class Compared(Options):
    """Properties whose segmentation error is measured."""

    groups: tuple[Literal["fractions", "surfaces", "transport"], ...] = option(
        ("fractions", "surfaces", "transport"), "Properties whose segmentation error is measured.", min_length=1
    )
    transport_phases: tuple[str, ...] | None = option(
        None, "Phases whose transport is compared. Default: the first class, the pores."
    )
    threads: int = option(2, THREADS, ge=1)


class CalibrateErrors(Compared):
    """Validation slices and their segmentation -> bias and spread of the properties, by method."""

    sampling: SamplingError = option(SamplingError(), "Blocks of the validation slices.")
    compared_methods: tuple[str, ...] | None = option(
        None,
        "Methods to calibrate. Default: the best method on the validation set, and `unet`, `ugsm` and `matphase`.",
    )
    passes: int = option(
        4, "Stochastic passes whose spread is compared with that on new slices; 0 leaves them out.", ge=0
    )
    tile: int = option(512, TILE, unit="px", ge=32)
    device: Device | None = option(None, DEVICE)


class CompareProperties(Compared):
    """Segmentations of the test slices and their labels -> properties with error bars, by method."""


class PropertyFigures(Options):
    """Tables of properties and discharge curves -> figures."""

    phases: tuple[str, ...] | None = option(
        None, "Phases, and pairs such as `pore-active`, whose properties are drawn. Default: all."
    )


class Measure(Predict):
    """A trained model and slices without labels -> segmentation, and properties with error bars."""

    calibration: InputFile | None = option(
        None,
        "JSON file of `calibrate-errors`. Default: the one beside the model; without any, intervals have the sampling "
        "error only.",
    )
    groups: tuple[Group, ...] = option(
        ("fractions", "surfaces", "connectivity", "transport", "particles"), "Properties to compute.", min_length=1
    )
    sampling: SamplingError = option(SamplingError(), "Sampling error.")
