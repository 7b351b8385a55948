"""Options of the Bragg stages and the columns of the sample sheet."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cathodeflow.bragg.cell_options import Cell
from cathodeflow.bragg.grain_options import GrainFigures, Grains
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.file_arguments import InputFile
from cathodeflow.io.sources import is_remote, list_files, split_source
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection, missing_files, source_errors
from cathodeflow.training.base_options import Device, Precision, TrainingOptions

Width = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
SIMULATED = "simulated"
#: Folders of the network and of the series in results/bragg, so no scan may have these names.
MODEL_FOLDER, SERIES_FOLDER = "model", "series"

#: Suffix of the file of each format of `Export`, after `peaks` or `spots`.
EXPORT_SUFFIXES = {"imaged11": ".flt", "imaged11-hdf5": ".flt.h5", "hexrd": ".hexrd.out", "nexus": ".nxs"}


def odd(size: int) -> int:
    """Require a patch size with a central pixel."""
    if size % 2 == 0:
        raise ValueError("an odd number")
    return size


def require_apart(sources: Mapping[str, str | None]) -> None:
    """Require that no dark image, flat field or mask is among the frames, as with a pattern such as `*.tif`.

    A dataset of its own in an HDF5 file of frames is no such file.

    Raises
    ------
    InputError
        Naming the file.
    """
    found = {}
    for name, source in sources.items():
        try:
            found[name] = [os.path.realpath(path) for path in list_files(source)] if source else []
        except InputError:
            continue  # said elsewhere
    datasets = {name: split_source(source)[1] for name, source in sources.items() if source}
    for name in ("dark", "flat", "mask"):
        if datasets.get(name) is not None and _absolute(datasets[name]) != _absolute(datasets.get("frames")):
            continue
        if both := sorted(set(found.get(name, ())) & set(found.get("frames", ()))):
            expected = "frames without it, such as frame_*.tif"
            raise InputError(f"frames: {sources['frames']}", f"the {name} {both[0]} among the frames", expected)


def _absolute(dataset: str | None) -> str:
    return "/" + (dataset or "").strip("/")


class Scan(Sample):
    """A scan: the detector frames taken at one state of charge."""

    role: Literal["train", "measure", "fit"] = option(
        "measure",
        "`train`: the peaks of this scan are also used to train the network; `measure`: they are not; `fit`: peaks are "
        "only fitted, without the network.",
    )
    frames: str = option(
        ...,
        "Raw frames: a file, a folder or a glob pattern, for HDF5 with `::/path/of/the/dataset`; "
        "`simulated`: the workflow simulates them (`bragg.simulate`).",
    )
    dark: str | None = option(
        None, "Dark image, or a series of dark images, whose mean is subtracted from every frame. Default: none."
    )
    mask: str | None = option(
        None, "Mask image: 0 at good pixels, any other value at bad pixels and gaps. Default: none."
    )
    flat: str | None = option(
        None,
        "Flat field, dark subtracted, or a series of them: frames are divided by its mean, scaled to a median of 1. "
        "Default: none.",
    )
    start: int | None = option(None, "Index of the first frame. Default: that of `bragg.frames`.", ge=0)
    stop: int | None = option(None, "Index of the frame to stop before. Default: that of `bragg.frames`.", ge=1)
    step: int | None = option(None, "Step between the frames that are used. Default: that of `bragg.frames`.", ge=1)
    omega: str | None = option(
        None,
        "Orientation angle of the sample for each raw frame: a table (CSV, TSV, Parquet) with the column `omega` "
        "[deg], and `energy_kev` if the energy changes; `FILE.h5::/DATASET`; or `FILE::NUMBER`, a scan of a SPEC file. "
        "Default: that in the raw files, if they have it; simulated scans have a table.",
    )
    energy_kev: float | None = option(
        None, "Photon energy. Default: that in the raw files or the geometry file.", unit="keV", gt=0
    )
    geometry: str | None = option(
        None,
        "Geometry of the detector: a PONI file (pyFAI), an instrument of hexrd (YAML), or a NeXus file. Default: none, "
        "no angles are computed; simulated scans have their own.",
    )
    state_of_charge: float | None = option(
        None, "State of charge of the cell, 0 (discharged) to 1 (charged).", ge=0, le=1
    )
    time: float | None = option(
        None, "Time of the scan, in the unit of the table of the cycler (`bragg.lattice.cycler`)."
    )

    grains: bool = option(
        False,
        "Index the grains of this scan (`bragg.grains`): the sample was rotated, with the angle of every frame and a "
        "geometry.",
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.start is not None and self.stop is not None and self.stop <= self.start:
            raise ValueError("start below stop")
        if self.grains and not self.simulated and self.geometry is None:
            raise ValueError("a geometry, if grains is set")
        return self

    @property
    def simulated(self) -> bool:
        """Whether the workflow simulates the raw frames."""
        return self.frames == SIMULATED


class Simulate(Options):
    """Simulated raw frames with known peak positions, for scans whose `frames` are `simulated`."""

    format: Literal["tiff", "hdf5"] = option("tiff", "File format: one TIFF file per frame, or one NeXus (HDF5) file.")
    n_frames: int = option(48, "Number of frames in a rocking scan.", ge=1, le=100_000)
    rows: int = option(256, "Number of detector rows.", unit="px", ge=64, le=4096)
    cols: int = option(256, "Number of detector columns.", unit="px", ge=64, le=4096)
    n_peaks: int = option(500, "Number of particles that diffract during the scan.", ge=1)
    amplitude_min: float = option(30.0, "Amplitude of the weakest peaks, at their maximum.", unit="counts", gt=0)
    amplitude_max: float = option(5000.0, "Amplitude of the strongest peaks, at their maximum.", unit="counts", gt=0)
    background: float = option(8.0, "Level of the smooth diffuse background.", unit="counts", ge=0)
    ring: float = option(4.0, "Height of the powder rings above the background.", unit="counts", ge=0)
    dark: float = option(20.0, "Dark level of the detector.", unit="counts", ge=0)
    bad_fraction: float = option(0.001, "Fraction of pixels that are hot or dead.", ge=0, lt=0.5)
    gap: int = option(0, "Width of the gap between two detector modules. 0: no gap.", unit="px", ge=0)
    seed: int | None = option(
        None, "Random seed of the particles, the detector and the noise. Default: the workflow's seed.", ge=0
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.amplitude_min >= self.amplitude_max:
            raise ValueError("amplitude_min below amplitude_max")
        if self.gap >= self.cols:
            raise ValueError("a gap narrower than the detector's columns")
        return self


class Frames(Options):
    """Raw frames -> corrected and binned frames in frames.h5."""

    binning: Literal[1, 2, 4] = option(1, "Binning: side of the blocks of pixels that are summed.", unit="px")
    start: int = option(0, "Index of the first frame.", ge=0)
    stop: int | None = option(None, "Index of the frame to stop before. Default: all frames to the end.", ge=1)
    step: int = option(1, "Step between the frames that are used; 2 uses every second frame.", ge=1)
    gap_value: tuple[int, ...] | None = option(
        None,
        "Further values that mark gaps and other pixels without a count, such as [0]. Always masked: values that the "
        "file names, -1 and -2, and the two highest values of unsigned integers of 16 bits or more.",
    )
    allow_negative: bool = option(
        False,
        "Accept negative counts, -1 and -2 included: noise, if a dark image was subtracted before storage.",
    )
    invert_mask: bool = option(
        False, "Mask images have 0 at bad pixels and any other value at good ones, instead of the other way round."
    )
    stored_mask: bool = option(
        True,
        "Mask the bad pixels that a NeXus or CXI file marks itself (`pixel_mask`), in addition to those of `mask`.",
    )
    saturation: float | None = option(
        None,
        "Saturation level: pixels at or above it are masked. Default: above the highest valid count that the file "
        "names, else the maximum of an integer data type.",
        unit="counts",
        gt=0,
    )
    max_saturated: float = option(
        0.01,
        "Maximum fraction of saturated and other invalid pixels, apart from those that are invalid in all frames; "
        "frames with more are rejected.",
        ge=0,
        le=1,
    )
    compression: Literal["bitshuffle-lz4", "gzip", "none"] = option(
        "bitshuffle-lz4",
        "Compression of frames.h5. `bitshuffle-lz4`: fast, as BraggNN has it; programs need the HDF5 plugin (Python: "
        "`import hdf5plugin`). `gzip`: slower, but every HDF5 program reads it.",
    )
    omega_name: str | None = option(
        None,
        "Name of the sample's orientation angle in the raw files or in the table `omega` of the sample sheet. Default: "
        "`omega`, `Start_angle` in CBF files.",
    )
    on_bad_file: Literal["fail", "skip"] = option(
        "fail", "What to do with unusable files and frames: stop with an error, or leave them out with a warning."
    )

    @field_validator("gap_value", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError("start below stop")
        return self


class FindPeaks(Options):
    """Frames -> candidate peaks, found by persistent homology."""

    engine: Literal["union_find", "findpeaks"] = option(
        "union_find",
        "`union_find`: our implementation; `findpeaks`: the package of that name (same peaks, much slower).",
    )
    scale: Literal["none", "uint8"] = option(
        "none", "`uint8` rescales each frame to 0..255 before the search, as findpeaks does; `none` keeps the counts."
    )
    min_value: float = option(20.0, "Ignore pixels at or below this intensity.", unit="counts", ge=0)
    min_persistence: float = option(
        15.0,
        "Minimum persistence: height of a peak above the saddle that joins it to a higher one. Increase it if noise is "
        "found as peaks.",
        unit="counts",
        ge=0,
    )
    min_area: int = option(
        2, "Minimum area of a connected component (pixels above `min_value`) that contains peaks.", unit="px", ge=1
    )
    patch_size: int = option(
        11, "Side of the patch around a peak in which it must be the brightest to be central.", unit="px", ge=1, le=101
    )
    centre_tolerance: int = option(
        2,
        "Maximum offset, in rows and columns, between the patch centre and its brightest pixel for a central peak.",
        unit="px",
        ge=0,
    )

    _odd = field_validator("patch_size")(odd)


class Fit(Options):
    """Candidates -> fitted peaks in peaks.h5, by Poisson maximum likelihood."""

    model: Literal["pseudo_voigt", "gaussian"] = option("pseudo_voigt", "Peak profile.")
    rotation: Literal["none", "auto"] = option(
        "none",
        "Orientation of elliptical peaks: `none`, axes along rows and columns; `auto`, turned ellipses where these do "
        "not explain the counts. Use `auto` if many single peaks are flagged as blended; pairs closer than 2.5 px may "
        "then pass for one peak.",
    )
    patch_size: int = option(11, "Side of the patch that is fitted around each peak.", unit="px", ge=3, le=101)
    neighbours: Literal["subtract", "mask"] = option(
        "subtract",
        "Overlapping peaks: `subtract` includes the fitted neighbours in the model; `mask` leaves their pixels out.",
    )
    threshold: float = option(
        0.0,
        "Threshold that was applied to the frames before storage; pixels below it enter the fit as censored, not as "
        "zero. 0: none was applied.",
        unit="counts",
        ge=0,
    )
    gain: float = option(1.0, "Detector gain, in counts per photon.", unit="counts", gt=0)
    read_noise: float = option(
        0.0,
        "Standard deviation (sigma) of the read-out noise of a detector pixel; binning adds the variances.",
        unit="counts",
        ge=0,
    )
    dark_noise: Literal["none", "poisson"] = option(
        "none",
        "Noise of the dark image that was subtracted: `none`, if it is a constant offset; `poisson`, if it is counted "
        "like the photons (dark current, scattering).",
    )
    max_chi2: float = option(
        3.0, "Maximum reduced chi-square of a good peak; above it, its profile is not that of the model.", gt=1
    )
    max_iterations: int = option(100, "Maximum number of iterations per fit.", ge=1)

    _odd = field_validator("patch_size")(odd)


class Measure(Options):
    """Options of all stages from raw frames to fitted peaks, for `cathodeflow bragg measure`."""

    frames: Frames = option(Frames(), "Correction of raw frames.")
    find_peaks: FindPeaks = option(FindPeaks(), "Peak search.")
    fit: Fit = option(Fit(), "Peak fits.")


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
        30, "Early stopping: epochs without improvement on the validation set. none: training runs all epochs.", ge=1
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


class Geometry(Options):
    """Peaks -> scattering angles, scattering vectors and lattice spacings, where the sheet names a geometry."""

    detector: str | None = option(
        None,
        "Name of the detector in the geometry file. `all`: the panels of a hexrd instrument that together make the "
        "frame, each with its `roi`. Default: the only detector that the file describes.",
    )


class Spots(Options):
    """Fitted peaks of neighbouring frames -> spots of a rocking scan, in row, column and angle of the sample."""

    max_distance: float = option(
        1.5,
        "Maximum distance between the peaks of a spot in neighbouring frames, in pixels of frames.h5.",
        unit="px",
        gt=0,
    )
    max_gap: int = option(1, "Maximum number of successive frames without a peak inside a spot.", ge=0, le=10)
    max_dip: float = option(
        0.5,
        "Two rocking curves that follow each other at one place are separated where the amplitude falls below this "
        "fraction of the lower of both maxima.",
        ge=0,
        lt=1,
    )
    min_frames: int = option(1, "Minimum number of frames in which a spot has a peak.", ge=1)


class Tracks(Options):
    """Spots of all scans of a series -> tracks of particles over the states of charge."""

    max_strain: float = option(
        0.06, "Maximum relative change of the lattice spacing of a particle between two states.", gt=0, le=0.5
    )
    max_azimuth: float = option(
        0.5, "Maximum change of the azimuth of a spot between two states, beyond its errors.", unit="deg", gt=0
    )
    max_angle: float = option(
        0.5,
        "Maximum change of the angle of the sample at which a particle diffracts, beyond its errors; in frames if the "
        "angles are not known.",
        unit="deg",
        gt=0,
    )
    max_gap: int = option(1, "Maximum number of successive states in which a particle is missed.", ge=0, le=10)
    ring_width: float = option(
        0.01,
        "Smoothing of the distribution of the lattice spacings in which rings are found, relative to the spacing. "
        "Decrease it if reflections are closer than about three times this.",
        gt=0,
        le=0.1,
    )


class Cycler(Options):
    """Table of the battery cycler, for the voltage of every scan."""

    file: InputFile | None = option(
        None, "Table of the cycler (CSV, TSV, Excel or Parquet). Default: none, the figures have no voltage."
    )
    time: str = option("time", "Name of its column of the time, in the unit of the column `time` of the sample sheet.")
    voltage: str = option("voltage", "Name of its column of the voltage [V].")
    charge: str = option(
        "charge",
        "Name of its column of the charge or capacity. Scans without a `time` in the sample sheet are joined by it.",
    )
    capacity: float | None = option(
        None,
        "Charge at a state of charge of 1, in the unit of the column of the charge. Default: that column is the state "
        "of charge, 0 to 1.",
        gt=0,
    )


class Lattice(Options):
    """Tracks -> lattice parameters and strain of every particle, and their distribution in every state."""

    cell: Cell = option(Cell(), "Unit cell.")
    cycler: Cycler = option(Cycler(), "Table of the cycler.")
    reference: str | None = option(
        None,
        "Name of the scan that strain refers to. Default: for each track, its first scan in the order of charge.",
    )
    cell_error: float = option(
        0.005, "Relative standard error of the given lattice parameters, in the reference state.", gt=0, le=0.05
    )
    particle_spread: float = option(
        0.01,
        "Standard deviation of the relative differences of d between particles, at the beginning; later it is "
        "estimated. Increase it if many tracks are unexplained.",
        gt=0,
        le=0.1,
    )
    min_probability: float = option(
        0.99, "Minimum probability of an hkl to be assigned; tracks below it are ambiguous.", gt=0.5, lt=1
    )
    spacing: Literal["relative", "absolute"] = option(
        "relative",
        "Spacing that gives a and c of a particle: `relative` takes the population's in the reference state times "
        "(1 + strain), so that its position along the beam does not count; `absolute` takes its own d.",
    )
    min_weight: float = option(
        0.3,
        "Minimum weight of a lattice parameter in d (d ln d / d ln c) for a reflection to give that parameter.",
        gt=0,
        le=1,
    )
    bootstrap: int = option(1000, "Number of bootstrap samples of the intervals.", ge=100, le=100_000)
    seed: int | None = option(None, "Random seed of the bootstrap. Default: the workflow's seed.", ge=0)


class Study(Options):
    """Frames -> peaks found, missed and false, and their position error, for combinations of search settings."""

    binning: tuple[Literal[1, 2, 4], ...] = option((1, 2, 4), "Values of `frames.binning` to compare.", min_length=1)
    min_value: tuple[NotNegative, ...] = option(
        (10.0, 20.0, 40.0, 80.0), "Values of `find_peaks.min_value` to compare.", unit="counts", min_length=1
    )
    min_persistence: tuple[NotNegative, ...] = option(
        (8.0, 15.0, 30.0, 60.0),
        "Values of `find_peaks.min_persistence` to compare.",
        unit="counts",
        min_length=1,
    )
    n_frames: int = option(8, "Maximum number of frames of each scan, evenly spaced over it.", ge=1)
    min_amplitude: float = option(
        30.0,
        "Minimum amplitude of the known peaks: of the true peaks of a simulated scan, or of the injected ones.",
        unit="counts",
        gt=0,
    )
    max_distance: float = option(
        3.0, "Matching radius between found and known peaks, in detector pixels.", unit="px", gt=0
    )
    inject_fraction: float = option(
        0.2, "Number of injected peaks in a frame, as a fraction of the peaks that are found in it.", gt=0, le=1
    )
    repeats: int = option(1, "Number of times that peaks are injected into each frame, at other places.", ge=1, le=100)
    gain: float = option(1.0, "Detector gain, in counts per photon.", unit="counts", gt=0)
    read_noise: float = option(
        0.0, "Standard deviation (sigma) of the read-out noise of a detector pixel.", unit="counts", ge=0
    )
    seed: int | None = option(None, "Random seed of the injected peaks. Default: the workflow's seed.", ge=0)

    @field_validator("binning", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        # The command line gives texts, of which pydantic makes numbers, but no choices.
        if isinstance(value, list | tuple):
            return tuple(int(item) if item in ("1", "2", "4") else item for item in value)
        return value


class Export(Options):
    """Peaks or spots -> files for other programs."""

    formats: tuple[Literal["imaged11", "imaged11-hdf5", "hexrd", "nexus"], ...] = option(
        (),
        "Formats: `imaged11` (columnfile .flt of ImageD11), `imaged11-hdf5` (the same as HDF5), `hexrd` (table of "
        "spots of hexrd, needs a geometry), `nexus` (NXdata in HDF5). Default: none, the workflow exports nothing.",
    )
    only_good: bool = option(True, "Leave out peaks and spots with a flag or without a fit.")


class Figures(Options):
    """Tables and records -> figures of every scan and of the training."""

    patch_size: int = option(11, "Side of the patches that are shown.", unit="px", ge=3, le=101)

    _odd = field_validator("patch_size")(odd)


class SeriesFigures(Options):
    """Tracks of a series -> figures."""

    min_states: int = option(2, "Minimum number of states of charge of the tracks that are drawn.", ge=1)


class Watch(Options):
    """Options of `cathodeflow bragg watch`, with those of the stages that it takes the place of."""

    interval: float = option(
        0.25,
        "Time between two looks at the folder or file. A file that did not change for this time is complete; increase "
        "it if the detector pauses for longer while it writes a file.",
        unit="s",
        ge=0.05,
        le=60,
    )
    expected: int | None = option(
        None, "Number of raw frames of the scan: the command ends when they are there. Default: it goes on.", ge=1
    )
    idle: float | None = option(
        None, "The command ends when no new frame has come for this time. Default: it goes on.", unit="s", gt=0
    )
    host: str = option(
        "127.0.0.1", "Address on which the live page is served. The default can only be reached from this computer."
    )
    port: int | None = option(8765, "Port of the live page. 0: any free port; none: no live page.", ge=0, le=65535)
    reference_frames: int = option(
        10, "Number of first frames that the strain of later ones refers to, if no reference is given.", ge=1
    )
    ring_gap: float = option(
        0.004, "Minimum distance in q between peaks of different powder rings, as a fraction of q.", gt=0, lt=0.5
    )
    min_spots: int = option(5, "Minimum number of spots of a powder ring in the reference.", ge=2)
    frames: Frames = option(Frames(), "Correction of raw frames.")
    find_peaks: FindPeaks = option(FindPeaks(), "Peak search.")
    fit: Fit = option(Fit(), "Peak fits.")
    geometry: Geometry = option(Geometry(), "Geometry of the detector.")


class Movie(Options):
    """Frames and peaks of the series -> movie in the order of charge (MP4 and GIF)."""

    frames_per_scan: int = option(
        40, "Maximum number of frames of each scan, evenly spaced over it; each is one picture of the movie.", ge=1
    )
    fps: int = option(10, "Pictures per second.", ge=1, le=60)
    height: int = option(
        720, "Height of the pictures, an even number; they are 16 : 9.", unit="px", ge=240, le=2160, multiple_of=2
    )
    min_counts: float | None = option(
        None, "Lower end of the logarithmic colour scale. Default: from the frames.", unit="counts", gt=0
    )
    max_counts: float | None = option(
        None, "Upper end of the logarithmic colour scale. Default: from the frames.", unit="counts", gt=0
    )
    colour_map: Literal["gray", "magma", "inferno", "viridis", "cividis"] = option(
        "gray", "Colour map of the intensity; `gray` leaves colour to the tracks."
    )
    max_distance: float = option(
        3.0, "Maximum distance between a peak and the spot whose track gives its colour.", unit="px", gt=0
    )
    gif: bool = option(True, "Write a GIF of smaller pictures beside the MP4 file.")
    gif_width: int = option(640, "Width of the pictures of the GIF.", unit="px", ge=120, le=1920)
    gif_frames: int = option(60, "Maximum number of pictures of the GIF, evenly spaced over the movie.", ge=1, le=500)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_counts is not None and self.max_counts is not None and self.min_counts >= self.max_counts:
            raise ValueError("min_counts below max_counts")
        return self


class Section(TechniqueSection):
    """Bragg peaks on X-ray detector frames, located with subpixel accuracy."""

    simulate: Simulate = option(Simulate(), "Simulation of raw frames.")
    frames: Frames = option(Frames(), "Correction of raw frames.")
    find_peaks: FindPeaks = option(FindPeaks(), "Peak search.")
    fit: Fit = option(Fit(), "Peak fits.")
    patches: Patches = option(Patches(), "Training patches.")
    train: Train = option(Train(), "Training of the network.")
    locate: Locate = option(Locate(), "Peak positions by the network.")
    compare: Compare = option(Compare(), "Comparison of network, fit and truth.")
    geometry: Geometry = option(Geometry(), "Scattering angles and lattice spacings.")
    spots: Spots = option(Spots(), "Spots of the rocking scan.")
    tracks: Tracks = option(Tracks(), "Tracks of particles over the states of charge.")
    lattice: Lattice = option(Lattice(), "Lattice parameters and strain of particles.")
    grains: Grains = option(Grains(), "Grains of a rotation scan.")
    study: Study = option(Study(), "Comparison of search settings.")
    export: Export = option(Export(), "Files for other programs.")
    figures: Figures = option(Figures(), "Figures.")
    grain_figures: GrainFigures = option(GrainFigures(), "Figure of the grains.")
    series_figures: SeriesFigures = option(SeriesFigures(), "Figures of the series.")
    one_pass: bool = option(
        True,
        "Measure scans with the role `fit` by one job each, from raw frames to fitted peaks, in less than half of the "
        "time of one job each for frames, search and fits. The results are the same; after a change of an option of "
        "any of them, all is done again.",
    )
    movie: Movie = option(Movie(), "Movie of the series.")

    sample_class: ClassVar[type[Sample]] = Scan

    def folders(self) -> list[str]:
        """Folders of the network and of the series."""
        return [MODEL_FOLDER, SERIES_FOLDER]

    def check(self, samples: dict[str, Scan]) -> None:
        """Require that the raw files of every scan exist, and that there is a training scan if a network is trained.

        Raises
        ------
        InputError
            One line for each missing file or scan.
        """
        errors = []
        if self.locate.model is None and any(scan.role != "fit" for scan in samples.values()):
            if not any(scan.role == "train" for scan in samples.values()):
                expected = "the role 'train' for at least one, 'fit' for all, or bragg.locate.model"
                errors.append(InputError(self.samples, "no scan to train the network on", expected))
            if self.patches.patch_size != self.locate.patch_size:
                found = f"{self.locate.patch_size} in locate and {self.patches.patch_size} in patches"
                errors.append(InputError("bragg: patch_size", found, "the same"))
            if self.train.max_shift > self.patches.max_shift:
                found = f"{self.train.max_shift} in train and {self.patches.max_shift} in patches"
                errors.append(InputError("bragg: max_shift", found, "at most the margin of the patches"))
        files = {"bragg.locate.model": self.locate.model, "bragg.train.initial": self.train.initial}
        errors += missing_files(files, "a model file or weights of BraggNN")
        errors += missing_files({"bragg.lattice.cell.file": self.lattice.cell.file}, "a CIF file")
        errors += missing_files({"bragg.lattice.cycler.file": self.lattice.cycler.file}, "a table of the cycler")
        named = self.lattice.reference
        if named is not None and named not in [
            name for name, scan in samples.items() if scan.state_of_charge is not None
        ]:
            expected = "the name of a scan with a state of charge"
            errors.append(InputError("bragg.lattice.reference", named, expected))
        for name, scan in samples.items():
            where = f"{self.samples}: scan '{name}'"
            if "hexrd" in self.export.formats and not (scan.geometry or scan.simulated):
                errors.append(InputError(where, "no geometry", "one, for the format hexrd of bragg.export.formats"))
            if name in self.folders():
                owner = {MODEL_FOLDER: "the network's", SERIES_FOLDER: "that of the series"}[name]
                errors.append(InputError(self.samples, f"a scan named '{name}'", f"another name: it is {owner}"))
            sources = {"frames": None if scan.simulated else scan.frames}
            sources |= {column: getattr(scan, column) for column in ("dark", "flat", "mask")}
            errors += source_errors(where, {**sources, "omega": scan.omega, "geometry": scan.geometry})
            start = self.frames.start if scan.start is None else scan.start
            stop = self.frames.stop if scan.stop is None else scan.stop
            if stop is not None and stop <= start:
                errors.append(InputError(f"{where}, stop", f"{stop}", f"more than the start, {start}"))
            try:
                require_apart(sources)
            except InputError as error:
                errors.append(InputError(f"{where}, {error.where}", error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)

    def read_headers(self, samples: dict[str, Scan]) -> None:
        """Read the headers of all raw files, dark images, flat fields and masks, the angles and the geometries.

        Raises
        ------
        InputError
            One line for each file that cannot be used.
        """
        from cathodeflow.io.correction_images import correction_source, require_shape
        from cathodeflow.io.frames import open_series
        from cathodeflow.io.geometry_files import read_detector_geometry
        from cathodeflow.io.series_conditions import read_conditions

        errors = []
        for name, scan in samples.items():
            try:
                if scan.simulated or is_remote(scan.frames):
                    continue
                series = open_series(scan.frames, on_bad_file=self.frames.on_bad_file)
                for column, source in (("dark", scan.dark), ("flat", scan.flat), ("mask", scan.mask)):
                    if source is not None and not is_remote(source):
                        require_shape(open_series(correction_source(source, mask=column == "mask")), series.shape)
                start = self.frames.start if scan.start is None else scan.start
                if start >= series.n_frames:
                    raise InputError("start", f"{start}", f"less than the {series.n_frames} frames of {scan.frames}")
                if scan.omega is not None and not is_remote(scan.omega):
                    read_conditions(scan.omega, series.n_frames, self.frames.omega_name)
                if scan.geometry is not None and not is_remote(scan.geometry):
                    read_detector_geometry(scan.geometry, detector=self.geometry.detector, shape=series.shape)
            except InputError as error:
                for problem in error.errors:
                    where = f"{self.samples}: scan '{name}': {problem.where}"
                    errors.append(InputError(where, problem.found, problem.expected))
        if errors:
            raise InputErrors.of(errors)
