"""Options of the images and their crops: simulation, index, split, crops."""

from typing import Literal

from pydantic import field_validator

from cathodeflow.options import Options, option
from cathodeflow.sem.use_options import Reading


class Simulate(Options):
    """Micrographs of simulated cathodes with information bar and sidecar files, for data sets that are `simulated`."""

    format: Literal["jpeg", "tiff"] = option("jpeg", "File format of the images.")
    n_images: int = option(12, "Number of images per class.", ge=3, le=1000)
    rows: int = option(240, "Rows of an image, without its information bar.", unit="px", ge=96, le=4096)
    cols: int = option(320, "Columns of an image.", unit="px", ge=96, le=4096)
    bar_rows: int = option(16, "Rows of the information bar; 0 omits it.", unit="px", ge=0, le=512)
    seed: int | None = option(None, "Random seed of particles and noise. Default: the workflow seed.", ge=0)


class Index(Reading):
    """Class folders or a table of images -> one table of all images with their metadata."""

    compositions: tuple[str, ...] | None = option(
        None,
        "Materials that may occur, such as [LFP, graphite]; any other is refused. Default: those of the class folders "
        "or the table.",
    )
    states: tuple[str, ...] | None = option(
        None,
        "States of the electrode that may occur, in order; images without one are in the first. Default: pristine, "
        "formation, cycled; without `compositions`, a table may have any state.",
        min_length=1,
    )
    classes: Literal["both", "composition", "state"] = option(
        "both",
        "What is predicted: `both` composition and state, or only one of them. With one of them, a "
        "composition whose states were imaged in different sessions can be tested across sessions.",
    )
    min_images: int = option(
        3, "Minimum number of images per class and data set; all data sets together need 3 per class.", ge=1
    )
    scale_bar: bool = option(
        True,
        "Read the printed scale bar of each image with the extra `ocr`, to check the pixel size that the instrument "
        "stored, or to have one where it stored none. About 10 to 50 ms per image.",
    )
    on_bad_file: Literal["fail", "skip"] = option(
        "fail", "What to do with unreadable files: stop the stage, or leave them out."
    )

    @field_validator("compositions")
    @classmethod
    def _some(cls, compositions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if compositions is not None and not all(compositions):
            raise ValueError("names")
        return compositions


class Split(Options):
    """All labelled images -> training, validation and test set; all crops of an image are in the same set."""

    by: Literal["time-block", "session", "image", "given"] = option(
        "time-block",
        "`time-block`: the last images of each class in time are the test set; `session`: whole sessions of the "
        "microscope; `image`: random images, as published; `given`: column `split` of the tables.",
    )
    test: float = option(0.2, "Fraction of each class's images in the test set.", gt=0, lt=1)
    validation: float = option(0.2, "Fraction of the images outside the test set for validation.", gt=0, lt=1)
    gap: int | None = option(
        None,
        "Number of images left out between the blocks of time. Default: those training images are left "
        "out that overlap validation or test images, as far as the images of a class can be joined to a "
        "mosaic.",
        ge=0,
        le=1000,
    )
    test_sessions: tuple[str, ...] | None = option(
        None,
        "Sessions that are the test set of `session`, by their names or the beginning of these, such as "
        "[2019-12]; classes that were not imaged in them are not tested. Default: the last sessions of "
        "each class.",
        min_length=1,
    )
    session_hours: float = option(12.0, "Pause between two images after which a new session begins.", unit="h", gt=0)
    seed: int | None = option(None, "Random seed of the split `image`. Default: the workflow seed.", ge=0)


class Crops(Options):
    """Images -> crops of one size for the network, in chunked Zarr."""

    size: int = option(
        12000,
        "Number of crops in the training and validation set together, of all classes. The published builder counts "
        "them per class.",
        ge=2,
    )
    per_class: bool = option(True, "Equal number of crops per class; otherwise equal number per image.")
    ratio: float = option(
        0.2, "Number of validation crops as a fraction of `size`; the test set has as many.", gt=0, lt=1
    )
    pixels: int | None = option(
        640,
        "Side of a crop in the image; null (as a flag: none) takes half the image along each axis, as published.",
        unit="px",
        ge=16,
    )
    side: int = option(288, "Input size of the network, to which each crop is resized.", unit="px", ge=16, le=2048)
    pixel_nm: float | None = option(
        None,
        "Pixel size to which all images are brought before cropping. Default: images keep their own.",
        unit="nm",
        gt=0,
    )
    overlap: float | None = option(
        None,
        "Maximum overlap of two crops of an image, as a fraction of their area. Default: positions are drawn "
        "independently.",
        ge=0,
        lt=1,
    )
    margin: int = option(1, "Rows above the information bar that are not used either.", unit="px", ge=0)
    min_usable: float = option(
        0.95,
        "Minimum fraction of a crop that shows particles in focus, in training, test and prediction; 0 uses all crops. "
        "Bare, blurred and saturated areas are found by their contrast (columns `usable` and `blocks` of the index).",
        ge=0,
        le=1,
    )
    seed: int | None = option(None, "Random seed of the positions. Default: the workflow seed.", ge=0)
