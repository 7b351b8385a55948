"""Options of the stages of Bragg coherent diffraction imaging."""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from cathodeflow.bcdi.cleaning_options import Cleaning
from cathodeflow.bcdi.exchange_options import Export
from cathodeflow.bcdi.facet_options import FacetFigures, Facets
from cathodeflow.bcdi.geometry_options import GeometryOptions
from cathodeflow.bcdi.recipe import DEFAULT, parse
from cathodeflow.bcdi.scans import Scan, require_readable, sheet_errors
from cathodeflow.bcdi.series_options import ChargeSeries, Series, SeriesFigures
from cathodeflow.bcdi.trust_options import MoreStarts, Trust
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import InputFile
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection, missing_files
from cathodeflow.series import SERIES_FOLDER
from cathodeflow.training.base_options import Device, TrainingOptions

Architecture = Literal["autophasenn", "candidates", "unrolled"]
Precision = Literal["auto", "bf16-mixed", "32-true"]
Habit = Literal["polyhedron", "truncated_octahedron", "winterbottom"]
Kind = Literal["smooth", "surface", "twin", "fault", "edge", "screw", "domains"]
Regime = Literal["weak", "medium", "strong", "extreme"]
Loss = Literal["l1", "pearson", "poisson", "mix"]
#: Folder of the network in results/bcdi, so no scan may have this name.
MODEL_FOLDER = "model"
#: Threshold of the supports whose size and phases are compared, as a fraction of the maximum amplitude.
SUPPORT_THRESHOLD = 0.1


def _range(default: tuple[float, float], description: str, *, unit: str | None = None) -> tuple[float, float]:
    """Make an option of two numbers."""
    both: tuple[float, float] = option(default, description, unit=unit, min_length=2, max_length=2)
    return both


class Simulate(Options):
    """Strained crystals and their diffraction patterns, to train and to test the network.

    Choices, and numbers within a range, are drawn uniformly for each crystal; photons log-uniformly.
    """

    crystals: int = option(2000, "Number of crystals.", ge=2, le=10_000_000)
    first: int = option(
        0, "Number of the first crystal; a crystal depends on `seed` and its number, not on the others.", ge=0
    )
    size: int = option(32, "Side of the cubic volumes.", unit="px", ge=16, le=512)
    habits: tuple[Habit, ...] = option(
        ("polyhedron", "truncated_octahedron", "winterbottom"),
        "Crystal habits (shapes); `winterbottom`: a truncated octahedron on a substrate.",
        min_length=1,
    )
    kinds: tuple[Kind, ...] = option(
        ("smooth", "surface", "twin", "fault", "edge", "screw"),
        "Kinds of displacement field; edge and screw dislocations occur only in the regime `extreme`. Also `domains`: "
        "blocks of constant phase.",
        min_length=1,
    )
    regimes: tuple[Regime, ...] = option(
        ("weak", "medium", "strong", "extreme"),
        "Strain regimes, by the range of the phase: 0.1-1, 2-3, 4-6, and 2 pi to 3 pi rad.",
        min_length=1,
    )
    oversampling: tuple[float, ...] = _range(
        (2.2, 5.0), "Oversampling along the axis where it is lowest (minimum, maximum)."
    )
    aspect: float = option(1.5, "Maximum aspect ratio of the crystals.", ge=1, le=3)
    rounding: tuple[float, ...] = _range(
        (0.05, 0.4), "Radius of the edges, as a fraction of the distance of the nearest facet (minimum, maximum)."
    )
    correlation: tuple[float, ...] = _range(
        (0.25, 0.6), "Correlation length of smooth strain, as a fraction of the crystal's extent (minimum, maximum)."
    )
    photons: tuple[float, ...] = _range((1e5, 1e8), "Photons per pattern (minimum, maximum).")
    coherence: tuple[float, ...] = _range(
        (0.0, 0.4), "Standard deviation of the blur by partial coherence (minimum, maximum).", unit="px"
    )
    background: tuple[float, ...] = _range((0.0, 0.02), "Mean background counts per voxel (minimum, maximum).")
    hot_fraction: float = option(0.0, "Fraction of hot pixels, which are masked.", ge=0, le=0.25)
    stop_radius: float = option(0.0, "Radius of the beam stop on the peak; 0: no beam stop.", unit="px", ge=0)
    gap: int = option(0, "Width of a gap along the rows and of another along the columns; 0: no gaps.", unit="px", ge=0)
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)


