"""Options of the stages of Bragg coherent diffraction imaging."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from cathodeflow.bcdi.recipe import DEFAULT, parse
from cathodeflow.bcdi.scans import Scan, require_readable, sheet_errors
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "bf16-mixed", "32-true"]
Habit = Literal["polyhedron", "truncated_octahedron", "winterbottom"]
Kind = Literal["smooth", "surface", "twin", "fault", "edge", "screw"]
Regime = Literal["weak", "medium", "strong", "extreme"]
Likelihood = Literal["amplitude", "poisson"]
Loss = Literal["l1", "pearson", "poisson", "mix"]
#: Folder beside the scans' folders in results/bcdi, so no scan's name.
MODEL_FOLDER = "model"


def _range(default: tuple[float, float], description: str, *, unit: str | None = None) -> tuple[float, float]:
    """Make an option of two numbers."""
    both: tuple[float, float] = option(default, description, unit=unit, min_length=2, max_length=2)
    return both


class Simulate(Options):
    """Strained crystals and their diffraction, to train and to test the network on."""

    crystals: int = option(2000, "Crystals.", ge=2, le=10_000_000)
    first: int = option(0, "Number of the first one in the endless stream of a seed.", ge=0)
    size: int = option(32, "Side of the volumes.", unit="px", ge=16, le=512)
    habits: tuple[Habit, ...] = option(("polyhedron", "truncated_octahedron", "winterbottom"), "Shapes.", min_length=1)
    kinds: tuple[Kind, ...] = option(
        ("smooth", "surface", "twin", "fault", "edge", "screw"),
        "Displacements; dislocations (edge, screw) in the regime `extreme` alone.",
        min_length=1,
    )
    regimes: tuple[Regime, ...] = option(
        ("weak", "medium", "strong", "extreme"),
        "Strain: phase ranges of 0.1-1, 2-3, 4-6, and 2 pi to 3 pi rad.",
        min_length=1,
    )
    oversampling: tuple[float, ...] = _range((2.2, 5.0), "Of the axis with the least.")
    aspect: float = option(1.5, "Largest ratio of the axes.", ge=1, le=3)
    rounding: tuple[float, ...] = _range((0.05, 0.4), "Radius of edges over the distance of the nearest facet.")
    correlation: tuple[float, ...] = _range((0.25, 0.6), "Correlation length of smooth strain over the extent.")
    photons: tuple[float, ...] = _range((1e5, 1e8), "Photons of a pattern; the logarithm is drawn evenly.")
    coherence: tuple[float, ...] = _range((0.0, 0.4), "Deviation of the blur by partial coherence.", unit="px")
    background: tuple[float, ...] = _range((0.0, 0.02), "Mean counts of a voxel besides.")
    hot_fraction: float = option(0.0, "Share of hot pixels, which are masked.", ge=0, le=0.25)
    stop_radius: float = option(0.0, "Radius of the beam stop on the peak.", unit="px", ge=0)
    gap: int = option(0, "Width of a gap along the rows and of one along the columns.", unit="px", ge=0)
    seed: int | None = option(None, "Seed; default: the workflow's.", ge=0)


class SimulateScan(Options):
    """A strained crystal as raw frames with dark, whitefield, mask and geometry, for scans that are `simulated`."""

    frames: int = option(48, "Frames.", ge=8, le=4096)
    rows: int = option(64, "Rows of a frame.", unit="px", ge=16, le=8192)
    cols: int = option(64, "Columns of a frame.", unit="px", ge=16, le=8192)
    size_nm: float = option(400.0, "Largest extent of the crystal.", unit="nm", gt=0)
    habit: Habit = option("winterbottom", "Shape.")
    kind: Kind = option("smooth", "Displacement.")
    regime: Regime = option("medium", "Strain.")
    aspect: float = option(1.5, "Largest ratio of the axes.", ge=1, le=3)
    rounding: float = option(0.2, "Radius of edges over the distance of the nearest facet.", ge=0, lt=1)
    correlation: float = option(0.4, "Correlation length of smooth strain over the extent.", gt=0)
    rocking_step_deg: float = option(0.012, "Change of angle from frame to frame.", unit="degrees", gt=0)
    offset: tuple[float, ...] = option(
        (1.3, -4.4, 3.7), "Of the peak from the middle: frames, rows, columns.", unit="px", min_length=3, max_length=3
    )
    photons: float = option(1e7, "Photons of the peak.", gt=0)
    coherence: float = option(0.3, "Deviation of the blur by partial coherence.", unit="px", ge=0)
    background: float = option(0.005, "Mean counts of a pixel in a frame by scattering.", ge=0)
    dark: float = option(0.02, "Mean counts of a pixel in a frame without beam.", ge=0)
    hot_fraction: float = option(0.0005, "Share of hot pixels; as many are blind.", ge=0, le=0.25)
    unevenness: float = option(0.05, "Relative deviation of the pixels' sensitivity.", ge=0)
    seed: int | None = option(None, "Seed; default: the workflow's.", ge=0)


class Prepare(Options):
    """Raw frames -> amplitudes, corrected, centred on the peak, binned as far as their oversampling allows, cut."""

    frames: tuple[int, ...] | None = option(None, "First frame to use, and the one after the last; default: all.",
                                            min_length=2, max_length=2)  # fmt: skip
    rows: tuple[int, ...] | None = option(None, "Likewise rows.", unit="px", min_length=2, max_length=2)
    cols: tuple[int, ...] | None = option(None, "Likewise columns.", unit="px", min_length=2, max_length=2)
    region: tuple[int, ...] | None = option(
        None,
        "Part of the detector that the frames show: first row, end, first column, end; default: as the SPEC file says.",
        unit="px",
        min_length=4,
        max_length=4,
    )
    saturation: float | None = option(None, "Counts from which on a pixel is not used; default: none.", gt=0)
    dark_limit: float = option(10.0, "Dark counts above or below the median that make a pixel bad.", ge=0)
    hot_ratio: float | None = option(10.0, "Ratio to its neighbours that makes a voxel hot.", gt=1)
    threshold: float = option(0.0, "Counts below which there is but background.", ge=0)
    oversampling: float = option(3.0, "Frames or pixels are joined as long as it stays above this.", ge=2)
    size: tuple[int, ...] | None = option(
        None, "Sides of the volume: frames, rows, columns; default: about all.", unit="px", min_length=3, max_length=3
    )
    divisor: int = option(16, "Of the sides where no size is given; 2 to the resolutions of the network.", ge=2)

    @field_validator("size")
    @classmethod
    def _even(cls, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if size is not None and any(side < 2 or side % 2 for side in size):
            raise ValueError("even numbers")
        return size

    @field_validator("frames", "rows", "cols")
    @classmethod
    def _rising(cls, ends: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ends is not None and not 0 <= ends[0] < ends[1]:
            raise ValueError("two rising numbers, at least 0")
        return ends


class Phase(Options):
    """Amplitudes -> objects by iterative phasing from several random starts, and the best of them."""

    recipe: str = option(DEFAULT, "Algorithms (ER, HIO, RAAR, DM) and their iterations.")
    starts: int = option(5, "Random starts.", ge=1, le=1000)
    modes: int = option(5, "Best starts that are decomposed into modes.", ge=1)
    beta: float | None = option(
        0.9,
        "Feedback of HIO, relaxation of RAAR and DM, where `recipe` sets none; null: 1 minus the noise by counting.",
        gt=0,
        le=1,
    )
    shrink_every: int = option(10, "Iterations between two shrink-wraps of the support; 0: none.", ge=0)
    sigma: tuple[float, ...] = _range((1.0, 0.5), "Deviation of its Gauss function at first and at last.", unit="px")
    threshold: float = option(0.13, "Its share of the highest amplitude.", gt=0, lt=1)
    support: float = option(0.5, "First support: a box of this share of each axis.", gt=0, le=1)
    phase_limits: tuple[float, ...] | None = option(
        None, "Phases within which the object is; default: any.", unit="rad", min_length=2, max_length=2
    )
    likelihood: Likelihood = option("amplitude", "What the wave is held to; `poisson` pays at few counts.")
    coherence: Literal["full", "fixed", "fit"] = option(
        "full", "Whether the intensity is blurred by partial coherence."
    )
    coherence_px: float = option(0.5, "Deviation of that blur, where it is `fixed`.", unit="px", ge=0)
    free_share: float = option(
        0.02, "Share of the pixels held out to judge the starts; 0: their errors do.", ge=0, le=0.5
    )
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed; default: the workflow's.", ge=0)

    @field_validator("recipe")
    @classmethod
    def _readable(cls, recipe: str) -> str:
        return readable(recipe)


class Train(Options):
    """Amplitudes of simulated crystals -> a network that tells the object, trained on diffraction alone.

    As published: `architecture: autophasenn`, `loss: l1`, `threshold: [0.1, 0.1]`, `batch_size: 16`, `turns: false`.
    """

    architecture: Literal["autophasenn", "candidates", "unrolled"] = option(
        "unrolled", "As published; several candidates; these corrected through the measured modulus."
    )
    widths: tuple[int, ...] = option((32, 64, 128, 256), "Channels of each resolution.", min_length=2)
    candidates: int = option(4, "Objects for each pattern, of those that are ours.", ge=1)
    stages: int = option(2, "Corrections of `unrolled`.", ge=1)
    initial: str | None = option(None, "Model to begin with, of the same architecture.")
    loss: Loss = option("mix", "On the amplitudes.")
    supervised: float = option(0.0, "Share in the loss of 1 less the correlation with the true object.", ge=0, le=1)
    mean_share: float = option(0.05, "Of the candidates' mean in the loss, beside the best one.", ge=0, le=1)
    threshold: tuple[float, ...] = _range(
        (0.07, 0.10), "Amplitude below which voxels are 0, in the first and last epoch."
    )
    validation_share: float = option(0.1, "Share of the crystals to validate on.", gt=0, lt=1)
    turns: bool = option(True, "Mirror and turn at random.")
    least_photons: float = option(1.0, "Share of its photons that a pattern keeps at least, at random.", gt=0, le=1)
    epochs: int = option(100, "Epochs.", ge=1)
    batch_size: int = option(16, "Crystals in a step.", ge=1)
    learning_rate: float = option(1e-3, "Learning rate at its highest.", gt=0)
    optimizer: Literal["adam", "adamw"] = option("adam", "Optimizer.")
    weight_decay: float = option(0.01, "Of adamw.", ge=0)
    schedule: Literal["constant", "cosine", "cyclic"] = option("cosine", "Of the learning rate.")
    clip_norm: float = option(1.0, "Largest norm of a gradient.", gt=0)
    average: float = option(
        0.0, "Weights are the mean over the steps before, counted this factor less each.", ge=0, lt=1
    )
    patience: int | None = option(None, "Epochs without a better validation after which training ends.", ge=1)
    readers: int = option(2, "Threads that read crystals.", ge=1)
    precision: Precision = option("auto", "Arithmetic; `auto`: bfloat16 where it pays.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed; default: the workflow's.", ge=0)


class Evaluate(Options):
    """A trained network and unseen crystals -> success of phasing from its image, and from random starts."""

    crystals: int = option(96, "Crystals that were not trained on.", ge=2)
    iterations: tuple[Annotated[int, Field(ge=1)], ...] = option(
        (10, 20, 50, 100, 200), "Numbers of iterations, each tried anew.", min_length=1
    )
    starts: int = option(1, "Random starts, and candidates of the network, the best of which counts.", ge=1)
    beta: float | None = option(None, "Relaxation of RAAR; default: 1 minus the noise by counting.", gt=0, le=1)
    shrink_every: int = option(10, "Iterations between two shrink-wraps.", ge=0)
    sigma: tuple[float, ...] = _range((1.0, 0.5), "Deviation of their Gauss function at first and at last.", unit="px")
    threshold: float = option(0.13, "Their share of the highest amplitude.", gt=0, lt=1)
    side: int | None = option(
        None, "Side of the middle of a pattern that the network sees; default: all of it.", unit="px", ge=16
    )
    success: float = option(0.95, "Correlation with the truth above which it is a success.", gt=0, lt=1)
    confidence: float = option(0.95, "Level of the intervals.", gt=0.5, lt=1)
    precision: Precision = option("auto", "Arithmetic of the network.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed of the random starts; default: the workflow's.", ge=0)


class Infer(Options):
    """A network and amplitudes -> candidate objects."""

    model: str | None = option(None, "Model to use; default: the one trained here.")
    side: int | None = option(
        None, "Side of the middle of a pattern that the network sees; default: all of it.", unit="px", ge=16
    )
    fine_tune: int = option(0, "Steps in which the network is first trained on this one pattern.", ge=0)
    learning_rate: float = option(1e-4, "Of these steps.", gt=0)
    loss: Loss = option("mix", "Of these steps.")
    precision: Precision = option("auto", "Arithmetic.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")


class Refine(Options):
    """Candidate objects and amplitudes -> objects after a few iterations of phasing, the best first."""

    candidates: int = option(4, "Most candidates that are refined.", ge=1)
    iterations: int = option(50, "Iterations: RAAR, and the last fifth, at most 20, ER.", ge=1)
    recipe: str | None = option(None, "In their place, a recipe as of `phase`.")
    beta: float | None = option(
        None, "Feedback of HIO, relaxation of RAAR and DM; default: 1 minus the noise by counting.", gt=0, le=1
    )
    shrink_every: int = option(10, "Iterations between two shrink-wraps of the support; 0: none.", ge=0)
    sigma: tuple[float, ...] = _range((1.0, 0.5), "Deviation of their Gauss function at first and at last.", unit="px")
    threshold: float = option(0.13, "Their share of the highest amplitude.", gt=0, lt=1)
    likelihood: Likelihood = option("amplitude", "What the wave is held to; `poisson` pays at few counts.")
    threads: int = option(2, "Threads on a CPU.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")

    @field_validator("recipe")
    @classmethod
    def _readable(cls, recipe: str | None) -> str | None:
        return recipe if recipe is None else readable(recipe)


class Strain(Options):
    """Best object -> displacement and strain along the scattering vector, in the laboratory, with statistics.

    The options of the geometry go before what the SPEC file or the file of the geometry says.
    """

    energy_kev: float | None = option(None, "Energy of the photons.", unit="keV", gt=0)
    distance_m: float | None = option(None, "From the sample to the detector.", unit="m", gt=0)
    pixel_um: float | None = option(None, "Side of a pixel; with a SPEC file 55 by default.", unit="um", gt=0)
    delta_deg: float | None = option(None, "Angle of the detector's arm outboard.", unit="degrees")
    gamma_deg: float | None = option(None, "Angle of the detector's arm up.", unit="degrees")
    theta_deg: float | None = option(None, "Angle of the sample about the vertical, outermost.", unit="degrees")
    chi_deg: float | None = option(None, "Angle of the sample about the beam.", unit="degrees")
    phi_deg: float | None = option(None, "Angle of the sample, innermost.", unit="degrees")
    rocking_axis: Literal["theta", "chi", "phi"] | None = option(None, "Angle that is scanned.")
    rocking_step_deg: float | None = option(None, "Its change from frame to frame.", unit="degrees")
    row_direction: Literal["down", "up"] | None = option(None, "Where rows count to; default: down.")
    col_direction: Literal["outboard", "inboard"] | None = option(None, "Where columns count to; default: outboard.")
    renamed: ClassVar[dict[str, str]] = {"level": "../figures.isosurface"}

    threshold: float = option(
        0.2, "Share of the highest amplitude from which on a voxel is the particle's.", gt=0, lt=1
    )
    voxel_nm: float | None = option(None, "Side of a voxel; default: that of the measurement.", unit="nm", gt=0)
    erosion: int = option(1, "Layers of voxels at the surface without strain.", unit="px", ge=1)
    shells: tuple[float, ...] = option((10.0, 20.0), "Depths at which statistics are divided.", unit="nm")


class Metrics(Options):
    """Objects, amplitudes and, where there is one, the truth -> figures of merit."""

    threshold: float = option(0.1, "Share of the highest amplitude of supports that are compared.", gt=0, lt=1)


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
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    figures: Figures = option(Figures(), "Figures and the 3D page.")


class Section(TechniqueSection):
    """3D image and strain of one particle from coherent diffraction (phase retrieval, AutoPhaseNN).

    Every scan goes the ways that its role says. A network is trained on simulated crystals, and tested on others, where
    a scan needs one and `infer.model` names none.
    """

    simulate: Simulate = option(Simulate(), "Simulated crystals.")
    simulate_scan: SimulateScan = option(SimulateScan(), "Simulated scans.")
    prepare: Prepare = option(Prepare(), "Amplitudes.")
    phase: Phase = option(Phase(), "Iterative phasing.")
    train: Train = option(Train(), "Network.")
    evaluate: Evaluate = option(Evaluate(), "Success on unseen crystals.")
    infer: Infer = option(Infer(), "Image by the network.")
    refine: Refine = option(Refine(), "Its refinement.")
    strain: Strain = option(Strain(), "Strain.")
    metrics: Metrics = option(Metrics(), "Figures of merit.")
    figures: Figures = option(Figures(), "Figures and the 3D page.")

    sample_class: ClassVar[type[Sample]] = Scan

    def folders(self) -> list[str]:
        """Folder of the network."""
        return [MODEL_FOLDER]

    def check(self, samples: dict[str, Scan]) -> None:
        """Require that files are there, and that options and columns fit each other.

        Raises
        ------
        InputError
            A line for everything that is wrong.
        """
        errors = []
        for name, scan in samples.items():
            where = f"{self.samples}: scan '{name}'"
            if name == MODEL_FOLDER:
                errors.append(InputError(self.samples, f"a scan named '{name}'", "another name: it is the network's"))
            errors += sheet_errors(where, scan)
        for key, path in (("infer.model", self.infer.model), ("train.initial", self.train.initial)):
            if path is not None and not Path(path).is_file():
                errors.append(InputError(f"bcdi.{key}: {path}", "no such file", "a model"))
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

    def look(self, samples: dict[str, Scan]) -> None:
        """Read the headers of all frames, and the scans of SPEC files.

        Raises
        ------
        InputError
            A line for everything that is not what it should be.
        """
        require_readable(samples, self.samples)


def readable(recipe: str) -> str:
    """Require a recipe that can be read."""
    try:
        parse(recipe)
    except InputError as error:
        raise ValueError(f"{error.expected} instead of {error.found}") from None
    return recipe
