"""Options of the FIB-SEM stages and the columns of the sample sheet."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, ValidationError, field_validator, model_validator
from pydantic_core import CoreSchema

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem.appearance_options import ImageChanges, WindowChanges
from cathodeflow.fibsem.cell_options import Cell
from cathodeflow.fibsem.error_options import CalibrateErrors, CompareProperties, Measure, PropertyFigures
from cathodeflow.fibsem.few_label_options import FewLabels
from cathodeflow.fibsem.method_options import Forest, Tables
from cathodeflow.fibsem.predict_options import AUTO, DEVICE, OVERLAP, THREADS, TILE, Predict
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.reading import Labelling, Reading
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.sources import is_remote
from cathodeflow.options import Options, as_tuples, option
from cathodeflow.samples import Sample, TechniqueSection, missing_files, source_errors
from cathodeflow.training.base_options import Device, Precision, TrainingOptions

SIMULATED = "simulated"
#: Folder of the results of all volumes together.
POOLED = "pooled"
#: Default networks, with the options that differ from `train_global`.
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"dropout": 0.0, "class_weights": "none"},
    "ugsm": {},
    "forest": {"architecture": "forest", "dropout": 0.0, "class_weights": "none"},
    "context": {"context": 3, "dropout": 0.2, "dropout_where": "deep", "class_weights": "none", "tta": True},
}
#: Patterns of the names of global networks, by family; `architectures.FAMILIES` has their classes.
ARCHITECTURES = {
    "unet": r"unet",
    "unet3d": r"unet3d",
    "fcn": r"fcn",
    "segnet": r"segnet",
    "forest": r"forest",
    "smp": r"smp\.\w+/[\w.-]+",
}
#: File names in the folder of a run that no network or method may have, and that method.
TAKEN = (AUTO, "model", "test", "figures", "slices")
#: Methods with a local model, and the global network that each is built on.
METHODS = {"matphase": "ugsm", "matphase_context": "context"}

_SEED = "Random seed. Default: the workflow seed."
_SEED_OFFSET = "Offset added to every entry of `seeds`. Default: the workflow seed."


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
    paper_unseen: int = option(
        40, "Test pairs whose slice is in no copy part of the training set (split `paper`).", ge=0
    )
    seed: int | None = option(None, "Random seed of the split `paper`. Default: the workflow seed.", ge=0)


class TrainGlobal(FewLabels):
    """Images -> a network that segments whole slices (UGSM).

    As published: `dropout: 0.5`, `dropout_where: blocks`, `class_weights: balanced`, `epochs: 100`, `batch_size: 20`,
    `crop: none`.
    """

    renamed: ClassVar[dict[str, str]] = {"flips": "augment.flip", "test_flips": "tta"}

    architecture: str = option(
        "unet",
        "Network architecture: `unet`, `unet3d` (needs `context` 3 or 5), `fcn`, `segnet`; `forest`, a random forest "
        "on Gaussian derivatives; or `smp.<architecture>/<encoder>` of segmentation-models-pytorch, such as "
        "`smp.fpn/resnet18` or, with an encoder of timm, `smp.unet/tu-convnext_tiny` (needs the extra "
        "`fibsem-architectures`).",
    )
    weights: Literal["none", "imagenet"] = option(
        "none",
        "Initial weights: `none` for random ones, or `imagenet` for pretrained weights of the encoder, from an "
        "installed package (`smp.unet/tu-tf_efficientnet_lite0`; needs the extra `sem-weights`).",
    )
    context: Literal[1, 3, 5] = option(
        1, "Neighbouring slices, including the slice itself, that enter the network as channels."
    )
    widths: tuple[int, ...] = option(
        (16, 32, 64, 128),
        "Channels at each resolution of `unet`, `unet3d`, `fcn` and `segnet`, from the highest resolution on.",
        min_length=1,
    )
    dropout: float = option(0.5, "Dropout probability; 0 makes the network deterministic.", ge=0, lt=1)
    dropout_where: Literal["blocks", "deep"] = option(
        "blocks", "Position of dropout: after every block, or only after the blocks of the two lowest resolutions."
    )
    dropout_kind: Literal["element", "channel"] = option(
        "element", "Unit that dropout removes: single features, or whole channels."
    )
    normalization: Literal["batch", "none"] = option(
        "batch", "Batch normalisation after every convolution of `unet`, or none, as in the original U-Net."
    )
    class_weights: Literal["balanced", "none"] = option(
        "balanced", "Class weights of the loss; `balanced` gives all classes the same total weight."
    )
    patience: int | None = option(
        100,
        "Early stopping: epochs without improvement on the validation set; `none` runs all epochs.",
        ge=1,
    )
    batch_size: int = option(20, "Images per training step.", ge=1)
    crop: int | None = option(
        None,
        "Side of the random crops that are trained on. Default: whole images.",
        unit="px",
        ge=16,
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    warm_up: int = option(1, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    augment: ImageChanges = option(ImageChanges(), "Augmentation.")
    folds: int | None = option(
        2,
        "Number of cross-validation folds; the IDK classifier is trained on out-of-fold predictions. `none`: on "
        "predictions of slices that the network was trained on, as published.",
        ge=2,
    )
    forest: Forest = option(Forest(), "Random forest.")
    memory_gb: float = option(
        4.0,
        "Keep the images in memory if they need less than this; otherwise stream them from disk.",
        unit="GB",
        ge=0,
    )
    passes: int = option(20, "Monte Carlo dropout passes averaged per prediction.", ge=1)
    tta: bool = option(False, "Test-time augmentation: average the predictions over reflections of the slice.")
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)

    @field_validator("architecture")
    @classmethod
    def _architecture(cls, name: str) -> str:
        if not any(re.fullmatch(pattern, name) for pattern in ARCHITECTURES.values()):
            raise ValueError(
                "unet, unet3d, fcn, segnet, forest, or smp.<architecture>/<encoder> such as smp.fpn/resnet18"
            )
        return name

    @model_validator(mode="after")
    def _reducible(self) -> "TrainGlobal":
        if self.reduction > 1 and not self.architecture.startswith("smp."):
            raise ValueError(f"`reduction` needs smp.<architecture>/<encoder>, not {self.architecture}")
        return self


class PredictGlobal(Options):
    """Global networks and images -> mean logits and entropy of every pixel."""

    copies: Literal["first", "all"] = option(
        "first",
        "Copies of the training slices that are predicted, and that the IDK classifier and the local network are "
        "trained on; `all`, as published, takes `augment.copies` times as long.",
    )
    tile: int = option(512, TILE, unit="px", ge=32)
    overlap: int = option(64, OVERLAP, unit="px", ge=0)
    threads: int = option(2, THREADS, ge=1)
    device: Device | None = option(None, DEVICE)


class TrainIdk(TrainingOptions):
    """Logits and entropy of pixels -> a classifier of the pixels where the global network is wrong (HCL-IDK)."""

    hidden: tuple[int, ...] = option((64, 64), "Hidden units of each layer of the classifier.", min_length=1)
    epochs: int = option(15, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    batch_size: int = option(1024, "Pixels per training step.", ge=2)
    pixels_per_epoch: int | None = option(
        200_000, "Pixels per epoch, drawn at random; `none` uses all pixels in every epoch.", ge=2
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    precision: Precision = option(
        "32-true", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    threshold: Literal["f1", "fraction", "recall", "half"] = option(
        "fraction",
        "Criterion, on the validation set, of the probability above which a pixel is IDK: highest F1, fraction of all "
        "pixels that are IDK, or fraction of the wrong pixels that are IDK; `half`: a probability of 0.5, as "
        "published.",
    )
    target: float = option(
        0.2,
        "Fraction for `threshold`: maximum for `fraction`, minimum for `recall`; unused for `f1` and `half`.",
        gt=0,
        le=1,
    )
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)


class Curriculum(Options):
    """Order of the training pixels: from low to high entropy, in a pool that grows with the epochs (HCL-USI)."""

    pacing: Literal["linear", "root", "step", "none", "strict"] = option(
        "linear",
        "Growth of the pool over the epochs; `none` trains on all pixels from the start, `strict` on all pixels in "
        "each epoch, from low to high entropy without shuffling.",
    )
    start_fraction: float = option(
        0.3, "Fraction of the pixels, those of the lowest entropy, in the pool at the start.", gt=0, le=1
    )
    full_at: float = option(0.5, "Fraction of the epochs after which the pool contains all pixels.", gt=0, le=1)
    stages: int = option(3, "Number of pool sizes of the pacing `step`.", ge=2)


class TrainLocal(TrainingOptions):
    """Windows around IDK pixels -> a network that classifies these pixels (LCGAR), from easy to hard (HCL-USI)."""

    renamed: ClassVar[dict[str, str]] = {
        "edges": "padding",
        "pacing": "curriculum.pacing",
        "start_share": "curriculum.start_fraction",
        "full_at": "curriculum.full_at",
        "stages": "curriculum.stages",
        "flips": "augment.flip",
        "average": "ema_decay",
    }

    architecture: Literal["lcgar", "resnet18", "resnet34", "resnet50", "unet"] = option(
        "lcgar", "Network: LCGAR, a ResNet on the same windows, or a U-Net on whole slices."
    )
    pixels: Literal["idk", "all"] = option("idk", "Pixels of the training slices to train on: IDK pixels, or all.")
    side: int = option(11, "Side of a window, odd.", unit="px", ge=5, le=101)
    inputs: Literal["image", "image+classes", "image+logits", "all"] = option(
        "all",
        "Inputs of the network: the window of the image, with the classes of the global network, with its logits at "
        "the pixel, or all of these.",
    )
    padding: Literal["zeros", "image"] = option(
        "zeros", "Padding at window borders: `zeros` (as published) or `image` (the neighbouring pixels; faster)."
    )
    dropout: float = option(0.2, "Dropout probability before the last layer.", ge=0, lt=1)
    class_weights: Literal["balanced", "none"] = option(
        "none", "Class weights of the loss; `balanced` gives all classes the same total weight."
    )
    curriculum: Curriculum = option(Curriculum(), "Curriculum.")
    augment: WindowChanges = option(WindowChanges(), "Augmentation.")
    calibrate: bool = option(
        True,
        "Calibrate the logits on the validation set with one scale and an offset per class; not part of the published "
        "method.",
    )
    epochs: int = option(15, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    batch_size: int = option(1024, "Windows per training step.", ge=2)
    pixels_per_epoch: int | None = option(
        None, "Windows per epoch. Default: as many as there are IDK pixels in the training set.", ge=2
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    threads: int = option(2, THREADS, ge=1)
    seed: int | None = option(None, _SEED_OFFSET, ge=0)

    @field_validator("side")
    @classmethod
    def _odd(cls, side: int) -> int:
        if side % 2 == 0:
            raise ValueError("an odd number, so that the pixel is in the middle")
        return side


class LocalMethod(Options):
    """A method with a local model: its global network, and options that differ from `train_idk` and `train_local`."""

    network: str = option(..., "Global network, one of `networks`.")
    decides: Literal["idk", "all"] = option("idk", "Pixels that the local model decides: IDK pixels, or all.")
    train_idk: TrainIdk = option(TrainIdk(), "IDK classifier.")
    train_local: TrainLocal = option(TrainLocal(), "Local network.")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Allow the name of the network in place of the options."""
        return {"anyOf": [{"type": "string"}, handler(core)]}

    def flag(self, name: str) -> str:
        """Return the method as the command `fibsem test` takes it, such as `resnet34=unet/all`."""
        return f"{name}={self.network}{'/all' * (self.decides == 'all')}"


