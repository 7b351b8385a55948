"""Columns of the sample sheet, and options of slices: simulation, volume, augmentation."""

from typing import ClassVar, Literal

from cathodeflow.fibsem.reading import Labelling
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample

SIMULATED = "simulated"

_SEED = "Random seed. Default: the workflow seed."


class Slices(Sample):
    """A stack of slices: labelled ones for training and testing, or new ones to segment."""

    role: Literal["train", "predict"] = option(
        "train", "`train`: labelled slices for training and testing; `predict`: slices to segment."
    )
    images: str = option(
        ..., "Slices: a folder, pattern, stack file or dataset; or `simulated` for slices that the workflow simulates."
    )
    labels: str | None = option(
        None,
        "Label images of all or some slices, with the name of the slice or the same number in their names; or a file "
        "with a label image for each slice.",
    )

    @property
    def simulated(self) -> bool:
        """Whether the workflow simulates the slices."""
        return self.images == SIMULATED


class Simulate(Options):
    """A simulated three-phase electrode as a stack of low-contrast slices, for volumes that are `simulated`."""

    labels: InputFile | None = option(None, "Label volume to render (TIFF). Default: an electrode is generated.")
    n_slices: int = option(48, "Number of slices.", ge=8, le=10000)
    rows: int = option(96, "Rows of a slice.", unit="px", ge=32, le=8192)
    cols: int = option(96, "Columns of a slice.", unit="px", ge=32, le=8192)
    fractions: tuple[float, ...] = option(
        (0.14, 0.60, 0.26), "Volume fractions of pore, active material and binder.", min_length=3, max_length=3
    )
    diameter: tuple[float, ...] = option(
        (14.0, 30.0), "Minimum and maximum diameter of the particles.", unit="px", min_length=2, max_length=2
    )
    means: tuple[float, ...] = option((0.40, 0.60, 0.475), "Mean grey level of each class, 0 to 1.", min_length=2)
    contrast: float = option(1.0, "Contrast: factor on the differences between `means` and their average.", gt=0)
    texture: float = option(0.012, "Standard deviation of grey levels within a phase (texture).", ge=0)
    shine_through: float = option(
        0.30, "Fraction of the signal inside a pore that comes from deeper slices (shine-through artefact).", ge=0, le=1
    )
    shine_depth: int = option(3, "Depth of the slice that shines through pores.", unit="slices", ge=1)
    charging: float = option(0.02, "Grey level added to solid at the edge of a pore (charging artefact).", ge=0)
    psf_sigma: float = option(1.5, "Standard deviation of the point spread function.", unit="px", ge=0)
    shading: float = option(0.03, "Maximum relative intensity change by uneven illumination.", ge=0)
    curtaining: float = option(0.012, "Relative standard deviation of vertical streaks (curtaining artefact).", ge=0)
    gain_drift: float = option(0.015, "Relative standard deviation of the intensity from slice to slice.", ge=0)
    shot: float = option(0.001, "Variance of the shot noise at grey level 1.", ge=0)
    read: float = option(0.02, "Standard deviation of the read noise.", ge=0)
    bits: Literal[8, 16] = option(8, "Bits per pixel.")
    seed: int | None = option(None, _SEED, ge=0)

    def files(self, folder: str) -> tuple[list[str], list[str]]:
        """Name the files of the slices and of their labels that the simulation writes to a folder.

        Examples
        --------
        >>> [files[0] for files in Simulate(n_slices=8).files("raw")]
        ['raw/slices/slice_0000.tif', 'raw/labels/slice_0000.tif']
        """
        slices, labels = (
            [f"{folder}/{part}/slice_{number:04d}.tif" for number in range(self.n_slices)]
            for part in ("slices", "labels")
        )
        return slices, labels


class Volume(Labelling):
    """Slices and labels -> chunked Zarr stores with axes and scale."""

    renamed: ClassVar[dict[str, str]] = {"largest_drift": "max_drift"}

    align: bool = option(
        False, "Align the slices by phase correlation and crop them to the region that all slices show."
    )
    max_drift: float = option(
        16.0, "Maximum drift between neighbouring slices that alignment searches for.", unit="px", gt=0
    )


class Augment(Options):
    """Volume -> k images of each slice, cropped at the top and stretched, with their roles in training and test.

    As published: `copies: 10`, `splits: [paper]`.
    """

    renamed: ClassVar[dict[str, str]] = {"level": "normalize_slices"}

    copies: int = option(4, "Images per slice, including the slice itself.", ge=1, le=100)
    step: int = option(1, "Rows cropped per augmented copy.", unit="px", ge=1)
    interpolation: Literal["linear", "cubic"] = option("linear", "Interpolation between rows of the slices.")
    normalize_slices: bool = option(
        False,
        "Normalise each slice to a common mean and standard deviation, in training and prediction. Use it for single "
        "images and for stacks of uneven brightness.",
    )
    neighbours: int = option(
        8, "Neighbouring pixels that vote on each label of a stretched image; 0 disables this smoothing.", ge=0, le=48
    )
    splits: tuple[Literal["grouped", "paper"], ...] = option(
        ("grouped",),
        "Splits into training, validation and test set. `grouped`: whole blocks of neighbouring slices, so that no "
        "test slice resembles a training slice; `paper`: random slices, and some copies of training slices, as "
        "published.",
        min_length=1,
    )
    test: float = option(0.25, "Fraction of the slices in the test set (split `grouped`).", gt=0, lt=1)
    validation: float = option(0.15, "Fraction of the remaining slices in the validation set.", gt=0, lt=1)
    blocks: int = option(
        1, "Sections of the stack, each with its own test and validation slices (split `grouped`).", ge=1
    )
    gap: int = option(
        3, "Slices left out between the training set and the other sets (split `grouped`).", unit="slices", ge=0
    )
    paper_test: int = option(50, "Image-label pairs in the test set (split `paper`).", ge=1)
    paper_unseen: int = option(40, "Test pairs whose slice has no copy in the training set (split `paper`).", ge=0)
    seed: int | None = option(None, "Random seed of the split `paper`. Default: the workflow seed.", ge=0)
