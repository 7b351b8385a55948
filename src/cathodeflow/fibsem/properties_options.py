"""Options of the properties of segmented volumes."""

from typing import Literal

from cathodeflow.fibsem.reading import LabelValues
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.options import option
from cathodeflow.training.base_options import Device

Group = Literal["fractions", "surfaces", "connectivity", "transport", "particles", "chords", "correlation", "thickness"]
GROUPS: tuple[Group, ...] = (
    "fractions", "surfaces", "connectivity", "transport", "particles", "chords", "correlation", "thickness",
)  # fmt: skip


class Properties(LabelValues):
    """Labels of a volume -> volume fractions, surfaces, transport, sizes and correlations of its phases."""

    classes: tuple[str, ...] | None = option(
        None,
        "Names of the classes, in the order of the label values. Default: those that a store states, otherwise pore, "
        "active, binder.",
        min_length=2,
        max_length=64,
    )
    groups: tuple[Group, ...] = option(
        GROUPS,
        "Properties to compute: `fractions`, `surfaces` (specific surface and contact areas), `connectivity`, "
        "`transport` (tortuosity factor and effective diffusivity), `particles`, `chords`, `correlation` (two-point "
        "correlation and representative size) and `thickness` (local thickness of films).",
        min_length=1,
    )
    transport_solver: Literal["auto", "compiled", "taufactor"] = option(
        "auto",
        "Solver of the diffusion equation: `taufactor`, `compiled` (the same equations, faster on CPUs), or `auto`: "
        "TauFactor on a GPU, otherwise compiled.",
    )
    convergence: float = option(
        0.01,
        "Maximum relative difference between the fluxes through the layers of the volume, at which the transport "
        "solver stops.",
        gt=0,
        lt=0.5,
    )
    transport_voxels: int = option(
        32_000_000,
        "Maximum number of voxels for which transport is solved in one piece. For larger volumes it is "
        "solved in several sub-volumes of at most this size, and the standard deviation between them is "
        "given.",
        ge=1000,
    )
    sub_volumes: int = option(8, "Maximum number of sub-volumes for which transport is solved.", ge=1)
    particle_phases: tuple[str, ...] | None = option(
        None, "Phases that are divided into particles. Default: `active`, otherwise the second class."
    )
    film_phases: tuple[str, ...] | None = option(
        None, "Phases whose local thickness is measured. Default: `binder`, otherwise none."
    )
    sizes_voxels: int = option(
        32_000_000,
        "Maximum number of voxels in which particles and films are measured; larger volumes are measured "
        "in their central part.",
        ge=1000,
    )
    particle_depth: float = option(
        1.0,
        "Minimum difference between the distance to the surface inside a particle and in its necks. "
        "Increase it if particles are divided into too many parts.",
        unit="px",
        gt=0,
    )
    representative_error: float = option(
        0.05, "Relative standard error of the volume fraction that defines the representative size.", gt=0, lt=1
    )
    max_lag: int = option(
        100,
        "Maximum distance of the two-point correlation; at most half of the volume along each axis.",
        unit="px",
        ge=1,
    )
    sampling: SamplingError = option(SamplingError(), "Sampling error; `blocks: 1` leaves it out.")
    device: Device | None = option(None, "Compute device of the transport solver. Default: the device of the workflow.")
