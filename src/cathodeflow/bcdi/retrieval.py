"""Iterative phase retrieval: from a diffraction amplitude to complex objects."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cathodeflow.bcdi.coherence import Blur, detected_amplitude
from cathodeflow.bcdi.cpu_iterations import covers, iterate_on_cpu
from cathodeflow.bcdi.figures_of_merit import log_likelihood
from cathodeflow.bcdi.free_pixels import free_pixels
from cathodeflow.bcdi.iterations import Measured, iterate
from cathodeflow.bcdi.noise import relaxation
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.recipe import parse
from cathodeflow.bcdi.support import box_support, shrink_wrap, usual_sigma
from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.learning import limited_threads, resolve_device
from cathodeflow.parallel import ordered_map

#: Number of voxels, over several starts, computed at a time: on a CPU limited by its caches, on a GPU by its memory.
_TOGETHER = {"cpu": 2**18, "cuda": 2**27}

# Initial width of a fitted blur [px].
_FIRST_WIDTH = 0.5


class Retrieval(NamedTuple):
    """Result of phase retrieval, on the CPU.

    objects : (start, z, y, x) complex64
        The last iterate, projected on its support.
    supports : (start, z, y, x) bool
    errors : (start, iteration) float32
        Norm of |F(o)| - A relative to that of A, over the pixels used in phasing, after each iteration; the last one is
        that of the object.
    free_log_likelihood : (start,) float32 [nat per pixel]
        Poisson log-likelihood of the free pixels, higher is better; NaN if no pixel was excluded.
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
    options: Phase,
    *,
    mask: Tensor | None = None,
    initial: Tensor | None = None,
    first_support: Tensor | None = None,
    numbers: Sequence[int] | None = None,
    together: int | None = None,
) -> Retrieval:
    """Retrieve the phases of a diffraction volume from several starts at once.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Square root of the intensity, at least 0; zero frequency at index n // 2. Must be in square roots of counts if
        `beta` is None or `likelihood` is "poisson".
    options : Phase
        Algorithms of the recipe are ER, error reduction [1]_; HIO, hybrid input-output [2]_; RAAR, relaxed averaged
        alternating reflections [3]_; DM, the difference map [4]_. With `likelihood` "poisson" the wave is projected
        between the measured and the present amplitude, to the joint optimum of the Poisson likelihood of the counts and
        the squared distance to the present wave [5]_. With `coherence` the coherent intensity is blurred by a Gaussian
        [6]_, whose width, if fitted, is updated at every shrink-wrap. Free pixels are chosen as in [7]_.
    mask : (z, y, x) bool, optional
        True where a pixel was measured; the others are unconstrained, whatever their values. Default: all.
    initial : (z, y, x) or (start, z, y, x) complex64, optional
        Objects to start from instead of random ones, on any scale; their shrink-wrap gives the first supports, and
        their number is that of the starts.
    first_support : (z, y, x) bool, optional
        First support of random starts instead of the box of the options.
    numbers : sequence of int, optional
        Indices of the random starts, at least 0. Default: 0 to `options.starts` - 1. Start k of a seed is the same
        in any selection, except for rounding.
    together : int, optional
        Number of voxels, over several starts, computed at a time. Default: as suits the device.

    Returns
    -------
    Retrieval

    Raises
    ------
    InputError
        The amplitude is negative, not finite or 0 everywhere, or shapes do not match.

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
    device, seed = resolve_device(options.device or "auto"), options.seed or 0
    amplitude, mask = _checked(torch.as_tensor(amplitude), mask)
    shape = (amplitude.shape[0], amplitude.shape[1], amplitude.shape[2])
    if options.sigma is None:
        options = options.model_copy(update={"sigma": usual_sigma(shape)})
    steps = parse(options.recipe)
    beta = relaxation(amplitude, valid=mask) if options.beta is None else options.beta
    if options.coherence == "fit" and not options.shrink_every:
        raise InputError(
            "coherence", "fit, without shrink-wrap updates, at which it is fitted", "fixed, or shrink_every above 0"
        )
    width = _FIRST_WIDTH if options.coherence == "fit" else options.coherence_px
    free = free_pixels(shape, options.free_fraction, seed=seed) & mask
    if options.free_fraction and not free.any():
        raise InputError("free_fraction", f"{options.free_fraction}, no pixel that was measured", "a larger fraction")
    if initial is None:
        box = box_support(shape, options.support) if first_support is None else first_support
        objects, supports = _random_starts(shape, range(options.starts) if numbers is None else numbers, seed, box)
    else:
        objects, supports = _initial_starts(initial, shape, options)
    measured = _measured(amplitude, mask & ~free, device)
    if measured.norm == 0:
        raise InputError("amplitude", "0 in every pixel that is not excluded", "a diffraction pattern")
    lean = device.type == "cpu" and options.coherence == "full" and covers(steps, beta)
    # The loop for CPUs takes one start at a time, as its memory is that of one.
    size = 1 if lean else max((together or _TOGETHER[device.type]) // amplitude.numel(), 1)
    pairs = list(zip(objects.split(size), supports.split(size), strict=True))
    threads = torch.get_num_threads()

    def phased(pair: tuple[Tensor, Tensor]) -> list[Tensor]:
        # Gradients are disabled per thread.
        with torch.no_grad():
            some, within = (tensor.to(device) for tensor in pair)
            scale = measured.norm / torch.linalg.vector_norm(some * within, dim=VOLUME, keepdim=True)
            blur = None
            if options.coherence != "full":
                blur = Blur((len(some), *shape[::-1]), torch.full((len(some), 3), width, device=device))
            if lean:
                each = max(threads // len(pairs), 1)
                found = iterate_on_cpu(
                    (some * scale)[0], within[0], measured, steps, options, usual_beta=beta, workers=each
                )
            else:
                found = iterate(some * scale, within, measured, steps, options, blur, usual_beta=beta)
            widths = torch.zeros(len(some), 3) if blur is None else blur.widths
            judged = torch.full((len(some),), math.nan)
            if free.any():
                judged = log_likelihood(
                    detected_amplitude(found.objects, widths), amplitude.to(device), valid=free.to(device)
                )
            return [tensor.cpu() for tensor in (*found, judged, widths)]

    if device.type == "cpu" and threads > 1 and (lean or len(pairs) > 1):
        # In parallel with one thread each, they wait for each other less than several threads of one transform,
        # which stand still whenever one of them has to wait for another program.
        with limited_threads(1):
            parts = list(ordered_map(phased, pairs, workers=min(threads, len(pairs))))
    else:
        parts = [phased(pair) for pair in pairs]
    return Retrieval(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _checked(amplitude: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Amplitude float32 with 0 outside the mask, and the mask (bool)."""
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


