"""Options of reading micrographs and of using trained networks: export and page."""

from typing import Literal

from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device

#: Where an information bar may be.
BarSide = Literal["auto", "none", "bottom", "top", "left", "right"]


class Reading(Options):
    """Which part of an image file shows the specimen."""

    bar_rows: int | None = option(
        None,
        "Rows of the information bar, or columns of one at the left or right. Default: as recorded by the"
        " instrument, or detected in each image.",
        unit="px",
        ge=0,
    )
    bar_side: BarSide = option(
        "auto",
        "Side of the image at which the information bar is; `auto`: where one is found, or at the bottom with "
        "`bar_rows`; `none`: there is none.",
    )

    page: int | None = option(
        None,
        "Page of TIFF files with several images, such as one per detector; 0 is the first. Default: the only image of "
        "full size.",
        ge=0,
    )
    mask: InputFile | None = option(
        None,
        "Image of the same size as the micrographs: pixels above 0 in it, such as text and scale bars that are burnt "
        "into the picture, are replaced by their mirrored surroundings.",
    )
    pixel_nm: float | None = option(
        None, "Pixel size of images whose files do not give it. Default: it is unknown.", unit="nm", gt=0
    )


class Export(Options):
    """Trained network -> ONNX file."""


class Page(Options):
    """Predictions of images -> one HTML page with every image, its prediction and its class activation map."""

    images: int = option(
        200,
        "Maximum number of images on the page, the lowest confidence first; 60 kB each.",
        ge=1,
        le=5000,
    )
    width: int = option(480, "Width at which images are shown.", unit="px", ge=64, le=2048)
    method: Literal["gradcam", "gradcam++"] = option("gradcam", "Method of the class activation maps.")
    overlap: float = option(
        0.25, "Overlap of neighbouring tiles of an image, as a fraction of their side.", ge=0, lt=0.9
    )
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
