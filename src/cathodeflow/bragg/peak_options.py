"""Options of the stages from raw frames to fitted peaks, and of what is made of them."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cathodeflow.options import Options, option

NotNegative = Annotated[float, Field(ge=0)]


#: Suffix of the file of each format of `Export`, after `peaks` or `spots`.
EXPORT_SUFFIXES = {"imaged11": ".flt", "imaged11-hdf5": ".flt.h5", "hexrd": ".hexrd.out", "nexus": ".nxs"}


def odd(size: int) -> int:
    """Require a patch size with a central pixel."""
    if size % 2 == 0:
        raise ValueError("an odd number")
    return size


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
        3.0, "Maximum reduced chi-square of a good peak; the profile of a peak above it does not fit the model.", gt=1
    )
    max_iterations: int = option(100, "Maximum number of iterations per fit.", ge=1)

    _odd = field_validator("patch_size")(odd)


class Measure(Options):
    """Options of all stages from raw frames to fitted peaks, for `cathodeflow bragg measure`."""

    frames: Frames = option(Frames(), "Correction of raw frames.")
    find_peaks: FindPeaks = option(FindPeaks(), "Peak search.")
    fit: Fit = option(Fit(), "Peak fits.")


class Geometry(Options):
    """Peaks -> scattering angles, scattering vectors and lattice spacings, where the sheet names a geometry."""

    detector: str | None = option(
        None,
        "Name of the detector in the geometry file. `all`: the panels of a hexrd instrument that together make the "
        "frame, each with its `roi`. Default: the only detector that the file describes.",
    )


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


class Watch(Options):
    """Options of `cathodeflow bragg watch`, with those of the stages that it takes the place of."""

    interval: float = option(
        0.25,
        "Time between two checks of the folder or file. A file that did not change for this time is "
        "complete; increase it if the detector pauses for longer while it writes a file.",
        unit="s",
        ge=0.05,
        le=60,
    )
    expected: int | None = option(
        None,
        "Number of raw frames of the scan: the command ends when all have arrived. Default: it runs until Ctrl-C.",
        ge=1,
    )
    idle: float | None = option(
        None,
        "The command ends when no new frame has arrived for this time. Default: it runs until Ctrl-C.",
        unit="s",
        gt=0,
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
