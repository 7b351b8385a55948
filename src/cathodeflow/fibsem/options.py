"""Options of the FIB-SEM stages and the columns of the sheet of volumes."""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.sources import list_files
from cathodeflow.options import Options, as_tuples, option
from cathodeflow.samples import Sample, TechniqueSection

Device = Literal["auto", "cpu", "cuda"]
SIMULATED = "simulated"
#: Networks that are trained unless others are named: what of `train_global` differs.
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"dropout": 0.0, "class_weights": "none"},
    "ugsm": {},
    "context": {"context": 3, "dropout": 0.2, "dropout_where": "deep", "class_weights": "none", "test_flips": True},
}
#: Names of files that are no network's and no method's.
TAKEN = ("model", "test")
#: Methods with a local model, and the network whose doubts it settles.
METHODS = {"matphase": "ugsm", "matphase_context": "context"}


class Slices(Sample):
    """A stack of slices: labelled ones to learn from and test on, or others to segment."""

    role: Literal["train", "predict"] = option("train", "`train`: labelled slices to learn from and test on.")
    images: str = option(..., "Slices: folder, pattern or stack; or `simulated`: made by `fibsem_simulate`.")
    labels: str | None = option(None, "Labels of the slices, as many, or of the slices of the same file names.")

    @property
    def simulated(self) -> bool:
        """Whether the slices are made by the workflow itself."""
        return self.images == SIMULATED


class Simulate(Options):
    """A three-phase electrode as a stack of slices of low contrast, for volumes that are `simulated`."""

    labels: str | None = option(None, "Label volume to render (TIFF); default: one that is generated.")
    n_slices: int = option(48, "Slices.", ge=8, le=10000)
    rows: int = option(96, "Rows of a slice.", unit="px", ge=32, le=8192)
    cols: int = option(96, "Columns of a slice.", unit="px", ge=32, le=8192)
    fractions: tuple[float, ...] = option(
        (0.14, 0.60, 0.26), "Shares of pore, active material and binder.", min_length=3, max_length=3
    )
    diameter: tuple[float, ...] = option(
        (14.0, 30.0), "Smallest and largest diameter of the particles.", unit="px", min_length=2, max_length=2
    )
    means: tuple[float, ...] = option((0.40, 0.60, 0.475), "Grey of the classes, in 0..1.", min_length=2)
    contrast: float = option(1.0, "Factor on the distances of these from their average.", gt=0)
    texture: float = option(0.012, "Deviation of the grey within a phase.", ge=0)
    shine_through: float = option(0.30, "Share of what a pore shows that lies below it.", ge=0, le=1)
    shine_depth: int = option(3, "How many slices below.", ge=1)
    charging: float = option(0.02, "Extra brightness of solid at the edge of a pore.", ge=0)
    psf_sigma: float = option(1.5, "Deviation of the point spread.", unit="px", ge=0)
    shading: float = option(0.03, "Largest relative change by uneven brightness.", ge=0)
    curtaining: float = option(0.012, "Relative deviation of vertical streaks.", ge=0)
    gain_drift: float = option(0.015, "Relative deviation of the brightness from slice to slice.", ge=0)
    shot: float = option(0.001, "Variance of the shot noise at full grey.", ge=0)
    read: float = option(0.02, "Deviation of the read noise.", ge=0)
    bits: Literal[8, 16] = option(8, "Bits of a pixel.")
    seed: int | None = option(None, "Seed; default: the workflow's.", ge=0)


class Volume(Options):
    """Slices and labels -> chunked Zarr with axes and scale."""

    classes: tuple[str, ...] = option(
        ("pore", "active", "binder"), "Classes in the order of the label values 0, 1, ...", min_length=2
    )
    label_values: tuple[int, ...] | None = option(None, "Values of the classes in the label files, if not 0, 1, ...")
    pixel_nm: float | None = option(None, "Size of a pixel in the slices; default: unknown.", unit="nm", gt=0)
    slice_nm: float | None = option(None, "Distance of the slices; default: as the pixels.", unit="nm", gt=0)
    align: bool = option(False, "Shift the slices onto each other by phase correlation; crop what not all show.")
    largest_drift: float = option(16.0, "Largest drift between neighbours that is looked for.", unit="px", gt=0)