class SimulateScan(Options):
    """Raw frames of a strained crystal with dark, whitefield, mask and geometry, for scans that are `simulated`."""

    frames: int = option(48, "Number of frames.", ge=8, le=4096)
    rows: int = option(64, "Rows of a frame.", unit="px", ge=16, le=8192)
    cols: int = option(64, "Columns of a frame.", unit="px", ge=16, le=8192)
    size_nm: float = option(400.0, "Maximum extent of the crystal along an axis of the laboratory.", unit="nm", gt=0)
    habit: Habit = option("winterbottom", "Crystal habit (shape).")
    kind: Kind = option("smooth", "Kind of displacement field.")
    regime: Regime = option("medium", "Strain regime.")
    aspect: float = option(1.5, "Maximum aspect ratio of the crystal.", ge=1, le=3)
    rounding: float = option(
        0.2, "Radius of the edges, as a fraction of the distance of the nearest facet.", ge=0, lt=1
    )
    correlation: float = option(
        0.4, "Correlation length of smooth strain, as a fraction of the crystal's extent.", gt=0
    )
    rocking_step_deg: float = option(0.012, "Rocking angle between neighbouring frames.", unit="degrees", gt=0)
    offset: tuple[float, ...] = option(
        (1.3, -4.4, 3.7),
        "Offset of the peak from the centre of the scan, as (frames, rows, columns).",
        unit="px",
        min_length=3,
        max_length=3,
    )
    photons: float = option(1e7, "Photons of the whole peak.", gt=0)
    coherence: float = option(0.3, "Standard deviation of the blur by partial coherence.", unit="px", ge=0)
    background: float = option(0.005, "Mean counts of background scattering per pixel and frame.", ge=0)
    dark: float = option(0.02, "Mean dark counts per pixel and frame.", ge=0)
    hot_fraction: float = option(
        0.0005, "Fraction of hot pixels; the fraction of dead pixels is the same.", ge=0, le=0.25
    )
    unevenness: float = option(0.05, "Relative standard deviation of the pixels' sensitivity.", ge=0)
    charge: ChargeSeries = option(ChargeSeries(), "Changes with the state of charge.")
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)


