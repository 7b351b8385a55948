"""Iterative phase retrieval: from a diffraction amplitude to the complex objects that have it."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cathodeflow.bcdi.coherence import Blur, checked_widths
from cathodeflow.bcdi.figures_of_merit import log_likelihood
from cathodeflow.bcdi.free_pixels import free_pixels
from cathodeflow.bcdi.iterations import Measured, Settings, iterate
from cathodeflow.bcdi.noise import relaxation
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.bcdi.recipe import DEFAULT, Step, parse
from cathodeflow.bcdi.support import box_support, shrink_wrap
from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.learning import limited_threads, resolve_device
from cathodeflow.parallel import ordered_map

#: Voxels of starts that are computed at a time: on a CPU as many as its caches hold, on a GPU as its memory.
_TOGETHER = {"cpu": 2**18, "cuda": 2**27}

_WIDTH_AT_FIRST = 0.5  # [px] of the blur, where it is fitted


class Retrieval(NamedTuple):
    """What phase retrieval found, on the CPU.

    objects : (start, z, y, x) complex64
        The last iterate, projected on its support.
    supports : (start, z, y, x) bool
    errors : (start, iteration) float32
        Norm of |F(o)| - A over that of A, on the pixels that were phased, after each iteration; the last is that of the
        object.
    free_log_likelihood : (start,) float32 [nat per pixel]
        Poisson log-likelihood of the free pixels, higher is better; NaN where none was held out.
    coherence : (start, 3) float32 [px]
        Standard deviations of the blur along (z, y, x); 0 for full coherence.
    """

    objects: Tensor
    supports: Tensor
    errors: Tensor
    free_log_likelihood: Tensor
    coherence: Tensor


def retrieve(
    amplitude: Tensor,
    *,
    recipe: str | Sequence[Step] = DEFAULT,
    starts: int | Sequence[int] = 1,
    mask: Tensor | None = None,
    initial: Tensor | None = None,
    seed: int = 0,
    beta: float | None = 0.9,
    shrink_every: int = 10,
    sigma: tuple[float, float] = (1.0, 0.5),
    threshold: float = 0.13,
    support: float | Tensor = 0.5,
    phase_limits: tuple[float, float] | None = None,
    likelihood: Literal["amplitude", "poisson"] = "amplitude",
    coherence: float | tuple[float, float, float] | Literal["fit"] | None = None,
    free_share: float = 0.0,
    together: int | None = None,
    device: str = "auto",
) -> Retrieval:
    """Phase a diffraction volume from several starts at once.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Square root of the intensity, at least 0; zero frequency at index n // 2.
    recipe : str or sequence of Step
        Algorithms and their iterations (`cathodeflow.bcdi.recipe`): ER, error reduction [1]_; HIO, hybrid input-output
        [2]_; RAAR, relaxed averaged alternating reflections [3]_; DM, the difference map [4]_.
    starts : int or sequence of int
        How many random starts, or the numbers of some: start k of a seed is the same in any company, but for rounding.
    mask : (z, y, x) bool, optional
        True where a pixel was measured; the others are free, whatever stands there. Default: all.
    initial : (z, y, x) or (start, z, y, x) complex64, optional
        Objects to start from in place of random ones, on any scale; shrink-wrap of them gives the first supports.
    seed : int
        Of the random starts and the free pixels.
    beta : float, optional
        Feedback of HIO, relaxation of RAAR and DM, above 0, at most 1, where the recipe sets none, as the default does
        for RAAR; None: by the noise (`noise.relaxation`), for which the amplitude is in roots of counts. It is made for
        RAAR, as in `refine`.
    shrink_every : int
        Iterations between two shrink-wraps of the support; 0: it stays.
    sigma : (float, float)
        Of shrink-wrap's Gauss function, at the first iteration and at the last, linear in between [voxel].
    threshold : float
        Of shrink-wrap, as a share of the maximum.
    support : float or (z, y, x) bool
        First support: a centred box of this share of each axis, or itself. Not used with `initial`.
    phase_limits : (float, float), optional
        Voxels of another phase count as outside the support [rad].
    likelihood : {"amplitude", "poisson"}
        What the wave is held to: the measured amplitude, or between it and the present one where the Poisson likelihood
        of the counts and the squared distance to the present wave are least together [5]_; for this the amplitude is
        in roots of counts. It pays at few counts, in ER at the end.
    coherence : float, (float, float, float) or "fit", optional
        Standard deviation, or that along (z, y, x), of the Gauss function that blurs the coherent intensity [px] [6]_;
        "fit" improves it at every shrink-wrap.
    free_share : float
        Share of the pixels that are held out, as if not measured, to judge the starts [7]_.
    together : int, optional
        Voxels of starts that are computed at a time; default: as many as suit the device.
    device : {"auto", "cpu", "cuda"}

    Returns
    -------
    Retrieval

    Raises
    ------
    InputError
        Amplitude that is negative, not finite or 0 everywhere, shapes that do not fit, a parameter out of range.

    References
    ----------
    .. [1] J. R. Fienup, Opt. Lett. 3, 27 (1978)
    .. [2] J. R. Fienup, Appl. Opt. 21, 2758 (1982)
    .. [3] D. R. Luke, Inverse Problems 21, 37 (2005)
    .. [4] V. Elser, J. Opt. Soc. Am. A 20, 40 (2003)
    .. [5] F. Soulez et al., Appl. Opt. 55, 7412 (2016): proximity operator of the Poisson likelihood, weight 1
    .. [6] J. N. Clark et al., Nat. Commun. 3, 993 (2012)
    .. [7] V. Favre-Nicolin, S. Leake, Y. Chushkin, Sci. Rep. 10, 2664 (2020)
    """
    place = resolve_device(device)
    amplitude, mask = _checked(torch.as_tensor(amplitude), mask)
    shape = (amplitude.shape[0], amplitude.shape[1], amplitude.shape[2])
    steps = parse(recipe) if isinstance(recipe, str) else list(recipe)
    beta = relaxation(amplitude, valid=mask) if beta is None else beta
    poisson, fit = likelihood == "poisson", coherence == "fit"
    settings = _settings(beta, shrink_every, sigma, threshold, phase_limits, poisson, fit)
    if settings.fit_coherence and not shrink_every:
        raise InputError("coherence", "fit, with no shrink-wrap at which to do it", "widths, or shrink_every above 0")
    widths = checked_widths(_WIDTH_AT_FIRST if coherence == "fit" else coherence or 0.0)
    free = free_pixels(shape, free_share, seed=seed) & mask
    if free_share and not free.any():
        raise InputError("free_share", f"{free_share}, no pixel that was measured", "a larger share")
    objects, supports = _begin(amplitude * mask, starts, initial, seed, support, sigma[0], threshold)
    measured = _measured(amplitude, mask & ~free, place)
    if measured.norm == 0:
        raise InputError("amplitude", "0 in every pixel that is not held out", "a diffraction pattern")
    size = max((together or _TOGETHER[place.type]) // amplitude.numel(), 1)

    def phased(pair: tuple[Tensor, Tensor]) -> list[Tensor]:
        # What is switched off by it is so in the present thread alone.
        with torch.no_grad():
            some, within = (tensor.to(place) for tensor in pair)
            scale = measured.norm / torch.linalg.vector_norm(some * within, dim=VOLUME, keepdim=True)
            blur = None
            if coherence is not None:
                blur = Blur((len(some), *shape[::-1]), torch.tensor([widths] * len(some), device=place))
            found = iterate(some * scale, within, measured, steps, settings, blur)
            judged = _free_log_likelihood(found.objects, amplitude.to(place), free.to(place), blur)
            spread = torch.zeros(len(some), 3) if blur is None else blur.widths
            return [tensor.cpu() for tensor in (*found, judged, spread)]

    pairs = list(zip(objects.split(size), supports.split(size), strict=True))
    threads = torch.get_num_threads()
    if place.type == "cpu" and len(pairs) > 1 and threads > 1:
        # Side by side, each by one thread, they wait for each other less than threads of one transform do.
        with limited_threads(1):
            parts = list(ordered_map(phased, pairs, workers=threads))
    else:
        parts = [phased(pair) for pair in pairs]
    return Retrieval(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _checked(amplitude: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Amplitude float32 with 0 where the mask (bool) is not."""
    if amplitude.ndim != 3 or min(amplitude.shape) < 1:
        raise InputError("amplitude", f"shape {tuple(amplitude.shape)}", "(z, y, x)")
    mask = torch.ones(amplitude.shape, dtype=torch.bool) if mask is None else torch.as_tensor(mask).cpu()
    if mask.shape != amplitude.shape:
        raise InputError("mask", f"shape {tuple(mask.shape)}", f"{tuple(amplitude.shape)}, that of the amplitude")
    mask = mask.bool()
    amplitude = torch.where(mask, amplitude.cpu().float(), 0)
    if not amplitude.isfinite().all():
        raise InputError("amplitude", f"{int((~amplitude.isfinite()).sum())} pixels not finite", "finite or masked")
    if amplitude.min() < 0:
        raise InputError("amplitude", f"{amplitude.min():.3g}", "at least 0")
    if amplitude.max() == 0:
        raise InputError("amplitude", "0 in every measured pixel", "a diffraction pattern")
    return amplitude, mask


