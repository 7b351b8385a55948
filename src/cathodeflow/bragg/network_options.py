"""Options of the network that locates peaks, and of its comparison with fits."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from cathodeflow.bragg.peak_options import odd
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device, Precision, TrainingOptions

Width = Annotated[int, Field(ge=1)]


class Patches(Options):
    """Frames and fitted peaks -> labelled patches for the training."""

    patch_size: int = option(11, "Side of the patches that the network takes as input.", unit="px", ge=7, le=101)
    max_shift: int = option(
        1, "Margin stored around each patch, for random shifts in training.", unit="px", ge=0, le=10
    )
    min_value: float = option(20.0, "Set pixels below this intensity to zero.", unit="counts", ge=0)

    _odd = field_validator("patch_size")(odd)


class Augment(Options):
    """Augmentation of the training patches, drawn again in every epoch."""

    rotate90: bool = option(True, "Augment with random rotations by multiples of 90 degrees.")
    flip: bool = option(True, "Augment with random reflections of rows and columns.")


class Train(TrainingOptions):
    """Training patches of all scans with the role `train` -> BraggNN.

    The defaults reach a median error several times below that of the published settings, which are: `epochs: 500`,
    `patience: 500`, `batch_size: 512`, `learning_rate: 0.0003`, `warm_up: 0`, `final_rate: 1`, `loss: mse`,
    `overlap: 0`, `augment: {rotate90: false, flip: false}`.
    """

    renamed: ClassVar[dict[str, str]] = {"symmetries": "augment.rotate90 and augment.flip", "dense": "hidden_units"}

    epochs: int = option(
        100,
        "Maximum number of epochs; the learning-rate schedule spans all of them. 20 are enough for 20,000 peaks.",
        ge=1,
    )
    patience: int | None = option(
        30, "Early stopping: epochs without improvement on the validation set; `none` runs all epochs.", ge=1
    )
    batch_size: int = option(128, "Patches per training step.", ge=1)
    learning_rate: float = option(3e-3, "Peak learning rate.", gt=0)
    warm_up: int = option(1, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    precision: Precision = option(
        "32-true", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    loss: Literal["huber", "mse"] = option(
        "huber",
        "Loss function: `huber` (Huber loss, linear beyond 0.1 px) or `mse` (mean squared error, as published).",
    )
    overlap: float = option(
        0.3, "Fraction of training patches that are augmented with a second, overlapping peak.", ge=0, le=1
    )
    max_shift: int = option(1, "Augment with random shifts of up to this distance.", unit="px", ge=0, le=10)
    augment: Augment = option(Augment(), "Rotations and reflections.")
    hidden_units: tuple[Width, ...] = option((16, 8, 4, 2), "Units of each hidden dense layer.", min_length=1)
    validation: float = option(0.2, "Fraction of each scan's frames in the validation set.", gt=0, lt=1)
    block: int = option(
        8, "Frames per block; a block goes to training or to validation as a whole, as its peaks are correlated.", ge=1
    )
    gain: float = option(
        1.0, "Detector gain, in counts per photon, for the calibration of the standard errors.", unit="counts", gt=0
    )
    initial: InputFile | None = option(
        None,
        "Pretrained weights to start from: a model trained here or published BraggNN weights. Default: random weights.",
    )
    threads: int = option(
        2, "CPU threads of the training; another number changes the result within rounding errors.", ge=1
    )


class Locate(Options):
    """Candidates and BraggNN -> peak positions in pixels of the frames and of the detector."""

    renamed: ClassVar[dict[str, str]] = {"weights": "model"}

    model: InputFile | None = option(
        None,
        "Trained model: one trained here, or published BraggNN weights. Default: the model that the workflow trains.",
    )
    patch_size: int = option(
        11, "Side of the patches; must be the size that the model was trained with.", unit="px", ge=7, le=101
    )
    min_value: float | None = option(
        None,
        "Set pixels below this intensity to zero. Default: the value used in training (0 for published weights).",
        unit="counts",
        ge=0,
    )
    engine: Literal["auto", "torch", "onnx"] = option(
        "auto", "Inference engine; `auto`: torch on a GPU, onnxruntime on a CPU."
    )
    batch_size: int = option(64, "Patches per batch on a CPU (on a GPU: 4096).", ge=1)
    tta: bool = option(
        False,
        "Test-time augmentation: average the predictions over the 8 rotations and reflections of each patch. More "
        "accurate, 8 times slower.",
    )
    uncertainty: bool = option(
        True,
        "Compute the standard errors of the positions: counting noise and, for models trained here, the calibrated "
        "error of the network. Several times slower.",
    )
    gain: float = option(1.0, "Detector gain, in counts per photon, for the standard errors.", unit="counts", gt=0)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")

    _odd = field_validator("patch_size")(odd)


class Compare(Options):
    """Network, fit and, where known, truth -> distances between their positions, as tables."""

    max_distance: float = option(3.0, "Matching radius: positions closer than this are the same peak.", unit="px", gt=0)
    n_bins: int = option(8, "Number of intensity bins.", ge=1, le=100)
    min_amplitude: float = option(
        30.0, "Minimum true amplitude of the peaks that enter the recall.", unit="counts", ge=0
    )
    seed: int | None = option(
        None, "Random seed of the bootstrap confidence intervals. Default: the workflow's seed.", ge=0
    )


class Figures(Options):
    """Tables and records -> figures of every scan and of the training."""

    patch_size: int = option(11, "Side of the patches that are shown.", unit="px", ge=3, le=101)

    _odd = field_validator("patch_size")(odd)
