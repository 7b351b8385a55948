"""Options of the segmentation of new slices."""

from typing import ClassVar

from cathodeflow.fibsem.appearance_options import MatchIntensity
from cathodeflow.fibsem.reading import Reading
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import option
from cathodeflow.training.base_options import Device

#: Method that the validation set chooses.
AUTO = "auto"
#: Texts of options that several stages have.
THREADS = "CPU threads; their number changes the last digits of the result."
DEVICE = "Compute device. Default: the device of the workflow."
TILE = "Maximum side of a slice that is segmented as a whole; larger slices are cut into tiles of this side."
OVERLAP = "Overlap of neighbouring tiles, in which their predictions are blended."


class Predict(Reading):
    """A trained model and slices without labels -> segmentation, class probabilities and uncertainty."""

    renamed: ClassVar[dict[str, str]] = {"grey": "match_intensity"}

    model: InputFile | None = option(None, "Model file. Default: the first model that the workflow trains.")
    method: str = option(AUTO, "Method by name, or `auto`: the method with the highest mIoU on the validation set.")
    match_intensity: MatchIntensity = option(
        "auto",
        "Bring the intensities to those of the training slices by a gain and an offset, which are estimated from the "
        "histograms of the phases; `auto`: only where they differ noticeably. Not used after training with "
        "`augment.normalize_slices`.",
    )
    tile: int = option(512, TILE, unit="px", ge=32)
    overlap: int = option(64, OVERLAP, unit="px", ge=0)
    threads: int = option(2, THREADS, ge=1)
    device: Device | None = option(None, DEVICE)
