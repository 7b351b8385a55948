"""Options of the SEM stages and the columns of the sample sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.image_lists import image_files, raw_files
from cathodeflow.io.sources import is_remote
from cathodeflow.options import Options, as_tuples, option
from cathodeflow.samples import Sample, TechniqueSection, dangling, missing_files
from cathodeflow.sem.particle_options import ParticleFigures, Particles
from cathodeflow.sem.robust_options import Robust
from cathodeflow.sem.use_options import Page, Reading
from cathodeflow.training.base_options import Device, OptimizerName, TrainingOptions

SIMULATED = "simulated"
#: Folder in results/sem for the results of all labelled data sets together; no data set or version may have this name.
POOLED = "pooled"
#: Name of the only network where no versions are given.
VERSION = "model"


class DataSet(Sample):
    """A data set of micrographs: labelled ones for training and test, or unlabelled ones to classify."""

    role: Literal["train", "test", "predict"] = option(
        "train",
        "`train`: labelled images for training, validation and test; `test`: other labelled images, on which the "
        "networks are tested only, such as those of a new session; `predict`: unlabelled images to classify.",
    )
    images: str = option(
        ...,
        "Folder of class folders, or a table (CSV, TSV) of images; with the role `predict` a folder, a glob pattern or "
        "a file. `simulated`: images that the rule `sem_simulate` makes.",
    )

    @property
    def simulated(self) -> bool:
        """Whether the workflow itself makes the images."""
        return self.images == SIMULATED


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
        "What is predicted: `both` the composition and its state, or one of them alone, so that a composition whose "
        "states were imaged in different sessions can be tested across sessions.",
    )
    min_images: int = option(
        3, "Minimum number of images per class and data set; all data sets together need 3 per class.", ge=1
    )
    on_bad_file: Literal["fail", "skip"] = option("fail", "Whether unreadable files stop the stage or are left out.")

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
        "Images left out between blocks of time. Default: training images that overlap images for validation or test, "
        "as far as the images of a class can be joined to a mosaic.",
        ge=0,
        le=1000,
    )
    test_sessions: tuple[str, ...] | None = option(
        None,
        "Sessions that are the test set of `session`, by their names or how these begin, such as [2019-12]; classes "
        "that were not imaged in them are not tested. Default: the last sessions of each class.",
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


class Augment(Options):
    """Random changes of training crops."""

    flip: bool = option(True, "Random reflections.")
    rotate90: bool = option(
        True, "Random rotations by 90 degrees. Disable if the scan direction of the microscope shows in the images."
    )
    rotation: float = option(
        0.0, "Maximum angle of an additional random rotation; 0 disables it.", unit="degree", ge=0, le=180
    )
    brightness: float = option(
        0.0, "Maximum change of brightness, as a fraction of the intensity range; 0 disables it.", ge=0, le=1
    )
    contrast: float = option(0.0, "Maximum relative change of contrast; 0 disables it.", ge=0, lt=1)
    gamma: float = option(1.6, "Maximum gamma; the minimum is its reciprocal. 1 disables it.", ge=1, le=5)
    noise: float = option(
        0.0,
        "Maximum standard deviation of added Gaussian noise, as a fraction of the intensity range; 0 disables it.",
        ge=0,
        le=1,
    )
    blur: float = option(1.0, "Maximum standard deviation of a Gaussian blur; 0 disables it.", unit="px", ge=0, le=10)


class Train(TrainingOptions):
    """Crops -> a network that classifies composition and state.

    The defaults are for CPUs and small data sets. As published: `backbone: tf_efficientnet_b7.aa_in1k`,
    `weights: imagenet`, `normalization: none`, all of `augment` disabled, `optimizer: adam`, `learning_rate: 0.0001`,
    `schedule: constant`, `warm_up: 0`, `weight_decay: 0`, `label_smoothing: 0`, `dropout: 0.5`,
    `drop_connect: 0.2`, `batch_size: 4`, `epochs: 40`, `patience: null`, `ema_decay: 0`, `mixup: 0`,
    `progressive_fraction: 0`, with 1600 crops per class of `pixels: null`, `side: 224` and the split `image`:
    `config/sem-paper.yaml`.
    """

    backbone: str = option(
        "resnet18_half", "Name of a timm architecture, or `resnet18_half`: ResNet-18 with half the channels."
    )
    weights: str = option(
        "none",
        "Initial weights: `none` for random ones, a file, or `imagenet` for pretrained weights, from an installed "
        "package (tf_efficientnet_lite0) or from timm.",
    )
    heads: Literal["joint", "axes"] = option(
        "joint", "`joint`: one output per class; `axes`: one output per composition and one per state."
    )
    dropout: float = option(0.1, "Dropout before the last layer.", ge=0, lt=1)
    drop_connect: float = option(
        0.0,
        "Drop-connect (stochastic depth): probability that the last block of a timm network is skipped in training, "
        "falling linearly to 0 at the first one.",
        ge=0,
        lt=1,
    )
    frozen: bool = option(
        False,
        "Train the last layer only, and keep the pretrained weights of all others: for few images, and a fifth of the "
        "time.",
    )
    normalization: Literal["crop", "histogram", "octaves", "imagenet", "none"] = option(
        "crop",
        "Input normalization. `crop`: each crop to mean 0 and standard deviation 1, which removes brightness and "
        "contrast; `histogram`: each crop to the same histogram, which removes gamma and clipping too; `octaves`: each "
        "octave of spatial frequencies to the same standard deviation, which removes focus and noise level too; "
        "`imagenet`: by mean and standard deviation of ImageNet; `none`: only scaled to 0..1.",
    )
    loss: Literal["cross_entropy", "focal"] = option("cross_entropy", "Loss function.")
    label_smoothing: float = option(0.05, "Fraction of each label spread over all classes.", ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = option(
        "none", "`balanced`: weight classes by the reciprocal of their number of training crops."
    )
    optimizer: OptimizerName = option("adamw", "Optimizer; `sgd` uses Nesterov momentum of 0.9.")
    learning_rate: float = option(2e-3, "Peak learning rate.", gt=0)
    weight_decay: float = option(
        0.05, "Weight decay; biases and normalization parameters are exempt. 0 disables it.", ge=0
    )
    warm_up: int = option(1, "Warm-up: epochs in which the learning rate rises linearly to its peak.", ge=0)
    epochs: int = option(12, "Maximum number of epochs; the learning-rate schedule spans all of them.", ge=1)
    patience: int | None = option(
        16,
        "Early stopping: epochs without improvement on the validation set. null (as a flag: none) runs all epochs, as "
        "published.",
        ge=1,
    )
    monitor: Literal["macro_f1", "loss"] = option(
        "macro_f1", "Validation metric that selects the best epoch and decides early stopping."
    )
    progressive_size: int = option(
        128, "Input size in the first epochs (progressive resizing): windows of the crops.", unit="px", ge=16
    )
    progressive_fraction: float = option(
        0.67, "Fraction of the epochs at the reduced input size; 0 disables progressive resizing.", ge=0, lt=1
    )
    augment: Augment = option(Augment(), "Augmentation.")
    robust: Robust = option(Robust(), "Training for other sessions of the microscope.")
    mixup: float = option(0.2, "Mixup alpha; 0 disables mixup.", ge=0, le=10)
    ema_decay: float = option(
        0.998, "Decay of the exponential moving average (EMA) of the weights; 0 disables it.", ge=0, lt=1
    )
    memory_gb: float = option(
        4.0,
        "Keep the crops in memory if they need less than this; otherwise stream them from disk.",
        unit="GB",
        ge=0,
    )
    threads: int = option(2, "CPU threads; their number changes the last bits of the result.", ge=1)

    renamed: ClassVar[dict[str, str]] = {
        "standardise": "normalization",
        "first_side": "progressive_size",
        "first_share": "progressive_fraction",
        "average": "ema_decay",
        "turn": "augment.rotate90",
        **{
            name: f"augment.{name}" for name in ("flip", "rotation", "brightness", "contrast", "gamma", "noise", "blur")
        },
    }

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.backbone == "resnet18_half" and self.weights == "imagenet":
            raise ValueError("a backbone of timm where weights are imagenet: resnet18_half has none")
        if self.backbone == "resnet18_half" and self.drop_connect:
            raise ValueError("a backbone of timm where there is drop_connect: resnet18_half has none")
        if self.frozen and self.weights == "none":
            raise ValueError("pretrained weights where frozen is set: random ones are of no use")
        if self.robust.group_weight and self.mixup:
            raise ValueError("mixup: 0 where robust.group_weight is set: a mixed crop is of two groups")
        return self


class Test(Options):
    """Network and test crops, or other labelled images -> predictions, metrics with intervals, calibration."""

    bins: int = option(15, "Number of confidence bins of the calibration error.", ge=2, le=100)
    overlap: float = option(
        0.25,
        "Overlap of neighbouring tiles of an image of the role `test`, as a fraction of their side.",
        ge=0,
        lt=0.9,
    )
    bootstrap_samples: int = option(2000, "Bootstrap samples for the confidence intervals.", ge=100)
    resample: Literal["field", "image"] = option(
        "field",
        "What counts as independent in confidence intervals: `field`: fields of view, each of the images that overlap; "
        "`image`: images, for which intervals are too narrow if they overlap.",
    )
    confidence: float = option(0.95, "Confidence level of the intervals.", gt=0.5, lt=1)
    batch_size: int = option(64, "Crops per batch.", ge=1)
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed of the bootstrap. Default: the workflow seed.", ge=0)


class Audit(Options):
    """Accuracy of classifiers that use only features unrelated to the particles, on the same split."""

    bins: int = option(32, "Number of bins of the intensity histogram.", ge=2, le=256)
    bar_pixels: int = option(
        64, "Side of the square to which information bars are resized for comparison.", unit="px", ge=8
    )
    overlap: bool = option(True, "Detect test images that show the same particles as training images.")
    confidence: float = option(0.95, "Confidence level of the intervals.", gt=0.5, lt=1)
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")

    renamed: ClassVar[dict[str, str]] = {"bar_side": "bar_pixels"}


class Predict(Reading):
    """Network and unlabelled images -> class, entropy and out-of-distribution score of each image."""

    model: InputFile | None = option(
        None,
        "Model file to use, or a network as ONNX (`sem export`). Default: the networks trained in this workflow.",
    )
    overlap: float = option(
        0.25, "Overlap of neighbouring tiles of an image, as a fraction of their side.", ge=0, lt=0.9
    )
    ood_quantile: float = option(
        0.99,
        "Out-of-distribution (OOD) threshold, as a quantile of the scores of the validation images.",
        gt=0.5,
        lt=1,
    )
    on_bad_file: Literal["fail", "skip"] = option("skip", "Whether unreadable files stop the stage or are left out.")
    threads: int = option(2, "CPU threads, each of which classifies an image.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")

    renamed: ClassVar[dict[str, str]] = {"foreign": "ood_quantile"}


class Explain(Options):
    """Network and test images -> class activation maps (Grad-CAM) of crops and of whole images."""

    method: Literal["gradcam", "gradcam++"] = option("gradcam", "Method of the class activation maps.")
    per_class: int = option(
        3, "Number of correctly, and of incorrectly, classified crops of each class on the contact sheet.", ge=1, le=10
    )
    whole: int = option(4, "Number of test images with a map of the whole image.", ge=0, le=100)
    overlap: float = option(
        0.5, "Overlap of neighbouring tiles of a whole image, as a fraction of their side.", ge=0, lt=0.9
    )
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed of the choice of images. Default: the workflow seed.", ge=0)


class Figures(Options):
    """Tables and maps of the other stages -> figures."""


class Section(TechniqueSection):
    """Composition and state of cathodes from SEM micrographs.

    The images of all data sets with the role `train` are split once. `versions` maps the name of a network to the
    options of `train` that differ; all networks are compared in MLflow. Without versions there is one network, `model`.
    """

    simulate: Simulate = option(Simulate(), "Simulated images.")
    index: Index = option(Index(), "Table of images.")
    split: Split = option(Split(), "Training, validation and test set.")
    crops: Crops = option(Crops(), "Crops.")
    train: Train = option(Train(), "Training.")
    test: Test = option(Test(), "Test.")
    audit: Audit = option(Audit(), "Audit.")
    predict: Predict = option(Predict(), "Prediction.")
    explain: Explain = option(Explain(), "Class activation maps.")
    page: Page = option(Page(), "Page of predictions.")
    particles: Particles = option(Particles(), "Particles.")
    particle_figures: ParticleFigures = option(ParticleFigures(), "Figures of the particles.")
    figures: Figures = option(Figures(), "Figures.")
    pages: bool = option(False, "Whether a page is made of the predictions of each data set with the role `predict`.")
    versions: dict[str, Train] = option(
        {}, "Networks to train, by name, with the options of `train` that differ. Default: one network, `model`."
    )

    sample_class: ClassVar[type[Sample]] = DataSet

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Give every version the options of `train` that it does not change."""
        if isinstance(values, dict) and isinstance(values.get("versions"), dict):
            base = values.get("train") or {}
            values = {
                **values,
                "versions": {
                    name: merged(base, {} if own is None else own) for name, own in values["versions"].items()
                },
            }
        # A validator that runs before the others hands on Python values, in which only a tuple is a tuple.
        return as_tuples(values)

    @field_validator("versions")
    @classmethod
    def _names(cls, versions: dict[str, Train]) -> dict[str, Train]:
        for name in versions:
            Sample(sample=name)
            if name == "index" or name.startswith("figures_"):
                raise ValueError(f"another name: '{name}' is taken by other files in the same folder")
        return versions

    @property
    def networks(self) -> dict[str, Train]:
        """Options of every network to train, by the name of its version."""
        return dict(self.versions) or {VERSION: self.train}

    def folders(self) -> list[str]:
        """Folders of results of all labelled images together, and of the networks."""
        return [POOLED, *self.networks]

    def on_bad_file(self, data_set: DataSet) -> str:
        """Return whether unusable images of a data set stop its stage (`fail`) or are left out (`skip`)."""
        return self.predict.on_bad_file if data_set.role == "predict" else self.index.on_bad_file

    def check(self, samples: dict[str, DataSet]) -> None:
        """Require that all images exist, and labelled ones where networks are trained.

        Raises
        ------
        InputError
            A line for everything that is missing.
        """
        errors = []
        if self.predict.model is None and not any(data_set.role == "train" for data_set in samples.values()):
            expected = "the role 'train' for at least one, or sem.predict.model"
            errors.append(InputError(self.samples, "no data set to train a network on", expected))
        for name in sorted(set(samples) & set(self.folders())):
            errors.append(InputError(self.samples, f"a data set named '{name}'", "another name: that folder is taken"))
        for name, train in self.networks.items():
            where = f"sem.versions.{name}" if self.versions else "sem.train"
            if train.progressive_fraction and train.progressive_size > self.crops.side:
                expected = f"at most sem.crops.side, {self.crops.side}"
                errors.append(InputError(f"{where}.progressive_size", str(train.progressive_size), expected))
            if train.weights not in ("none", "imagenet") and not Path(train.weights).is_file():
                expected = "none, imagenet or a file"
                errors.append(InputError(f"{where}.weights: {train.weights}", "no such file", expected))
        errors += missing_files({"sem.predict.model": self.predict.model}, "a model file of sem_train")
        masks = {f"sem.{name}.mask": getattr(self, name).mask for name in ("index", "predict", "particles")}
        errors += missing_files(masks, "an image in which pixels above 0 are not used")
        for name, data_set in samples.items():
            where = f"{self.samples}: data set '{name}', images"
            if set("{}") & set(data_set.images):
                # Snakemake reads braces as wildcards.
                errors.append(InputError(where, data_set.images, "a path without { and }"))
            if data_set.role == "test" and data_set.simulated:
                # All simulated data sets are the same images.
                errors.append(InputError(where, SIMULATED, "images that no network is trained with"))
            if is_remote(data_set.images):
                errors.append(InputError(where, "an address", "a folder, a pattern or a table on this machine"))
                continue
            try:
                if not data_set.simulated:
                    refused: list[InputError] = []
                    errors += dangling(where, raw_files(data_set.images, refused))
                    errors += refused if self.on_bad_file(data_set) == "fail" else []
            except InputError as error:
                errors.append(InputError(f"{where}: {error.where}", error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)

    def read_headers(self, samples: dict[str, DataSet]) -> None:
        """Read the names of all classes and the headers of all images.

        Raises
        ------
        InputError
            A line for every file that cannot be used.
        """
        from cathodeflow.io.micrographs import micrograph_header
        from cathodeflow.sem.classes import list_images

        errors = []
        for name, data_set in samples.items():
            try:
                if data_set.role != "predict" and not data_set.simulated:
                    refused: list[InputError] | None = [] if self.index.on_bad_file == "skip" else None
                    list_images(data_set.images, self.index.compositions, self.index.states, refused=refused)
            except InputError as error:
                errors += [
                    InputError(f"{self.samples}: data set '{name}': {problem.where}", problem.found, problem.expected)
                    for problem in error.errors
                ]
                continue
            for path in (
                [] if data_set.simulated or self.on_bad_file(data_set) == "skip" else image_files(data_set.images)
            ):
                try:
                    micrograph_header(path)
                except InputError as error:
                    where = f"{self.samples}: data set '{name}': {error.where}"
                    errors.append(InputError(where, error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)


def merged(base: Any, changed: Any) -> Any:
    """Return options with some changed, also single ones of a group; a value that is not a mapping replaces the group.

    Examples
    --------
    >>> merged({"epochs": 5, "augment": {"flip": True, "blur": 1}}, {"augment": {"blur": 0}})
    {'epochs': 5, 'augment': {'flip': True, 'blur': 0}}
    """
    if not isinstance(base, Mapping) or not isinstance(changed, Mapping):
        return changed
    return {**base, **{key: merged(base.get(key), value) for key, value in changed.items()}}