class Augment(Options):
    """Volume -> k images of each slice without their first rows, stretched; roles for training and test.

    As published: `copies: 10`, `splits: [paper]`.
    """

    copies: int = option(4, "Images of each slice, itself included.", ge=1, le=100)
    step: int = option(1, "Rows removed from one copy to the next.", unit="px", ge=1)
    interpolation: Literal["linear", "cubic"] = option("linear", "Between rows of the slices.")
    level: bool = option(
        False,
        "Bring every slice to the same mean and deviation of grey, new slices too: for images that are no stack, and "
        "stacks of uneven brightness.",
    )
    neighbours: int = option(8, "Neighbours of a pixel that smooth stretched labels; 0: none.", ge=0, le=48)
    splits: tuple[Literal["grouped", "paper"], ...] = option(
        ("grouped",),
        "`grouped`: whole blocks of neighbouring slices are tested, none of them seen; `paper`: as published, slices "
        "at random, and some copies of slices that are trained on.",
        min_length=1,
    )
    test: float = option(0.25, "Share of the slices to test on, in `grouped`.", gt=0, lt=1)
    validation: float = option(0.15, "Share of the others to validate on.", gt=0, lt=1)
    blocks: int = option(1, "Blocks along the stack, each with its test, in `grouped`.", ge=1)
    gap: int = option(3, "Slices left out between training and other blocks, in `grouped`.", ge=0)
    paper_test: int = option(50, "Pairs to test on, in `paper`.", ge=1)
    paper_unseen: int = option(40, "Those of them whose slice is not trained on, in `paper`.", ge=0)
    seed: int | None = option(None, "Seed of the choice in `paper`; default: the workflow's.", ge=0)


class TrainGlobal(Options):
    """Images -> a network that segments whole slices, by default a U-Net (UGSM).

    As published: `dropout: 0.5`, `dropout_where: blocks`, `class_weights: balanced`, `epochs: 100`, `batch_size: 20`,
    `crop: none`.
    """

    architecture: str = option(
        "unet",
        "Network architecture: `unet`, or `smp.<architecture>/<encoder>` of segmentation-models-pytorch, such as "
        "`smp.fpn/resnet18` (needs the extra `fibsem-architectures`).",
    )
    context: Literal[1, 3, 5] = option(1, "Neighbouring slices that enter together.")
    widths: tuple[int, ...] = option((16, 32, 64, 128), "Channels of each resolution of `unet`.", min_length=1)
    dropout: float = option(0.5, "Dropout.", ge=0, lt=1)
    dropout_where: Literal["blocks", "deep"] = option(
        "blocks", "Where dropout is applied: after every block, or only after those of the two lowest resolutions."
    )
    dropout_kind: Literal["element", "channel"] = option("element", "Single numbers, or whole channels.")
    class_weights: Literal["balanced", "none"] = option("balanced", "Weigh rare classes more in the loss.")
    epochs: int = option(100, "Most epochs.", ge=1)
    patience: int = option(100, "Epochs without a better validation after which training ends.", ge=1)
    batch_size: int = option(20, "Images in a step.", ge=1)
    crop: int | None = option(
        None, "Side of crops drawn from the images in training; default: whole images.", unit="px", ge=16
    )
    learning_rate: float = option(2e-3, "Learning rate at its highest.", gt=0)
    flips: bool = option(True, "Mirror at random.")
    folds: int = option(
        2, "Networks that are each trained without a part of the slices, to learn from where they err on it.", ge=2
    )
    passes: int = option(20, "Stochastic passes whose mean is taken, where there is dropout.", ge=1)
    test_flips: bool = option(False, "Take the mean over mirror images too.")
    precision: Literal["auto", "32-true", "bf16-mixed"] = option("auto", "Arithmetic; `auto`: bfloat16 where it pays.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Added to each seed of `seeds`; default: the workflow's.", ge=0)

    @field_validator("architecture")
    @classmethod
    def _architecture(cls, name: str) -> str:
        if not re.fullmatch(r"unet|smp\.\w+/[\w.-]+", name):
            raise ValueError("unet, or smp.<architecture>/<encoder> such as smp.fpn/resnet18")
        return name