def _initial_starts(initial: Tensor, shape: tuple[int, int, int], options: Phase) -> tuple[Tensor, Tensor]:
    """Given objects (start, z, y, x) complex64, and their shrink-wrap supports, bool."""
    objects = torch.as_tensor(initial).cpu().to(torch.complex64)
    objects = objects[None] if objects.ndim == 3 else objects
    if objects.ndim != 4 or objects.shape[1:] != shape:
        raise InputError("initial", f"shape {tuple(objects.shape)}", f"(n, {str(shape)[1:]}")
    if not (objects.isfinite().all() and objects.abs().amax(VOLUME).min() > 0):
        raise InputError("initial", "an object that is 0 or not finite", "complex objects")
    first = (options.sigma or usual_sigma(shape))[0]
    return objects, shrink_wrap(objects, sigma=first, threshold=options.threshold)


def _random_starts(
    shape: tuple[int, int, int], numbers: Sequence[int], seed: int, support: Tensor
) -> tuple[Tensor, Tensor]:
    """Random objects (start, z, y, x) complex64, and their common support for each, bool."""
    if not len(numbers) or min(numbers) < 0:
        raise InputError("numbers", str(numbers), "numbers of starts, at least 0")
    support = torch.as_tensor(support).cpu().bool()
    if support.shape != shape or not support.any():
        raise InputError(
            "first_support", f"shape {tuple(support.shape)}, {int(support.sum())} voxels", f"some of {shape}"
        )
    objects = torch.stack(
        [torch.randn(shape, dtype=torch.complex64, generator=generator(seed, number)) for number in numbers]
    )
    return objects, support.expand(objects.shape)


def _measured(amplitude: Tensor, mask: Tensor, device: torch.device) -> Measured:
    """Transpose the volume (z, y, x) to the order of the iterations: (x, y, z), zero frequency at index 0."""
    constraint, weight = (
        torch.fft.ifftshift(volume).permute(2, 1, 0).contiguous().to(device)
        for volume in (amplitude * mask, mask.float())
    )
    return Measured(constraint, weight, float(torch.linalg.vector_norm(constraint.double())))
