"""Options of iterative phasing."""

import math
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from cathodeflow.bcdi.recipe import DEFAULT, parse
from cathodeflow.bcdi.trust_options import MoreStarts
from cathodeflow.errors import InputError
from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device

#: Threshold of the supports whose size and phases are compared, as a fraction of the maximum amplitude.
SUPPORT_THRESHOLD = 0.1


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


#: Field of the phase and refinement options.
LIKELIHOOD: Any = option(
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
    likelihood: Literal["amplitude", "poisson"] = LIKELIHOOD
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


def readable(recipe: str) -> str:
    """Require a valid recipe."""
    try:
        parse(recipe)
    except InputError as error:
        raise ValueError(f"{error.expected} instead of {error.found}") from None
    return recipe
