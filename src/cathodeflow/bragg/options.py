"""Options of the Bragg stages and the columns of the sample sheet."""

import os
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from cathodeflow.bragg.grain_options import GrainFigures, Grains
from cathodeflow.bragg.network_options import Compare, Figures, Locate, Patches, Train
from cathodeflow.bragg.peak_options import Export, FindPeaks, Fit, Frames, Geometry, Simulate, Study
from cathodeflow.bragg.series_options import Lattice, Movie, SeriesFigures, Spots, Tracks
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.sources import is_remote, list_files, split_source
from cathodeflow.options import option
from cathodeflow.samples import Sample, TechniqueSection, missing_files, source_errors
from cathodeflow.series import SERIES_FOLDER, SeriesSample

SIMULATED = "simulated"
#: Folder of the network in results/bragg, so no scan may have this name.
MODEL_FOLDER = "model"


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


class Scan(SeriesSample):
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
        "Measure each scan with the role `fit` in one job, from raw frames to fitted peaks. The results "
        "are those of separate jobs for frames, search and fits, in less than half the time; but a change"
        " of any option of these stages repeats all of them.",
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
                errors.append(
                    InputError(self.samples, f"a scan named '{name}'", f"another name: this folder is {owner}")
                )
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
        from cathodeflow.io.correction_images import correction_source, require_shape, warn_of_levels, warn_of_mask
        from cathodeflow.io.frames import open_series
        from cathodeflow.io.geometry_files import read_detector_geometry
        from cathodeflow.io.series_conditions import read_conditions

        errors = []
        for name, scan in samples.items():
            try:
                if scan.simulated or is_remote(scan.frames):
                    continue
                series = open_series(scan.frames, on_bad_file=self.frames.on_bad_file)
                where = f"{self.samples}: scan '{name}'"
                local = [None if source is None or is_remote(source) else source for source in (scan.dark, scan.flat)]
                for source in filter(None, local):
                    require_shape(open_series(correction_source(source)), series.shape)
                warn_of_levels(series, *local, sample=where)
                if scan.mask is not None and not is_remote(scan.mask):
                    require_shape(open_series(correction_source(scan.mask, mask=True)), series.shape)
                    key = "bragg.frames.invert_mask"
                    warn_of_mask(scan.mask, bad_is_zero=self.frames.invert_mask, sample=where, key=key)
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