class PredictGlobal(Options):
    """U-Nets and images -> mean logits and entropy of every pixel."""

    tile: int = option(512, "Slices with a longer side are cut into tiles of this side.", unit="px", ge=32)
    overlap: int = option(64, "Shared rows or columns of neighbouring tiles.", unit="px", ge=0)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class TrainIdk(Options):
    """Logits and entropy of pixels -> where the U-Net is wrong (HCL-IDK)."""

    hidden: tuple[int, ...] = option((64, 64), "Widths of the hidden layers.", min_length=1)
    epochs: int = option(15, "Epochs.", ge=1)
    batch_size: int = option(1024, "Pixels in a step.", ge=2)
    pixels_per_epoch: int | None = option(200_000, "Pixels of an epoch; default: all.", ge=2)
    learning_rate: float = option(2e-3, "Learning rate at first.", gt=0)
    threshold: Literal["f1", "share", "recall"] = option(
        "share", "What the threshold is chosen by, on validation: best F1, a share of all pixels, or of the wrong ones."
    )
    target: float = option(0.2, "That share.", gt=0, le=1)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Added to each seed of `seeds`; default: the workflow's.", ge=0)


class TrainLocal(Options):
    """Windows around doubtful pixels -> a network that settles them (LCGAR), from easy to hard (HCL-USI)."""

    side: int = option(11, "Side of a window, odd.", unit="px", ge=5, le=101)
    inputs: Literal["image", "image+classes", "image+logits", "all"] = option("all", "What the network sees.")
    edges: Literal["zero", "seen"] = option(
        "zero", "What convolutions find beyond a window: zeros, as published; or what is there, which is faster."
    )
    dropout: float = option(0.2, "Dropout before the last layer.", ge=0, lt=1)
    class_weights: Literal["balanced", "none"] = option("none", "Weigh rare classes more in the loss.")
    pacing: Literal["linear", "root", "step", "none"] = option("linear", "How the pool of pixels grows; none: all.")
    start_share: float = option(
        0.3, "Share of the pixels in the pool at first, those of the least entropy.", gt=0, le=1
    )
    full_at: float = option(0.5, "Share of the epochs after which the pool holds all.", gt=0, le=1)
    stages: int = option(3, "Sizes of the pool with the pacing `step`.", ge=2)
    flips: bool = option(True, "Mirror windows at random.")
    calibrate: bool = option(
        True, "Fit the scale of the logits and an offset of each class on validation; not published."
    )
    average: float = option(
        0.0,
        "Weights are the mean over the steps before, each counted this factor less than the next; 0: the last.",
        ge=0,
        lt=1,
    )
    epochs: int = option(15, "Epochs.", ge=1)
    batch_size: int = option(1024, "Windows in a step.", ge=2)
    pixels_per_epoch: int | None = option(None, "Windows of an epoch; default: as many as there are.", ge=2)
    learning_rate: float = option(2e-3, "Learning rate at first.", gt=0)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Added to each seed of `seeds`; default: the workflow's.", ge=0)

    @field_validator("side")
    @classmethod
    def _odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError("an odd number: the pixel is in the middle")
        return side


class Test(Options):
    """All networks and test images -> phases by every method, with probabilities and uncertainty."""

    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class Metrics(Options):
    """Phases by every method and the truth -> figures of merit with intervals."""

    tolerance_px: float = option(2.0, "Distance up to which boundaries agree.", unit="px", ge=0)
    speck_px: int = option(16, "Most pixels of an isolated speck.", unit="px", ge=1)
    bins: int = option(15, "Bins of confidence for the calibration error.", ge=2, le=100)
    extremes: int = option(5, "Best and worst slices whose accuracy is averaged.", ge=1)
    bootstrap_samples: int = option(2000, "Resamplings of the slices for the intervals.", ge=100)
    confidence: float = option(0.95, "Level of the intervals.", gt=0.5, lt=1)
    seed: int | None = option(None, "Seed of the bootstrap; default: the workflow's.", ge=0)


