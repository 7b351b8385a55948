"""Options of the stages of Bragg coherent diffraction imaging."""

from typing import ClassVar

from pydantic import field_validator

from cathodeflow.bcdi.exchange_options import Export
from cathodeflow.bcdi.facet_options import FacetFigures, Facets
from cathodeflow.bcdi.geometry_options import GeometryOptions
from cathodeflow.bcdi.network_options import Evaluate, Infer, Refine, Train
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD, Phase
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.scans import Scan, require_readable, sheet_errors
from cathodeflow.bcdi.series_options import Series, SeriesFigures
from cathodeflow.bcdi.simulation_options import Simulate, SimulateScan
from cathodeflow.bcdi.trust_options import Trust
from cathodeflow.errors import InputError, InputErrors
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample, TechniqueSection, missing_files
from cathodeflow.series import SERIES_FOLDER

#: Folder of the network in results/bcdi, so no scan may have this name.
MODEL_FOLDER = "model"


class Strain(GeometryOptions):
    """Best object -> displacement and strain along the scattering vector in the laboratory frame, with statistics.

    Options of the geometry override the geometry file, which overrides the file of the motors.
    """

    renamed: ClassVar[dict[str, str]] = {"level": "../figures.isosurface"}

    threshold: float = option(
        0.2, "Isosurface level of the particle, as a fraction of the maximum amplitude.", gt=0, lt=1
    )
    voxel_nm: float | None = option(
        None,
        "Side of the cubic voxels. Default: the side of a cube with the volume of a measured voxel.",
        unit="nm",
        gt=0,
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
                errors.append(
                    InputError(self.samples, f"a scan named '{name}'", f"another name: this folder is {owner}")
                )
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
