"""Options of the Bragg stages and the columns of the scan sheet."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.sources import is_remote, list_files
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection

Device = Literal["auto", "cpu", "cuda"]
Width = Annotated[int, Field(ge=1)]
SIMULATED = "simulated"
#: Folder beside the scans' folders in results/bragg, so no scan's name.
MODEL_FOLDER = "model"


def odd(size: int) -> int:
    """Require a patch size with a central pixel."""
    if size % 2 == 0:
        raise ValueError("an odd number")
    return size


def require_apart(sources: Mapping[str, str | None]) -> None:
    """Require that no file of the dark image or the mask is among the frames, as with a pattern such as `*.tif`.

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
    for name in ("dark", "mask"):
        if both := sorted(set(found.get(name, ())) & set(found.get("frames", ()))):
            expected = "frames without it, such as frame_*.tif"
            raise InputError(f"frames: {sources['frames']}", f"the {name} {both[0]} among the frames", expected)


class Scan(Sample):
    """A scan: the detector frames taken at one state of charge."""

    role: Literal["train", "measure"] = option("measure", "`train`: the network learns from this scan's peaks too.")
    frames: str = option(
        ...,
        "Raw frames: a file, a folder or a pattern, for HDF5 with `::/path/of/the/dataset`; "
        "or `simulated`: made by `bragg_simulate`.",
    )
    dark: str | None = option(None, "Dark image, or series of them, whose mean is subtracted.")
    mask: str | None = option(None, "Image that is not zero at bad pixels and gaps.")
    state_of_charge: float | None = option(
        None, "Share of the lithium taken out of the cathode: 0 discharged, 1 charged.", ge=0, le=1
    )

    @property
    def simulated(self) -> bool:
        """Whether the raw frames are made by the workflow itself."""
        return self.frames == SIMULATED


