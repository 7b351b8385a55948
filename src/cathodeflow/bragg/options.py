"""Options of the Bragg stages and the columns of the scan sheet."""

from typing import ClassVar, Literal

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.sources import list_files
from cathodeflow.options import Options, option
from cathodeflow.samples import Sample

Device = Literal["auto", "cpu", "cuda"]
SIMULATED = "simulated"


class Scan(Sample):
    """A scan: the detector frames taken at one state of charge."""

    role: Literal["train", "measure"] = option("measure", "`train`: the network learns from this scan's peaks too.")
    frames: str = option(
        ...,
        "Raw frames: a file, a folder or a pattern, for HDF5 with `::/path/of/the/dataset`; "
        "or `simulated`: made by `bragg_simulate`.",
    )
    dark: str | None = option(None, "Dark image (or series, averaged) to subtract.")
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

    format: Literal["tiff", "hdf5"] = option("tiff", "A TIFF file per frame, or one HDF5 file.")
    n_frames: int = option(48, "Frames of a scan.", ge=1, le=100_000)
    seed: int | None = option(None, "Seed; the workflow's where none is given.", ge=0)

    @property
    def files(self) -> list[str]:
        """Names of the raw files of a scan."""
        return [f"frame_{index:05d}.tif" for index in range(self.n_frames)] if self.format == "tiff" else ["frames.h5"]

    @property
    def pattern(self) -> str:
        """Where the raw frames of a scan are, below its folder."""
        return "/frame_*.tif" if self.format == "tiff" else "/frames.h5::/entry/data/data"


class Section(Options):
    """Bragg peaks on X-ray detector frames, located to a fraction of a pixel."""

    samples: str = option(..., "Sheet of the scans.")
    simulate: Simulate = option(Simulate(), "Simulated raw frames.")

    sample_class: ClassVar[type[Sample]] = Scan