class Test(Options):
    """All networks and test images -> segmentation by every method, with probabilities and uncertainty."""

    threads: int = option(2, THREADS, ge=1)
    device: Device | None = option(None, DEVICE)


class Metrics(Options):
    """Segmentations by every method and reference labels -> figures of merit with confidence intervals."""

    tolerance_px: float = option(2.0, "Maximum distance between boundaries that count as equal.", unit="px", ge=0)
    speck_px: int = option(16, "Maximum area of an isolated speck.", unit="px", ge=1)
    bins: int = option(15, "Confidence bins of the expected calibration error.", ge=2, le=100)
    extremes: int = option(5, "Number of best and of worst slices whose accuracies are averaged.", ge=1)
    bootstrap_samples: int = option(2000, "Bootstrap samples of the slices for the confidence intervals.", ge=100)
    confidence: float = option(0.95, "Level of the confidence intervals.", gt=0.5, lt=1)
    seed: int | None = option(None, "Random seed of the bootstrap. Default: the workflow seed.", ge=0)


class Figures(Options):
    """Tables, stores and records of the other stages -> figures."""

    zoom_px: int = option(
        56,
        "Side of the enlarged square below each slice, where predictions differ most; 0 disables it.",
        unit="px",
        ge=0,
    )


class Section(TechniqueSection):
    """Phase of every voxel of FIB-SEM or XCT slices, with uncertainty (MatPhase).

    On every volume with the role `train`, or on all of them together (`pooled`), the workflow trains the networks of
    `networks` once for each entry of `seeds` and each split; `methods` adds a local model to some of them.
    """

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = option(
        (0,), "Random seeds; all networks are trained once for each.", min_length=1
    )
    pooled: bool = option(
        False,
        "Train on all volumes with the role `train` together, with results in the folder `pooled`. Default: on each "
        "volume for itself.",
    )
    networks: dict[str, TrainGlobal] = option(
        {},
        "Global networks by name, with the options that differ from `train_global`. Default: unet, ugsm, forest, "
        "context.",
    )
    methods: dict[str, LocalMethod] = option(
        {},
        "Methods with a local model: name, and the global network of each; or its `network` with the options that "
        "differ from `train_idk` and `train_local`. Default: matphase and matphase_context.",
    )
    paper_tables: tuple[Literal[1, 2, 3, 5], ...] = option(
        (), "Tables of the MatPhase paper to write, see config/fibsem-tables.yaml: 1, 2, 3, 5. Default: none."
    )
    error_bars: bool = option(
        False,
        "Measure the segmentation error of properties on validation and test slices, and the properties of volumes "
        "with the role `predict` with error bars.",
    )
    cells: bool = option(
        False,
        "With `error_bars`: also a cell with the measured electrode, for volumes with the role `predict`; needs their "
        "voxel size.",
    )
    simulate: Simulate = option(Simulate(), "Simulated slices.")
    volume: Volume = option(Volume(), "Volume.")
    augment: Augment = option(Augment(), "Images and split.")
    train_global: TrainGlobal = option(TrainGlobal(), "Global network.")
    predict_global: PredictGlobal = option(PredictGlobal(), "Prediction of the global network.")
    train_idk: TrainIdk = option(TrainIdk(), "IDK classifier.")
    train_local: TrainLocal = option(TrainLocal(), "Local network.")
    test: Test = option(Test(), "Test.")
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    tables: Tables = option(Tables(), "Tables of the MatPhase paper.")
    predict: Predict = option(Predict(), "Segmentation of new slices.")
    calibrate_errors: CalibrateErrors = option(CalibrateErrors(), "Segmentation error of properties.")
    compare_properties: CompareProperties = option(CompareProperties(), "Properties of the test slices by method.")
    measure: Measure = option(Measure(), "Properties of new slices with error bars.")
    cell: Cell = option(Cell(), "Cell with the measured electrode.")
    property_figures: PropertyFigures = option(PropertyFigures(), "Figures of properties.")
    properties: Properties = option(Properties(), "Properties of the segmented volumes.")
    figures: Figures = option(Figures(), "Figures.")

    sample_class: ClassVar[type[Sample]] = Slices

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Give networks the options of `train_global`, and `measure` those of `predict`, that they do not change."""
        if not isinstance(values, dict):
            return values
        predict, measure = values.get("predict") or {}, values.get("measure") or {}
        if isinstance(predict, dict) and isinstance(measure, dict):
            values = {**values, "measure": {**predict, **measure}}
        base, named = values.get("train_global") or {}, values.get("networks") or NETWORKS
        if not isinstance(base, dict) or not isinstance(named, dict):
            return values
        networks = {
            name: {**base, **changed} if isinstance(changed, dict) else changed or base
            for name, changed in named.items()
        }
        methods = values.get("methods", METHODS)
        if isinstance(methods, dict):
            methods = {name: _method(given, values) for name, given in methods.items()}
        return as_tuples({**values, "networks": networks, "methods": methods})

    @field_validator("networks", "methods")
    @classmethod
    def _names(cls, named: dict[str, Any]) -> dict[str, Any]:
        for name in named:
            Sample(sample=name)
        return named

    def folders(self) -> list[str]:
        """Folder of all volumes together."""
        return [POOLED] if self.pooled else []

    def check(self, samples: dict[str, Slices]) -> None:
        """Require that slices, labels and models exist.

        Raises
        ------
        InputError
            A line for everything that is missing.
        """
        errors = []
        for name, method in self.methods.items():
            if method.network not in self.networks:
                expected = "one of the networks " + ", ".join(self.networks)
                errors.append(InputError(f"fibsem.methods.{name}", method.network, expected))
        for key, named in (("networks", [*TAKEN, *self.methods]), ("methods", TAKEN)):
            for name in sorted(set(getattr(self, key)) & set(named)):
                errors.append(InputError(f"fibsem.{key}", f"the name {name}", "another name; this one is taken"))
        if self.predict.model is None:
            offered = [AUTO, *self.networks, *(f"{name}_prior" for name in self.networks),
                       *(f"{method.network}_mlp" for method in self.methods.values()), *self.methods]  # fmt: skip
            if self.predict.method not in offered:
                errors.append(InputError("fibsem.predict.method", self.predict.method, "one of " + ", ".join(offered)))
        for name in sorted(set(samples) & set(self.folders())):
            errors.append(InputError(f"{self.samples}: volume '{name}'", "the name of a folder", "another name"))
        for name, sample in samples.items():
            errors += _sample_errors(f"{self.samples}: volume '{name}'", sample)
        trained = any(sample.role == "train" for sample in samples.values())
        if self.predict.model is None and not trained:
            expected = "the role 'train' for at least one, or fibsem.predict.model"
            errors.append(InputError(self.samples, "no volume to train a network on", expected))
        files = {"fibsem.predict.model": self.predict.model, "fibsem.simulate.labels": self.simulate.labels}
        errors += missing_files(files, "a file")
        if errors:
            raise InputErrors.of(errors)

    def read_headers(self, samples: dict[str, Slices]) -> None:
        """Read the headers of all slices and label images, and match them.

        Raises
        ------
        InputError
            A line for every kind of mistake.
        """
        from cathodeflow.fibsem.labelled_stack import open_labels
        from cathodeflow.fibsem.voxels import used_voxel
        from cathodeflow.io.slices import open_stack

        errors = []
        for name, sample in samples.items():
            if sample.simulated or is_remote(sample.images) or is_remote(sample.labels or ""):
                continue
            options: Reading = self.volume if sample.role == "train" else self.predict
            try:
                stack = open_stack(sample.images, options.choice())
                used_voxel(stack.voxel, options, sample.images)
                if sample.role == "train":
                    open_labels(sample.labels, stack, self.volume)
            except InputError as error:
                where = f"{self.samples}: volume '{name}'"
                errors += [InputError(f"{where}: {one.where}", one.found, one.expected) for one in error.errors]
        if errors:
            raise InputErrors.of(errors)


def _method(given: Any, section: dict[str, Any]) -> Any:
    """Give a method the options of its section's `train_idk` and `train_local` that it does not change."""
    given = {"network": given} if isinstance(given, str) else given
    if not isinstance(given, dict):
        return given
    parts: dict[str, type[Options]] = {"train_idk": TrainIdk, "train_local": TrainLocal}
    return {**given, **{name: _merged(_usable(cls, section.get(name)), given.get(name)) for name, cls in parts.items()}}


def _usable(cls: type[Options], section: Any) -> Any:
    """Return a section if it has no mistake: a mistake is reported once, not for every method."""
    try:
        cls.model_validate(as_tuples(section or {}))
    except ValidationError:
        return {}
    return section


def _merged(base: Any, changed: Any) -> Any:
    """Merge two sections; of equal keys the second counts."""
    if changed is None:
        return {} if base is None else base
    if not isinstance(base, dict) or not isinstance(changed, dict):
        return changed
    return {**base, **{key: _merged(base.get(key), value) for key, value in changed.items()}}


def _sample_errors(where: str, sample: Slices) -> list[InputError]:
    if sample.simulated:
        return []
    errors = []
    if sample.role == "train" and sample.labels is None:
        errors.append(InputError(where, "the role 'train' without labels", "labels, or the role 'predict'"))
    return errors + source_errors(where, {"images": sample.images, "labels": sample.labels})