class Simulate(Options):
    """Raw frames of an operando series with known peaks, for scans whose frames are `simulated`."""

    format: Literal["tiff", "hdf5"] = option("tiff", "A TIFF file per frame, or one NeXus file.")
    n_frames: int = option(48, "Frames of a scan, a rocking series.", ge=1, le=100_000)
    rows: int = option(256, "Rows of the detector.", unit="px", ge=64, le=4096)
    cols: int = option(256, "Columns of the detector.", unit="px", ge=64, le=4096)
    n_peaks: int = option(800, "Particles that diffract somewhere in the scan.", ge=1)
    amplitude_min: float = option(30.0, "Faintest peak's maximum.", unit="counts", gt=0)
    amplitude_max: float = option(5000.0, "Brightest peak's maximum.", unit="counts", gt=0)
    background: float = option(8.0, "Smooth scattering.", unit="counts", ge=0)
    ring: float = option(4.0, "Height of the powder rings.", unit="counts", ge=0)
    dark: float = option(20.0, "Offset of the detector.", unit="counts", ge=0)
    bad_fraction: float = option(0.001, "Share of hot and dead pixels.", ge=0, lt=0.5)
    gap: int = option(0, "Width of a gap between detector modules.", unit="px", ge=0)
    seed: int | None = option(None, "Seed of the particles and the noise; default: the workflow's.", ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.amplitude_min >= self.amplitude_max:
            raise ValueError("amplitude_min below amplitude_max")
        if self.gap >= self.cols:
            raise ValueError("a gap narrower than the detector's columns")
        return self


class Frames(Options):
    """Raw frames -> corrected, binned frames in frames.h5."""

    binning: Literal[1, 2, 4] = option(1, "Side of the blocks of pixels that are summed.", unit="px")
    start: int = option(0, "First frame.", ge=0)
    stop: int | None = option(None, "Frame to stop before; default: the end.", ge=1)
    step: int = option(1, "Take every so many frames.", ge=1)
    gap_value: int | None = option(None, "Value that stands for no measurement, such as -1 or 4294967295.")
    allow_negative: bool = option(False, "Take counts below zero for noise around a dark level subtracted before.")
    saturation: float | None = option(
        None, "Least value of a saturated pixel; default: the largest of the integer type.", unit="counts", gt=0
    )
    max_saturated: float = option(0.01, "Share of saturated pixels above which a frame is refused.", ge=0, le=1)
    on_bad_file: Literal["fail", "skip"] = option("fail", "What becomes of files and frames that cannot be used.")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.stop is not None and self.stop <= self.start:
            raise ValueError("start below stop")
        return self


class FindPeaks(Options):
    """Frames -> candidate peaks, by persistent homology."""

    engine: Literal["union_find", "findpeaks"] = option(
        "union_find", "Our own, or the package findpeaks (the same peaks, many times slower)."
    )
    scale: Literal["none", "uint8"] = option("none", "`uint8`: bring each frame to 0..255 first, as findpeaks does.")
    min_value: float = option(20.0, "Only pixels of more count.", unit="counts", ge=0)
    min_persistence: float = option(15.0, "Least rise of a peak above its saddle.", unit="counts", ge=0)
    min_area: int = option(2, "Least size of a connected component with peaks.", unit="px", ge=1)
    patch_size: int = option(
        11, "Side of the patch that the network needs the peak in the middle of.", unit="px", ge=1, le=101
    )
    centre_tolerance: int = option(
        2, "How far, in rows and columns, its brightest pixel may be from the centre.", unit="px", ge=0
    )

    _odd = field_validator("patch_size")(odd)


class Fit(Options):
    """Candidates -> fitted peaks in peaks.h5, by Poisson maximum likelihood."""

    model: Literal["pseudo_voigt", "gaussian"] = option("pseudo_voigt", "Shape of a peak.")
    patch_size: int = option(11, "Side of the fitted patch.", unit="px", ge=3, le=101)
    neighbours: Literal["subtract", "mask"] = option(
        "subtract", "Overlapping neighbours: fitted together, or their pixels left out."
    )
    threshold: float = option(
        0.0,
        "What the raw frames were cut at: pixels below are only known to lie below.",
        unit="counts",
        ge=0,
    )
    read_noise: float = option(0.0, "Standard deviation of the detector's read-out noise.", unit="counts", ge=0)
    max_iterations: int = option(100, "Steps after which a fit is given up.", ge=1)

    _odd = field_validator("patch_size")(odd)


class Patches(Options):
    """Frames and fitted peaks -> patches with labels that the network learns from."""

    patch_size: int = option(11, "Side of the network's patches.", unit="px", ge=7, le=101)
    max_shift: int = option(1, "Margin kept around a patch for random shifts.", unit="px", ge=0, le=10)
    min_value: float = option(20.0, "Pixels of less count as zero.", unit="counts", ge=0)

    _odd = field_validator("patch_size")(odd)


class Train(Options):
    """Training patches of all scans with the role `train` -> BraggNN.

    The defaults reach a median error several times below that of the published recipe, which is: `epochs: 500`,
    `patience: 500`, `batch_size: 512`, `learning_rate: 0.0003`, `warm_up: 0`, `final_rate: 1`, `loss: mse`,
    `overlap: 0`, `symmetries: false`.
    """

    epochs: int = option(100, "Most epochs; the learning rate falls until then. 20 do for 20,000 peaks.", ge=1)
    patience: int = option(30, "Epochs without a better validation after which training ends.", ge=1)
    batch_size: int = option(128, "Patches in a step.", ge=1)
    learning_rate: float = option(3e-3, "Adam's learning rate, at its highest.", gt=0)
    warm_up: int = option(1, "Epochs in which the learning rate rises.", ge=0)
    final_rate: float = option(0.01, "Factor of the learning rate at the end of a cosine over all epochs.", gt=0, le=1)
    loss: Literal["huber", "mse"] = option(
        "huber", "Huber's loss, linear beyond 0.1 px, or the published mean squared error."
    )
    overlap: float = option(
        0.3, "Share of the training patches to which another peak is added as a neighbour.", ge=0, le=1
    )
    max_shift: int = option(1, "Largest random shift of a patch.", unit="px", ge=0, le=10)
    symmetries: bool = option(True, "Turn and mirror patches at random.")
    dense: tuple[Width, ...] = option((16, 8, 4, 2), "Widths of the dense layers before the last.", min_length=1)
    validation: float = option(0.2, "Share of each scan's frames, in blocks, to validate on.", gt=0, lt=1)
    block: int = option(8, "Neighbouring frames that are never divided between training and validation.", ge=1)
    initial: str | None = option(None, "Weights to start from, ours or BraggNN's own; default: random ones.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = option("32-true", "Precision of the arithmetic.")
    threads: int = option(2, "Threads on a CPU; their number changes the last bits of the result.", ge=1)
    device: Device | None = option(None, "Device; default: the workflow's.")
    seed: int | None = option(None, "Seed of weights, order and shifts; default: the workflow's.", ge=0)


class Locate(Options):
    """Candidates and BraggNN -> positions in the pixels of frames and of the detector."""

    weights: str | None = option(None, "Weights to use, ours or BraggNN's own; default: those trained here.")
    patch_size: int = option(11, "Side of the patches, which must be the network's.", unit="px", ge=7, le=101)
    min_value: float | None = option(
        None,
        "Pixels of less count as zero; default: as in training (0 for BraggNN's own weights).",
        unit="counts",
        ge=0,
    )
    engine: Literal["auto", "torch", "onnx"] = option("auto", "`auto`: torch on a GPU, onnxruntime on a CPU.")
    batch_size: int = option(64, "Patches at a time on a CPU.", ge=1)
    tta: bool = option(False, "Locate the 8 turns of each patch and take their mean, which is better.")
    uncertainty: bool = option(True, "Standard errors from counting noise, for each peak; several times slower.")
    gain: float = option(1.0, "Detector counts per photon, for the standard errors.", unit="counts", gt=0)
    device: Device | None = option(None, "Device; default: the workflow's.")

    _odd = field_validator("patch_size")(odd)


class Compare(Options):
    """Distances between network, fit and, where it is known, truth: tables and figures."""

    max_distance: float = option(3.0, "Largest distance at which two positions are of one peak.", unit="px", gt=0)
    n_bins: int = option(8, "Bins of intensity.", ge=1, le=100)
    min_amplitude: float = option(30.0, "Least true amplitude that counts for the recall.", unit="counts", ge=0)
    seed: int | None = option(None, "Seed of the bootstrap; default: the workflow's.", ge=0)


class Figures(Options):
    """Figures of every scan and of the training."""

    patch_size: int = option(11, "Side of the patches that are shown.", unit="px", ge=3, le=101)

    _odd = field_validator("patch_size")(odd)


class Section(TechniqueSection):
    """Bragg peaks on X-ray detector frames, located to a fraction of a pixel."""

    simulate: Simulate = option(Simulate(), "Simulated raw frames.")
    frames: Frames = option(Frames(), "Corrected frames.")
    find_peaks: FindPeaks = option(FindPeaks(), "Candidates.")
    fit: Fit = option(Fit(), "Fits.")
    patches: Patches = option(Patches(), "Training patches.")
    train: Train = option(Train(), "Network.")
    locate: Locate = option(Locate(), "Network's positions.")
    compare: Compare = option(Compare(), "Comparison.")
    figures: Figures = option(Figures(), "Figures.")

    sample_class: ClassVar[type[Sample]] = Scan

    def folders(self) -> list[str]:
        """Folder of the network."""
        return [MODEL_FOLDER]

    def check(self, samples: dict[str, Scan]) -> None:
        """Require that the raw files of every scan are there, and something to train on where a network is trained.

        Raises
        ------
        InputError
            A line for everything that is missing.
        """
        errors = []
        if self.locate.weights is None:
            if not any(scan.role == "train" for scan in samples.values()):
                expected = "the role 'train' for at least one, or bragg.locate.weights"
                errors.append(InputError(self.samples, "no scan to train the network on", expected))
            if self.patches.patch_size != self.locate.patch_size:
                found = f"{self.locate.patch_size} in locate and {self.patches.patch_size} in patches"
                errors.append(InputError("bragg: patch_size", found, "the same"))
            if self.train.max_shift > self.patches.max_shift:
                found = f"{self.train.max_shift} in train and {self.patches.max_shift} in patches"
                errors.append(InputError("bragg: max_shift", found, "at most the margin of the patches"))
        for key, path in (("locate.weights", self.locate.weights), ("train.initial", self.train.initial)):
            if path and not Path(path).is_file():
                errors.append(InputError(f"bragg.{key}: {path}", "no such file", "weights of a BraggNN"))
        for name, scan in samples.items():
            where = f"{self.samples}: scan '{name}'"
            if name == MODEL_FOLDER:
                errors.append(InputError(self.samples, f"a scan named '{name}'", "another name: it is the network's"))
            for column in ("frames", "dark", "mask"):
                if set("{}") & set(getattr(scan, column) or ""):
                    # Snakemake takes what stands in braces for a wildcard.
                    errors.append(InputError(f"{where}, {column}", getattr(scan, column), "a path without { and }"))
            sources = {"frames": None if scan.simulated else scan.frames, "dark": scan.dark, "mask": scan.mask}
            for column, source in sources.items():
                try:
                    if source:
                        list_files(source)
                except InputError as error:
                    errors.append(InputError(f"{where}, {column}: {error.where}", error.found, error.expected))
            try:
                require_apart(sources)
            except InputError as error:
                errors.append(InputError(f"{where}, {error.where}", error.found, error.expected))
        if errors:
            raise InputErrors.of(errors)

    def look(self, samples: dict[str, Scan]) -> None:
        """Read the headers of all raw files.

        Raises
        ------
        InputError
            A line for every file that is not what it should be.
        """
        from cathodeflow.io.frames import open_series

        errors = []
        for name, scan in samples.items():
            try:
                if not scan.simulated and not is_remote(scan.frames):
                    open_series(scan.frames, on_bad_file=self.frames.on_bad_file)
            except InputError as error:
                for one in error.errors:
                    where = f"{self.samples}: scan '{name}': {one.where}"
                    errors.append(InputError(where, one.found, one.expected))
        if errors:
            raise InputErrors.of(errors)