class Prepare(Cleaning):
    """Raw frames -> diffraction amplitudes: corrected, centred on the peak, binned, cut to size."""

    frames: tuple[int, ...] | None = option(
        None, "First frame to use, and the one after the last. Default: all frames.", min_length=2, max_length=2
    )
    rows: tuple[int, ...] | None = option(
        None,
        "First row to use, and the one after the last. Default: all rows.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    cols: tuple[int, ...] | None = option(
        None,
        "First column to use, and the one after the last. Default: all columns.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    region: tuple[int, ...] | None = option(
        None,
        "Region of the detector that the frames show, as (first row, end, first column, end). Default: that of the "
        "SPEC file.",
        unit="px",
        min_length=4,
        max_length=4,
    )
    invert_mask: bool = option(
        False,
        "Mask images have 0 at good pixels and any other value at bad ones, instead of the other way round. Not needed "
        "for `pixel_mask` of NeXus and `mask` of CXI files.",
    )
    dark_limit: float = option(
        10.0, "Pixels whose dark counts differ from the median by more than this are masked.", unit="counts", ge=0
    )
    threshold: float = option(0.0, "Set intensities below this number of counts to zero.", unit="counts", ge=0)
    oversampling: float = option(3.0, "Bin frames and pixels only while the oversampling stays above this ratio.", ge=2)
    bins: tuple[int, ...] | None = option(
        None,
        "Numbers of frames, rows and columns that are binned to one. Default: as far as `oversampling` allows.",
        min_length=3,
        max_length=3,
    )
    size: tuple[int, ...] | None = option(
        None,
        "Size of the volume, as (frames, rows, columns), after binning. Default: about all that was measured.",
        unit="px",
        min_length=3,
        max_length=3,
    )
    divisor: int = option(
        16, "Divisor of the default size; a network needs 2 to the power of its number of resolutions.", ge=2
    )

    @field_validator("size")
    @classmethod
    def _even_sides(cls, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if size is not None and any(side < 2 or side % 2 for side in size):
            raise ValueError("even numbers")
        return size

    @field_validator("bins")
    @classmethod
    def _at_least_one(cls, bins: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if bins is not None and min(bins) < 1:
            raise ValueError("whole numbers, at least 1")
        return bins

    @field_validator("divisor")
    @classmethod
    def _even(cls, divisor: int) -> int:
        if divisor % 2:
            raise ValueError("an even number")
        return divisor

    @field_validator("frames", "rows", "cols")
    @classmethod
    def _rising(cls, ends: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ends is not None and not 0 <= ends[0] < ends[1]:
            raise ValueError("two ascending numbers, at least 0")
        return ends


class ShrinkWrap(Options):
    """Shrink-wrap of the support, in every stage that retrieves phases."""

    shrink_every: int = option(
        10, "Iterations between two shrink-wrap updates of the support; 0 keeps the first support.", ge=0
    )
    sigma: tuple[float, ...] | None = option(
        None,
        "Standard deviation (sigma) of the shrink-wrap Gaussian at the first and last iteration, linear in between. "
        "Default: 1 and 0.5 up to a mean side of 32, 2 and 0.5 from 64 on.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    threshold: float = option(0.13, "Shrink-wrap threshold, as a fraction of the maximum amplitude.", gt=0, lt=1)

    @field_validator("sigma")
    @classmethod
    def _not_negative(cls, sigma: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if sigma is not None and min(sigma) < 0:
            raise ValueError("two numbers, at least 0")
        return sigma


_LIKELIHOOD: Any = option(
    "amplitude",
    "Data term: `amplitude` (modulus constraint) or `poisson` (maximum likelihood; better at low counts).",
)


class Phase(ShrinkWrap, MoreStarts):
    """Amplitudes -> objects, by iterative phase retrieval from several random starts."""

    renamed: ClassVar[dict[str, str]] = {"free_share": "free_fraction"}

    recipe: str = option(DEFAULT, "Recipe: algorithms (ER, HIO, RAAR, DM) with their numbers of iterations.")
    starts: int = option(5, "Number of random starts.", ge=1, le=1000)
    modes: int = option(5, "Number of best starts for the mode decomposition.", ge=1)
    beta: float | None = option(
        0.9,
        "Feedback of HIO and relaxation of RAAR and DM, where `recipe` sets none; `null` (on the command line `none`): "
        "1 minus the relative counting noise.",
        gt=0,
        le=1,
    )
    support: float = option(0.5, "First support: a centred box of this fraction of each axis.", gt=0, le=1)
    phase_limits: tuple[float, ...] | None = option(
        None,
        "Range of the object's phase; voxels outside it leave the support. Default: any phase.",
        unit="rad",
        min_length=2,
        max_length=2,
    )
    likelihood: Literal["amplitude", "poisson"] = _LIKELIHOOD
    coherence: Literal["full", "fixed", "fit"] = option(
        "full", "Partial coherence: none (`full`), a Gaussian blur of fixed width, or of a fitted width."
    )
    coherence_px: float = option(
        0.5, "Standard deviation of the coherence blur, for `coherence: fixed`.", unit="px", ge=0
    )
    free_fraction: float = option(
        0.02,
        "Fraction of pixels excluded from phasing and used to rank the starts (free log-likelihood); 0 ranks by the "
        "residual.",
        ge=0,
        le=0.5,
    )
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)

    @field_validator("recipe")
    @classmethod
    def _readable(cls, recipe: str) -> str:
        return readable(recipe)

    @field_validator("phase_limits")
    @classmethod
    def _phases(cls, limits: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if limits is not None and not -math.pi <= limits[0] < limits[1] <= math.pi:
            raise ValueError("two ascending phases between -pi and pi")
        return limits


class Augment(Options):
    """Augmentation of the training volumes; rotations of a pattern are those of its object."""

    rotate90: bool = option(
        True, "Exchange axes of equal length at random; together with `flip`: all rotations by 90 degrees."
    )
    flip: bool = option(True, "Mirror along each axis at random.")


class Train(TrainingOptions):
    """Simulated crystals -> phase-retrieval network, trained without ground truth unless `supervised` is above 0.

    As published: `architecture: autophasenn`, `loss: l1`, `threshold: [0.1, 0.1]`, `batch_size: 16`,
    `augment: {rotate90: false, flip: false}`.
    """

    renamed: ClassVar[dict[str, str]] = {
        "average": "ema_decay",
        "turns": "augment.rotate90 and augment.flip",
        "least_photons": "min_photon_fraction",
        "readers": "num_workers",
        "mean_share": "mean_fraction",
        "validation_share": "validation",
    }

    architecture: Architecture = option(
        "unrolled",
        "Network: AutoPhaseNN as published (`autophasenn`), several `candidates` per pattern, or these with `unrolled` "
        "corrections by the measured modulus.",
    )
    widths: tuple[int, ...] = option((32, 64, 128, 256), "Channels at each resolution, finest first.", min_length=2)
    candidates: int = option(4, "Candidate objects per pattern; `autophasenn` predicts one.", ge=1)
    stages: int = option(2, "Number of correction stages of `unrolled`.", ge=1)
    initial: InputFile | None = option(
        None, "Pretrained model of the same architecture to start from. Default: random weights."
    )
    loss: Loss = option(
        "mix",
        "Loss between calculated and measured amplitudes: `l1`, `pearson` (1 - correlation), `poisson` "
        "(log-likelihood) or the mean of these three (`mix`).",
    )
    supervised: float = option(
        0.0, "Weight of the supervised loss term, 1 - correlation with the true object.", ge=0, le=1
    )
    mean_fraction: float = option(
        0.05, "Weight of the mean over the candidates in the loss; the rest is that of the best candidate.", ge=0, le=1
    )
    threshold: tuple[float, ...] = _range(
        (0.07, 0.10),
        "Amplitude below which voxels are set to 0, in the first and the last epoch, linear in between; the maximum "
        "amplitude is 1.",
    )
    validation: float = option(0.1, "Fraction of the crystals used for validation.", gt=0, lt=1)
    augment: Augment = option(Augment(), "Augmentation of the training volumes.")
    min_photon_fraction: float = option(
        1.0,
        "Minimum fraction of photons that a training pattern keeps at random, as in a shorter exposure; 1 keeps all.",
        gt=0,
        le=1,
    )
    batch_size: int = option(16, "Crystals per training step.", ge=1)
    warm_up: int = option(
        1, "Warm-up of the cosine schedule: epochs in which the learning rate rises linearly to its peak.", ge=0
    )
    optimizer: Literal["adam", "adamw"] = option("adam", "Optimizer.")
    weight_decay: float = option(0.01, "Weight decay of `adamw`, of all parameters.", ge=0)
    clip_norm: float = option(1.0, "Maximum norm of the gradient.", gt=0)
    num_workers: int = option(2, "Threads that load and augment crystals.", ge=1)
    precision: Precision = option(
        "auto", "Floating-point precision; `auto` uses bfloat16 where the hardware supports it, else float32."
    )
    threads: int = option(2, "CPU threads.", ge=1)

    @field_validator("threshold")
    @classmethod
    def _below_one(cls, threshold: tuple[float, ...]) -> tuple[float, ...]:
        if not 0 <= min(threshold) <= max(threshold) < 1:
            raise ValueError("two numbers, at least 0 and below 1")
        return threshold

    @field_validator("widths")
    @classmethod
    def _some_channels(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if min(widths) < 1:
            raise ValueError("numbers of channels, at least 1")
        return widths


class Evaluate(ShrinkWrap):
    """Trained network and unseen crystals -> success rate of phasing from its prediction and from random starts."""

    crystals: int = option(96, "Number of test crystals, which are not trained on.", ge=2)
    iterations: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (10, 20, 50, 100, 200), "Numbers of iterations; each is a separate trial.", min_length=1
    )
    starts: int = option(
        1, "Random starts per trial, and candidates of the network; the one of the lowest error counts.", ge=1
    )
    beta: float | None = option(None, "Relaxation of RAAR. Default: 1 minus the relative counting noise.", gt=0, le=1)
    side: int | None = option(
        None, "Side of the central crop that the network is applied to. Default: the whole pattern.", unit="px", ge=16
    )
    success: float = option(0.95, "Correlation with the truth above which a trial is a success.", gt=0, lt=1)
    confidence: float = option(0.95, "Confidence level of the intervals.", gt=0.5, lt=1)
    precision: Precision = option("auto", "Floating-point precision of the network.")
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed of the random starts. Default: the workflow seed.", ge=0)


class Infer(Options):
    """Amplitudes -> candidate objects, predicted by a network."""

    model: InputFile | None = option(None, "Trained model. Default: the model trained in this workflow.")
    side: int | None = option(
        None, "Side of the central crop that the network is applied to. Default: the whole pattern.", unit="px", ge=16
    )
    fine_tune: int = option(
        0, "Training steps on the pattern itself before the prediction; 0 disables fine-tuning.", ge=0
    )
    learning_rate: float = option(1e-4, "Learning rate of the fine-tuning.", gt=0)
    loss: Loss = option("mix", "Loss of the fine-tuning.")
    precision: Precision = option("auto", "Floating-point precision of the network.")
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")


class Refine(ShrinkWrap):
    """Candidate objects and amplitudes -> objects after a few iterations of phase retrieval, the best first."""

    candidates: int = option(4, "Maximum number of candidates that are refined.", ge=1)
    iterations: int = option(50, "Number of iterations: RAAR, and ER for the last fifth (at most 20 iterations).", ge=1)
    recipe: str | None = option(None, "Recipe in place of `iterations`, as in `phase`.")
    beta: float | None = option(
        None,
        "Feedback of HIO and relaxation of RAAR and DM. Default: 1 minus the relative counting noise.",
        gt=0,
        le=1,
    )
    likelihood: Literal["amplitude", "poisson"] = _LIKELIHOOD
    threads: int = option(2, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")

    @field_validator("recipe")
    @classmethod
    def _readable(cls, recipe: str | None) -> str | None:
        return recipe if recipe is None else readable(recipe)


def phasing_options(options: Evaluate | Refine, **more: Any) -> Phase:
    """Options of the phase retrieval within another stage: the options that both share, and those given here.

    All pixels are phased; none is excluded to rank the starts.
    """
    shared = set(Phase.model_fields) & set(type(options).model_fields)
    return Phase(**options.model_dump(include=shared) | {"free_fraction": 0.0} | more)


class Strain(GeometryOptions):
    """Best object -> displacement and strain along the scattering vector in the laboratory frame, with statistics.

    Options of the geometry override the geometry file, which overrides the file of the motors.
    """

    renamed: ClassVar[dict[str, str]] = {"level": "../figures.isosurface"}

    threshold: float = option(
        0.2, "Isosurface level of the particle, as a fraction of the maximum amplitude.", gt=0, lt=1
    )
    voxel_nm: float | None = option(
        None, "Side of the cubic voxels. Default: that of the volume of a measured voxel.", unit="nm", gt=0
    )
    erosion: int = option(1, "Voxel layers removed from the surface before strain is computed.", unit="px", ge=1)
    shells: tuple[float, ...] = option(
        (10.0, 20.0), "Depths below the surface at which the statistics are divided.", unit="nm"
    )

    @field_validator("shells")
    @classmethod
    def _ascending(cls, shells: tuple[float, ...]) -> tuple[float, ...]:
        if any(low >= high for low, high in zip((0.0, *shells), shells, strict=False)):
            raise ValueError("ascending depths above 0")
        return shells


class Metrics(Options):
    """Objects, amplitudes and, where it is known, the truth -> figures of merit."""

    threshold: float = option(
        SUPPORT_THRESHOLD,
        "Threshold of the supports that are compared, as a fraction of the maximum amplitude.",
        gt=0,
        lt=1,
    )


class Figures(Options):
    """Figures and the 3D page of every reconstruction, and figures of the network."""

    isosurface: float = option(
        0.3, "Isosurface level of the 3D page, as a fraction of the maximum amplitude.", gt=0, lt=1
    )


class Reconstruct(Options):
    """Options of all stages from raw frames to figures, for `cathodeflow bcdi reconstruct`."""

    prepare: Prepare = option(Prepare(), "Amplitudes.")
    phase: Phase = option(Phase(), "Iterative phase retrieval.")
    infer: Infer = option(Infer(), "Prediction of the network.")
    refine: Refine = option(Refine(), "Refinement of the prediction.")
    strain: Strain = option(Strain(), "Strain.")
    trust: Trust = option(Trust(), "Probability that an object is right, and errors.")
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    figures: Figures = option(Figures(), "Figures and the 3D page.")


class Section(TechniqueSection):
    """Bragg coherent diffraction imaging: 3D shape and strain of a single particle.

    The role of a scan selects iterative phase retrieval, refinement of a network prediction, or both. If a scan needs a
    network and `infer.model` names none, one is trained on simulated crystals and tested on others.
    """

    simulate: Simulate = option(Simulate(), "Simulated crystals.")
    simulate_scan: SimulateScan = option(SimulateScan(), "Simulated scans.")
    prepare: Prepare = option(Prepare(), "Diffraction amplitudes.")
    phase: Phase = option(Phase(), "Iterative phase retrieval.")
    train: Train = option(Train(), "Training of the network.")
    evaluate: Evaluate = option(Evaluate(), "Success rate on unseen crystals.")
    infer: Infer = option(Infer(), "Prediction of the network.")
    refine: Refine = option(Refine(), "Refinement of the prediction.")
    strain: Strain = option(Strain(), "Displacement and strain.")
    trust: Trust = option(Trust(), "How far the objects can be trusted.")
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    figures: Figures = option(Figures(), "Figures and the 3D page.")
    facets: Facets = option(Facets(), "Facets, line profiles, and resolution by direction.")
    facet_figures: FacetFigures = option(FacetFigures(), "Figure of the facets.")
    export: Export = option(Export(), "Files for other programs.")
    series: Series = option(Series(), "Series of scans of one particle.")
    series_figures: SeriesFigures = option(SeriesFigures(), "Figure of a series.")

    sample_class: ClassVar[type[Sample]] = Scan

    def folders(self) -> list[str]:
        """Folders of the network and of the series."""
        return [MODEL_FOLDER, SERIES_FOLDER]

    def check(self, samples: dict[str, Scan]) -> None:
        """Require that files exist, and that options and columns are consistent.

        Raises
        ------
        InputError
            One line for each problem.
        """
        errors = []
        for name, scan in samples.items():
            where = f"{self.samples}: scan '{name}'"
            if name in self.folders():
                owner = "the network's" if name == MODEL_FOLDER else "that of the series"
                errors.append(InputError(self.samples, f"a scan named '{name}'", f"another name: it is {owner}"))
            errors += sheet_errors(where, scan)
        if self.series.reference is not None and self.series.reference not in samples:
            errors.append(InputError("bcdi.series.reference", self.series.reference, "the name of a scan"))
        files = {"bcdi.infer.model": self.infer.model, "bcdi.train.initial": self.train.initial}
        errors += missing_files(files, "a model")
        errors += missing_files({"bcdi.facets.cell.file": self.facets.cell.file}, "a CIF file")
        if self.infer.model is None and any("refine" in scan.routes for scan in samples.values()):
            stride = 2 ** len(self.train.widths)
            sides = {"simulate.size": [self.simulate.size], "prepare.size": self.prepare.size or [],
                     "prepare.divisor": [] if self.prepare.size else [self.prepare.divisor]}  # fmt: skip
            for key, values in sides.items():
                if any(side % stride for side in values):
                    expected = f"multiples of {stride}, for a network of {len(self.train.widths)} resolutions"
                    errors.append(InputError(f"bcdi.{key}", " x ".join(map(str, values)), expected))
        if errors:
            raise InputErrors.of(errors)

    def read_headers(self, samples: dict[str, Scan]) -> None:
        """Read the headers of all frames, and the scans of SPEC files.

        Raises
        ------
        InputError
            One line for each file that cannot be used.
        """
        require_readable(samples, self.samples)


def readable(recipe: str) -> str:
    """Require a valid recipe."""
    try:
        parse(recipe)
    except InputError as error:
        raise ValueError(f"{error.expected} instead of {error.found}") from None
    return recipe