class Predict(Options):
    """A trained model and slices without labels -> phases, probabilities, uncertainty."""

    model: str | None = option(None, "Model to use; default: the first one trained here.")
    method: str | None = option(None, "Method; default: the one that is best on validation.")
    grey: Literal["auto", "own", "matched"] = option(
        "auto",
        "Bring mean and deviation of the grey to those of the training; auto: where the type of it differs. After "
        "training with `augment.level` each slice is levelled instead.",
    )
    pixel_nm: float | None = option(None, "Size of a pixel; default: as in a store, or unknown.", unit="nm", gt=0)
    slice_nm: float | None = option(None, "Distance of the slices; default: as the pixels.", unit="nm", gt=0)
    tile: int = option(512, "Slices with a longer side are cut into tiles of this side.", unit="px", ge=32)
    overlap: int = option(64, "Shared rows or columns of neighbouring tiles.", unit="px", ge=0)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class Section(TechniqueSection):
    """Phase of every voxel of FIB-SEM or XCT slices, with uncertainty (MatPhase).

    On every volume with the role `train` the networks of `networks` are trained, once for each of `seeds` and each
    split; `methods` adds a local model to some of them.
    """

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = option((0,), "A training of everything for each.", min_length=1)
    networks: dict[str, TrainGlobal] = option(
        {}, "Global networks, by name: the options of `train_global` that differ; default: unet, ugsm and context."
    )
    methods: dict[str, str] = option(METHODS, "Methods with a local model: name and global network.")
    simulate: Simulate = option(Simulate(), "Simulated slices.")
    volume: Volume = option(Volume(), "Volume.")
    augment: Augment = option(Augment(), "Images and split.")
    train_global: TrainGlobal = option(TrainGlobal(), "Global network.")
    predict_global: PredictGlobal = option(PredictGlobal(), "Its prediction.")
    train_idk: TrainIdk = option(TrainIdk(), "Where it is wrong.")
    train_local: TrainLocal = option(TrainLocal(), "Local network.")
    test: Test = option(Test(), "Test.")
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    predict: Predict = option(Predict(), "Prediction.")

    sample_class: ClassVar[type[Sample]] = Slices

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Give every network the options of `train_global` that it does not change."""
        if not isinstance(values, dict):
            return values
        base, named = values.get("train_global") or {}, values.get("networks") or NETWORKS
        if not isinstance(base, dict) or not isinstance(named, dict):
            return values
        networks = {
            name: {**base, **changed} if isinstance(changed, dict) else changed or base
            for name, changed in named.items()
        }
        return as_tuples({**values, "networks": networks})

    @field_validator("networks", "methods")
    @classmethod
    def _names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            Sample(sample=name)
        return named

    def check(self, samples: dict[str, Slices]) -> None:
        """Require that slices and labels are there.

        Raises
        ------
        InputError
            A line for everything that is missing.
        """
        errors = []
        for name, network in self.methods.items():
            if network not in self.networks:
                expected = "one of the networks " + ", ".join(self.networks)
                errors.append(InputError(f"fibsem.methods.{name}", network, expected))
        for key, named in (("networks", [*TAKEN, *self.methods]), ("methods", TAKEN)):
            for name in sorted(set(getattr(self, key)) & set(named)):
                errors.append(InputError(f"fibsem.{key}", f"the name {name}", "another one: that is taken"))
        if self.predict.method is not None and self.predict.model is None:
            offered = [*self.networks, *(f"{name}_prior" for name in self.networks),
                       *(f"{name}_mlp" for name in self.methods.values()), *self.methods]  # fmt: skip
            if self.predict.method not in offered:
                errors.append(InputError("fibsem.predict.method", self.predict.method, "one of " + ", ".join(offered)))
        for name, one in samples.items():
            where = f"{self.samples}: volume '{name}'"
            if one.role == "train" and one.labels is None and not one.simulated:
                errors.append(InputError(where, "the role 'train' without labels", "labels, or the role 'predict'"))
            for column, source in (("images", one.images), ("labels", one.labels)):
                if source is None or one.simulated:
                    continue
                if set("{}") & set(source):
                    # Snakemake takes what stands in braces for a wildcard.
                    errors.append(InputError(f"{where}, {column}", source, "a path without { and }"))
                    continue
                try:
                    list_files(source)
                except InputError as error:
                    errors.append(InputError(f"{where}, {column}: {error.where}", error.found, error.expected))
        trained = any(one.role == "train" for one in samples.values())
        if self.predict.model is None and not trained:
            expected = "the role 'train' for at least one, or fibsem.predict.model"
            errors.append(InputError(self.samples, "no volume to train a network on", expected))
        for key, file in (("predict.model", self.predict.model), ("simulate.labels", self.simulate.labels)):
            if file is not None and not Path(file).is_file():
                errors.append(InputError(f"fibsem.{key}: {file}", "no such file", "a file"))
        if errors:
            raise InputErrors.of(errors)
