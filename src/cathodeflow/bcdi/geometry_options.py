"""Options of the geometry of a scan."""

from typing import Any, Literal

from pydantic import field_validator

from cathodeflow.options import Options, option


class GeometryOptions(Options):
    """Geometry of a scan; what is not given is read from the file of its motors."""

    beamline: str | None = option(
        None,
        "Beamline whose diffractometer was used, such as `P10` (all: docs/bcdi.md), or a YAML file of your own. "
        "Default: 34-ID-C.",
    )
    energy_kev: float | None = option(None, "Photon energy.", unit="keV", gt=0)
    distance_m: float | None = option(None, "Distance from sample to detector.", unit="m", gt=0)
    pixel_um: float | None = option(
        None,
        "Side of a detector pixel. Default: that of the beamline's detector, if the motors come from a file.",
        unit="um",
        gt=0,
    )
    delta_deg: float | None = option(None, "Detector arm angle delta, outboard at 34-ID-C.", unit="degrees")
    gamma_deg: float | None = option(None, "Detector arm angle gamma, upward at 34-ID-C.", unit="degrees")
    theta_deg: float | None = option(
        None, "Sample angle theta about the vertical axis, the outermost rotation.", unit="degrees"
    )
    chi_deg: float | None = option(None, "Sample angle chi about the beam.", unit="degrees")
    phi_deg: float | None = option(None, "Sample angle phi, the innermost rotation.", unit="degrees")
    rocking_axis: str | None = option(
        None, "Sample angle that is scanned: `theta`, `chi` or `phi` at 34-ID-C, else a circle of the beamline."
    )
    rocking_step_deg: float | None = option(None, "Rocking angle between neighbouring frames.", unit="degrees")
    row_direction: Literal["down", "up"] | None = option(
        None, "Direction in which row numbers increase. Default: that of the beamline; down at 34-ID-C."
    )
    col_direction: Literal["outboard", "inboard"] | None = option(
        None, "Direction in which column numbers increase. Default: that of the beamline; outboard at 34-ID-C."
    )
    direct_beam: tuple[float, ...] | None = option(
        None,
        "Row and column of the direct beam on the detector, all angles of its arm at 0. With it, the scattering vector "
        "is that of the peak's pixel. Default: the peak is in the middle of the detector.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    peak_pixel: tuple[float, ...] | None = option(
        None,
        "Row and column of the peak on the detector. Default: where `bcdi.prepare` found it.",
        unit="px",
        min_length=2,
        max_length=2,
    )

    def given(self) -> dict[str, Any]:
        """Return the options of the geometry that are set."""
        return {name: value for name in GeometryOptions.model_fields if (value := getattr(self, name)) is not None}


class GeometryFile(GeometryOptions):
    """Contents of a geometry file."""

    angles: dict[str, float] = option({}, "Angles of the circles of the beamline by name.", unit="degrees")
    steps: dict[str, float] = option(
        {}, "Changes from frame to frame of the circles that move [degrees], or of `energy_kev` [keV]."
    )

    @field_validator("steps")
    @classmethod
    def _finite(cls, steps: dict[str, float]) -> dict[str, float]:
        if any(value == 0 for value in steps.values()):
            raise ValueError("changes other than 0")
        return steps

    def given(self) -> dict[str, Any]:
        """Return the values that the file has."""
        own = {name: value for name in ("angles", "steps") if (value := getattr(self, name))}
        return super().given() | own
