"""Options of the SEM stages and the columns of the sheet of data sets."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import field_validator, model_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.image_lists import image_files, raw_files
from cathodeflow.io.sources import is_remote
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection

Device = Literal["auto", "cpu", "cuda"]
SIMULATED = "simulated"
#: Folder in results/sem of what is made from all labelled data sets, so no data set's and no version's name.
POOLED = "pooled"
#: Name of the one network where no versions are given.
VERSION = "model"


class DataSet(Sample):
    """A set of micrographs: labelled ones to learn from, or others to tell the class of."""

    role: Literal["train", "predict"] = option("train", "`train`: labelled images to learn from and test on.")
    images: str = option(
        ...,
        "Folder of class folders, or a table (CSV, TSV) of images; for `predict` a folder, a pattern or a file; "
        "or `simulated`: made by `sem_simulate`.",
    )

    @property
    def simulated(self) -> bool:
        """Whether the images are made by the workflow itself."""
        return self.images == SIMULATED


class Simulate(Options):
    """Micrographs of simulated cathodes with an information bar and sidecars, for data sets that are `simulated`."""

    format: Literal["jpeg", "tiff"] = option("jpeg", "Files to write.")
    n_images: int = option(12, "Images of each class.", ge=3, le=1000)
    rows: int = option(240, "Rows of an image, without its bar.", unit="px", ge=96, le=4096)
    cols: int = option(320, "Columns of an image.", unit="px", ge=96, le=4096)
    bar_rows: int = option(16, "Rows of the information bar; 0: none.", unit="px", ge=0, le=512)
    seed: int | None = option(None, "Seed of particles and noise; default: the workflow's.", ge=0)


class Index(Options):
    """Class folders or a table of images -> one table of all images with what is known of each."""

    compositions: tuple[str, ...] = option(("333", "523", "622", "811"), "Compositions, as the folders have them.")
    states: tuple[str, ...] = option(
        ("pristine", "formation", "cycled"), "States; a folder without one is of the first.", min_length=1
    )
    bar_rows: int | None = option(None, "Rows of the information bar; default: found in the images.", unit="px", ge=0)
    min_images: int = option(3, "Fewest images of a class in a data set; all sets together need 3.", ge=1)
    on_bad_file: Literal["fail", "skip"] = option("fail", "What becomes of files that cannot be read.")

    @field_validator("compositions")
    @classmethod
    def _one_word(cls, compositions: tuple[str, ...]) -> tuple[str, ...]:
        if not compositions or any(not name or "_" in name for name in compositions):
            raise ValueError("names without '_', which parts composition and state")
        return compositions


class Split(Options):
    """All labelled images -> which are for training, validation and test; crops never cross."""

    by: Literal["time-block", "session", "image", "given"] = option(
        "time-block",
        "`time-block`: each class's last images in time are the test; `session`: whole sessions of the microscope; "
        "`image`: at random, as published; `given`: column `split` of the tables.",
    )
    test: float = option(0.2, "Share of each class's images to test on.", gt=0, lt=1)
    validation: float = option(0.2, "Share of what is left to validate on.", gt=0, lt=1)
    gap: int = option(
        0, "Images left out between blocks of time, since neighbours may show the same particles.", ge=0, le=1000
    )
    session_hours: float = option(12.0, "Pause after which a new session begins.", unit="h", gt=0)
    seed: int | None = option(None, "Seed of the choice; default: the workflow's.", ge=0)


class Crops(Options):
    """Images -> crops of one size for the network, in chunked Zarr."""

    size: int = option(12000, "Crops for training and validation together.", ge=2)
    per_class: bool = option(True, "As many crops of every class; else as many of every image.")
    ratio: float = option(0.2, "Share of `size` for validation, and as much for the test.", gt=0, lt=1)
    pixels: int | None = option(
        640,
        "Side of a crop in the image; null (as a flag: none): half the image along each axis, as published.",
        unit="px",
        ge=16,
    )
    side: int = option(288, "Side of the crop as the network sees it.", unit="px", ge=16, le=2048)
    pixel_nm: float | None = option(
        None, "Bring all images to this pixel size first; default: as they are.", unit="nm", gt=0
    )
    overlap: float | None = option(
        None, "Largest shared area of two crops of one image; default: any, drawn with replacement.", ge=0, lt=1
    )
    margin: int = option(1, "Rows above the information bar that are left out too.", unit="px", ge=0)
    seed: int | None = option(None, "Seed of the places; default: the workflow's.", ge=0)


class Train(Options):
    """Crops -> a network that tells composition and state.

    The defaults are for CPUs and small data. As published: `backbone: tf_efficientnet_b7.aa_in1k`,
    `weights: imagenet`, `standardise: none`, all augmentation off, `optimizer: adam`, `learning_rate: 0.0001`,
    `schedule: constant`, `warm_up: 0`, `weight_decay: 0`, `label_smoothing: 0`, `dropout: 0`, `batch_size: 4`,
    `epochs: 40`, `average: 0`, `first_share: 0`, with crops of `pixels: null`, `side: 224` and the split `image`.
    """

    backbone: str = option("resnet18_half", "A network of timm by name, or `resnet18_half`: half of ResNet-18's width.")
    weights: str = option(
        "none",
        "Weights to start from: `none`, a file, or `imagenet`: of a package (tf_efficientnet_lite0), else of timm.",
    )
    heads: Literal["joint", "axes"] = option("joint", "One output per class, or one per composition and per state.")
    dropout: float = option(0.1, "Dropout before the last layer.", ge=0, lt=1)
    standardise: Literal["crop", "imagenet", "none"] = option(
        "crop",
        "`crop`: every crop to mean 0 and deviation 1, which takes brightness and contrast away; "
        "`imagenet`: by ImageNet's mean and deviation; `none`: only to 0..1.",
    )
    loss: Literal["cross_entropy", "focal"] = option("cross_entropy", "Loss.")
    label_smoothing: float = option(0.05, "Share of the label spread over all classes.", ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = option("none", "Weigh rare classes more.")
    optimizer: Literal["adamw", "adam", "sgd"] = option("adamw", "Optimiser.")
    learning_rate: float = option(2e-3, "Learning rate at its highest.", gt=0)
    weight_decay: float = option(0.05, "Decay of the weights.", ge=0)
    schedule: Literal["cosine", "constant"] = option("cosine", "Learning rate over the epochs.")
    warm_up: int = option(1, "Epochs in which the learning rate rises.", ge=0)
    epochs: int = option(12, "Most epochs.", ge=1)
    patience: int = option(16, "Epochs without a better validation after which training ends.", ge=1)
    monitor: Literal["macro_f1", "loss"] = option("macro_f1", "Which validation figure decides.")
    batch_size: int = option(32, "Crops in a step.", ge=1)
    first_side: int = option(128, "Side of the windows cut from the crops in the first epochs.", unit="px", ge=16)
    first_share: float = option(0.67, "Share of the epochs with such windows, which cost less; 0: none.", ge=0, lt=1)
    flip: bool = option(True, "Mirror at random.")
    turn: bool = option(True, "Turn by quarters at random.")
    rotation: float = option(0.0, "Largest further rotation.", unit="degree", ge=0, le=180)
    brightness: float = option(0.0, "Largest change of brightness, as a share of the range.", ge=0, le=1)
    contrast: float = option(0.0, "Largest change of contrast, as a share.", ge=0, lt=1)
    gamma: float = option(1.6, "Largest gamma, and 1 / gamma the smallest.", ge=1, le=5)
    noise: float = option(0.0, "Largest deviation of noise that is added, as a share of the range.", ge=0, le=1)
    blur: float = option(1.0, "Largest deviation of a Gauss blur.", unit="px", ge=0, le=10)
    mixup: float = option(
        0.2, "Mean of two crops, in shares of the Beta distribution of this parameter; 0: single crops.", ge=0, le=10
    )
    average: float = option(
        0.998,
        "Weights are the mean over the steps before, each counted this factor less than the next; 0: the last.",
        ge=0,
        lt=1,
    )
    memory_gb: float = option(4.0, "Crops up to this size are kept in memory, larger ones read again.", unit="GB", ge=0)
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = option(
        "auto", "Arithmetic; `auto`: bfloat16 where the processor computes with it, else float32."
    )
    threads: int = option(2, "Threads on a CPU; their number changes the last bits of the result.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed of weights, order and augmentation; default: the workflow's.", ge=0)

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if self.backbone == "resnet18_half" and self.weights == "imagenet":
            raise ValueError("a backbone of timm where weights are imagenet: resnet18_half has none")
        return self


class Test(Options):
    """Network and test crops -> predictions, figures of merit with intervals, calibration."""

    bins: int = option(15, "Bins of confidence for the calibration error.", ge=2, le=100)
    bootstrap_samples: int = option(2000, "Resamplings of the images for the intervals.", ge=100)
    confidence: float = option(0.95, "Level of the intervals.", gt=0.5, lt=1)
    batch_size: int = option(64, "Crops at a time.", ge=1)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed of the bootstrap; default: the workflow's.", ge=0)


class Audit(Options):
    """How far features that are not of the particles get on the same split."""

    bins: int = option(32, "Bins of the grey histogram.", ge=2, le=256)
    bar_side: int = option(64, "Side to which information bars are shrunk before they are compared.", unit="px", ge=8)
    overlap: bool = option(True, "Find test images that show particles of training images.")
    confidence: float = option(0.95, "Level of the intervals.", gt=0.5, lt=1)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class Predict(Options):
    """Network and images without labels -> class, entropy and strangeness of each."""

    model: str | None = option(None, "Model to use; default: those trained here.")
    overlap: float = option(0.25, "Shared area of neighbouring tiles of an image.", ge=0, lt=0.9)
    foreign: float = option(
        0.99, "Quantile of the strangeness of validation images above which an image is called foreign.", gt=0.5, lt=1
    )
    bar_rows: int | None = option(None, "Rows of the information bar; default: found in the images.", unit="px", ge=0)
    on_bad_file: Literal["fail", "skip"] = option("skip", "What becomes of files that cannot be read.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class Explain(Options):
    """Where the network looks: Grad-CAM of right and wrong test images, and over whole images."""

    method: Literal["gradcam", "gradcam++"] = option("gradcam", "Method.")
    per_class: int = option(3, "Right, and wrong, crops of each class on the contact sheet.", ge=1, le=10)
    whole: int = option(4, "Test images of which a map is drawn over the whole.", ge=0, le=100)
    overlap: float = option(0.5, "Shared area of neighbouring tiles in those maps.", ge=0, lt=0.9)
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed of the choice; default: the workflow's.", ge=0)


class Section(TechniqueSection):
    """Composition and state of cathodes, told from SEM micrographs.

    The images of all data sets with the role `train` are split once. Networks are trained in versions: `versions` maps
    a name to those options of `train` that differ, and all are compared in MLflow; without it there is one, `model`.
    """

    simulate: Simulate = option(Simulate(), "Simulated images.")
    index: Index = option(Index(), "Table of images.")
    split: Split = option(Split(), "Split.")
    crops: Crops = option(Crops(), "Crops.")
    train: Train = option(Train(), "Network.")
    test: Test = option(Test(), "Test.")
    audit: Audit = option(Audit(), "Audit.")
    predict: Predict = option(Predict(), "Prediction.")
    explain: Explain = option(Explain(), "Explanation.")
    versions: dict[str, Train] = option(
        {}, "Networks to train, by name: the options of `train` that differ; default: one, `model`."
    )

    sample_class: ClassVar[type[Sample]] = DataSet

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Give every version the options of `train` that it does not change."""
        if isinstance(values, dict) and isinstance(values.get("versions"), dict):
            base = values.get("train") or {}
            versions = {
                name: {**base, **changed} if isinstance(changed, dict) and isinstance(base, dict) else changed or base
                for name, changed in values["versions"].items()
            }
            return {**values, "versions": versions}
        return values

    @field_validator("versions")
    @classmethod
    def _names(cls, versions: dict[str, Train]) -> dict[str, Train]:
        for name in versions:
            Sample(sample=name)
            if name == "index":
                raise ValueError("another name: 'index' is that of a table")
        return versions

    @property
    def networks(self) -> dict[str, Train]:
        """Options of every network to train, by the name of its version."""
        return dict(self.versions) or {VERSION: self.train}

    def folders(self) -> list[str]:
        """Folders of what is made from all labelled images, and of the networks."""
        return [POOLED, *self.networks]

    def check(self, samples: dict[str, DataSet]) -> None:
        """Require that all images are there, and labelled ones where networks are trained.

        Raises
        ------
        InputError
            A line for everything that is missing.
        """
        errors = []
        if self.predict.model is None and not any(one.role == "train" for one in samples.values()):
            expected = "the role 'train' for at least one, or sem.predict.model"
            errors.append(InputError(self.samples, "no data set to train a network on", expected))
        for name in sorted(set(samples) & set(self.folders())):
            errors.append(InputError(self.samples, f"a data set named '{name}'", "another name: that folder is taken"))
        for name, train in self.networks.items():
            where = f"sem.versions.{name}" if self.versions else "sem.train"
            if train.first_share and train.first_side > self.crops.side:
                expected = f"at most sem.crops.side, {self.crops.side}"
                errors.append(InputError(f"{where}.first_side", str(train.first_side), expected))
            if train.weights not in ("none", "imagenet") and not Path(train.weights).is_file():
                expected = "none, imagenet or a file"
                errors.append(InputError(f"{where}.weights: {train.weights}", "no such file", expected))
        if self.predict.model and not Path(self.predict.model).is_file():
            errors.append(InputError(f"sem.predict.model: {self.predict.model}", "no such file", "a network of ours"))
        for name, one in samples.items():
            where = f"{self.samples}: data set '{name}', images"
            if set("{}") & set(one.images):
                # Snakemake takes what stands in braces for a wildcard.
                errors.append(InputError(where, one.images, "a path without { and }"))
            if is_remote(one.images):
                errors.append(InputError(where, "an address", "a folder, a pattern or a table of this machine"))
                continue
            try:
                if not one.simulated:
                    raw_files(one.images)
            except InputError as error:
                errors.append(InputError(f"{where}: {error.where}", error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)

    def look(self, samples: dict[str, DataSet]) -> None:
        """Read the headers of all images.

        Raises
        ------
        InputError
            A line for every file that is not what it should be.
        """
        from cathodeflow.io.micrographs import micrograph_header

        errors = []
        for name, one in samples.items():
            skip = self.index.on_bad_file if one.role == "train" else self.predict.on_bad_file
            for path in [] if one.simulated or skip == "skip" else image_files(one.images):
                try:
                    micrograph_header(path)
                except InputError as error:
                    where = f"{self.samples}: data set '{name}': {error.where}"
                    errors.append(InputError(where, error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)
