"""Options of the SEM stages and the columns of the sample sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator, model_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.image_lists import image_files, raw_files
from cathodeflow.io.sources import is_remote
from cathodeflow.options import Options, as_tuples, option
from cathodeflow.samples import Sample, TechniqueSection, dangling, missing_files
from cathodeflow.sem.image_options import Crops, Index, Simulate, Split
from cathodeflow.sem.network_options import Train
from cathodeflow.sem.particle_options import ParticleFigures, Particles
from cathodeflow.sem.use_options import Page, Reading
from cathodeflow.training.base_options import Device

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
    on_bad_file: Literal["fail", "skip"] = option(
        "skip", "What to do with unreadable files: stop the stage, or leave them out."
    )
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
    pages: bool = option(False, "Write an HTML page of the predictions for each data set with the role `predict`.")
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
