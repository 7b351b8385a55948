"""Standard errors of the strain: spread over the starts that found the same object, and counting noise.

The counting noise is that of a parametric bootstrap [1]_: patterns are drawn from the intensity of the best object, and
phased again from it. Both variances are averaged over neighbouring voxels, as they are known from few objects. The
larger one counts: both contain the wandering of the iterations, so that their sum is too large.

References
----------
.. [1] B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 6
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align, centred
from cathodeflow.bcdi.coherence import detected_amplitude
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.retrieval import retrieve
from cathodeflow.bcdi.strain_fields import Floats, strain
from cathodeflow.checkpoints import generator

#: Iterations from the best object with a drawn pattern, as at the end of the default recipe.
RECIPE = "60*RAAR(beta=0.8)+20*ER"
# Standard deviation of the Gaussian by which variances are averaged [voxel].
_AVERAGED = 1.0


def redrawn(
    best: Tensor, amplitude: Tensor, widths: Tensor, options: Phase, *, mask: Tensor, count: int, seed: int
) -> Tensor:
    """Phase patterns with other counting noise, from the best object.

    Parameters
    ----------
    best : (z, y, x) complex64
        In square roots of counts.
    amplitude : (z, y, x) float32
        Measured; sets the scale, as the object may have left intensity out.
    widths : (3,) float32
        Widths of its blur by partial coherence [px].
    options : Phase
        Shrink-wrap, likelihood and device; the recipe is `RECIPE`.
    mask : (z, y, x) bool
    count : int
        Number of patterns.
    seed : int

    Returns
    -------
    (count, z, y, x) complex64
    """
    expected = detected_amplitude(best[None], widths[None])[0].double().square()
    expected *= (amplitude.double().square() * mask).sum() / (expected * mask).sum()
    blurred = bool(widths.any())
    more: dict[str, Any] = {"recipe": RECIPE, "free_fraction": 0.0, "coherence": "fixed" if blurred else "full"}
    settings = options.model_copy(update=more | {"coherence_px": float(widths.mean())})
    found = []
    for number in range(count):
        drawn = torch.poisson(expected, generator=generator(seed, number)).sqrt().float()
        found.append(retrieve(drawn, settings, mask=mask, initial=best).objects[0])
    return torch.stack(found) if found else torch.empty(0, *best.shape, dtype=best.dtype)


def strain_errors(
    best: Tensor, others: Tensor, replicates: Tensor, support: NDArray[np.bool_], basis: Floats, q: Floats,
    *, erosion: int,
) -> NDArray[np.float32]:  # fmt: skip
    """Compute the standard error of the strain of an object.

    Parameters
    ----------
    best : (z, y, x) complex64
        Without shift and ramp (`ambiguities.centred`).
    others : (n, z, y, x) complex64
        The other starts that found the same object; may be none.
    replicates : (m, z, y, x) complex64
        Of `redrawn`.
    support : (z, y, x) bool
        Of `best`.
    basis, q, erosion
        As in `strain_fields.strain`.

    Returns
    -------
    (z, y, x) float32
        NaN where the strain is unknown.
    """
    own = strain(best.numpy(), support, basis, q, erosion=erosion).values
    known = np.isfinite(own)
    weight = np.maximum(gaussian_filter(known.astype(float), _AVERAGED), 1e-6)
    variance = np.zeros(own.shape)
    for members in (others, replicates):
        if not len(members):
            continue
        aligned = align(centred(members), best)[0].numpy()
        strains = [strain(one, support, basis, q, erosion=erosion).values - own for one in aligned]
        # An arbitrary ramp of the phase is no uncertainty.
        moved = [values - np.nanmedian(values) for values in strains]
        mean = np.mean(np.square(np.nan_to_num(moved)), axis=0)
        variance = np.maximum(variance, gaussian_filter(np.where(known, mean, 0.0), _AVERAGED) / weight)
    return np.where(known, np.sqrt(variance), np.nan).astype(np.float32)
