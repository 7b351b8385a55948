"""Options of the FIB-SEM stages and the columns of the sample sheet."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, GetJsonSchemaHandler, ValidationError, field_validator, model_validator
from pydantic_core import CoreSchema

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem.cell_options import Cell
from cathodeflow.fibsem.error_options import CalibrateErrors, CompareProperties, Measure, PropertyFigures
from cathodeflow.fibsem.method_options import Tables
from cathodeflow.fibsem.network_options import NETWORKS, PredictGlobal, TrainGlobal, TrainIdk, TrainLocal
from cathodeflow.fibsem.predict_options import AUTO, DEVICE, THREADS, Predict
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.reading import Reading
from cathodeflow.fibsem.slice_options import Augment, Simulate, Slices, Volume
from cathodeflow.io.sources import is_remote
from cathodeflow.options import Options, as_tuples, option
from cathodeflow.samples import Sample, TechniqueSection, missing_files, source_errors
from cathodeflow.training.base_options import Device

#: Folder of the results of all volumes together.
POOLED = "pooled"
#: File names in the folder of a run that no network or method may have, and that method.
TAKEN = (AUTO, "model", "test", "figures", "slices")
#: Methods with a local model, and the global network that each is built on.
METHODS = {"matphase": "ugsm", "matphase_context": "context"}


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

    tolerance_px: float = option(
        2.0,
        "Maximum distance at which a predicted boundary matches one of the reference (boundary F1).",
        unit="px",
        ge=0,
    )
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
        "Train on all volumes with the role `train` together, with results in the folder `pooled`. "
        "Default: on each volume separately.",
    )
    networks: dict[str, TrainGlobal] = option(
        {},
        "Global networks by name, with the options that differ from `train_global`. Default: unet, ugsm, forest, "
        "context.",
    )
    methods: dict[str, LocalMethod] = option(
        {},
        "Methods with a local model, by name: the global network that each builds on, or a mapping with "
        "`network` and the options that differ from `train_idk` and `train_local`. Default: matphase and "
        "matphase_context.",
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