def _settings(
    beta: float,
    shrink_every: int,
    sigma: tuple[float, float],
    threshold: float,
    phase_limits: tuple[float, float] | None,
    poisson: bool,
    fit_coherence: bool,
) -> Settings:
    if not 0 < beta <= 1:
        raise InputError("beta", str(beta), "above 0, at most 1")
    if shrink_every < 0:
        raise InputError("shrink_every", str(shrink_every), "at least 0")
    if not all(0 <= one < math.inf for one in sigma):
        raise InputError("sigma", f"{sigma} voxel", "at least 0")
    if not 0 < threshold < 1:
        raise InputError("threshold", str(threshold), "a share of the maximum, above 0 and below 1")
    if phase_limits is not None and not -math.pi <= phase_limits[0] < phase_limits[1] <= math.pi:
        raise InputError("phase_limits", f"{phase_limits} rad", "two rising phases between -pi and pi")
    return Settings(beta, shrink_every, sigma, threshold, phase_limits, poisson, fit_coherence)


def _begin(
    amplitude: Tensor,
    starts: int | Sequence[int],
    initial: Tensor | None,
    seed: int,
    support: float | Tensor,
    sigma: float,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Objects (start, z, y, x) complex64 and their supports, bool, to begin with."""
    shape = (amplitude.shape[0], amplitude.shape[1], amplitude.shape[2])
    if initial is not None:
        objects = torch.as_tensor(initial).cpu().to(torch.complex64)
        objects = objects[None] if objects.ndim == 3 else objects
        if objects.ndim != 4 or objects.shape[1:] != amplitude.shape:
            raise InputError("initial", f"shape {tuple(objects.shape)}", f"(n, {str(shape)[1:]}")
        if not (objects.isfinite().all() and objects.abs().amax(VOLUME).min() > 0):
            raise InputError("initial", "an object that is 0 or not finite", "complex objects")
        if starts not in (1, len(objects)):
            raise InputError("starts", f"{starts} with {len(objects)} initial objects", "1, or as many as there are")
        return objects, shrink_wrap(objects, sigma=sigma, threshold=threshold)
    numbers = range(starts) if isinstance(starts, int) else starts
    if not len(numbers) or min(numbers) < 0:
        raise InputError("starts", str(starts), "at least 1, or numbers of at least 0")
    first = torch.as_tensor(support).cpu().bool() if isinstance(support, Tensor) else box_support(shape, support)
    if first.shape != amplitude.shape or not first.any():
        raise InputError("support", f"shape {tuple(first.shape)}, {int(first.sum())} voxels", f"some of {shape}")
    objects = torch.stack(
        [torch.randn(shape, dtype=torch.complex64, generator=generator(seed, number)) for number in numbers]
    )
    return objects, first.expand(objects.shape)


def _measured(amplitude: Tensor, mask: Tensor, device: torch.device) -> Measured:
    """Put the volume (z, y, x) into the order of the iterations: (x, y, z), the zero frequency at index 0."""
    held, weight = (
        torch.fft.ifftshift(one).permute(2, 1, 0).contiguous().to(device) for one in (amplitude * mask, mask.float())
    )
    return Measured(held, weight, float(torch.linalg.vector_norm(held.double())))


def _free_log_likelihood(objects: Tensor, amplitude: Tensor, free: Tensor, blur: Blur | None) -> Tensor:
    if not free.any():
        return torch.full((len(objects),), math.nan)
    calculated = amplitude_of(objects)
    if blur is not None:
        # The blur is periodic, so where the zero frequency is does not matter to it.
        calculated = blur(calculated.square().permute(0, 3, 2, 1)).permute(0, 3, 2, 1).sqrt()
    return log_likelihood(calculated, amplitude, valid=free)
