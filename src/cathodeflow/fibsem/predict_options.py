"""Options of the segmentation of new slices."""

from typing import ClassVar, Literal

from cathodeflow.fibsem.reading import Reading
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import option
from cathodeflow.training.base_options import Device

#: Texts of options that several stages have.
THREADS = "CPU threads; their number changes the last digits of the result."
DEVICE = "Compute device. Default: the device of the workflow."
TILE = "Maximum side of a slice that is segmented as a whole; larger slices are cut into tiles of this side."
OVERLAP = "Overlap of neighbouring tiles, in which their predictions are blended."


class Predict(Reading):
    """A trained model and slices without labels -> segmentation, class probabilities and uncertainty."""

    renamed: ClassVar[dict[str, str]] = {"grey": "match_intensity"}

    model: InputFile | None = option(None, "Model file. Default: the first model that the workflow trains.")
    method: str | None = option(None, "Method. Default: the method with the highest mIoU on the validation set.")
    match_intensity: Literal["auto", "never", "always"] = option(
        "auto",
        "Scale the intensities to the mean and standard deviation of the training slices; `auto`: only where the data "
        "type differs from that of the training slices. Not used after training with `augment.normalize_slices`.",
    )
    tile: int = option(512, TILE, unit="px", ge=32)
    overlap: int = option(64, OVERLAP, unit="px", ge=0)
    threads: int = option(2, THREADS, ge=1)
    device: Device | None = option(None, DEVICE)
