"""The loop of `iterations` for one start on a CPU: the same steps, with compiled passes between the transforms.

The volume is swept in parts of a few x planes that fit the second cache: a part of the iterate is updated,
transformed along z, scaled to the measured modulus and transformed back before the next one is read. Threads are for
several starts; only large volumes, for which one start takes minutes, divide the parts among threads.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cathodeflow.bcdi import kernels
from cathodeflow.bcdi.iterations import Found, Measured
from cathodeflow.bcdi.operators import bounding_box, within_phase
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.recipe import Step, total_iterations
from cathodeflow.bcdi.support import shrink_wrap, sigma_at, usual_sigma

# Complex numbers per part of the volume: 512 KB.
_PART = 2**16
# Number of voxels from which the parts of one start may be divided among threads.
_LARGE = 2**20

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


def covers(steps: list[Step], usual_beta: float) -> bool:
    """Return whether this loop has all algorithms of a recipe: all but a difference map of a beta other than 1."""
    return all(step.algorithm != "DM" or (usual_beta if step.beta is None else step.beta) == 1 for step in steps)


def iterate_on_cpu(
    first: Tensor,
    support: Tensor,
    measured: Measured,
    steps: list[Step],
    options: Phase,
    *,
    usual_beta: float,
    workers: int = 1,
) -> Found:
    """Run all iterations of a recipe for one start; parameters and result as in `iterations.iterate`, for one start.

    Parameters
    ----------
    first : (z, y, x) complex64
    support : (z, y, x) bool
    measured : Measured
    steps : list of Step
    options : Phase
        With full coherence.
    usual_beta : float
    workers : int
        Threads for the parts of a large volume.
    """
    total = total_iterations(steps)
    errors = torch.empty(total + 1)
    with _mapping(workers if first.numel() >= _LARGE else 1) as mapping:
        volume = _Volume(measured, poisson=options.likelihood == "poisson", mapping=mapping)
        box = _Box(support, measured.amplitude.shape)
        x = torch.where(box.inside, box.cut(first), 0)
        box.enter(x)
        keep, share = 0.0, 0.0
        pending = True
        sequence = (step for step in steps for _ in range(step.iterations))
        for number, step in enumerate(sequence, 1):
            errors[number - 1] = volume.sweep(box, (keep, share) if pending else None)
            y = box.leave()
            allowed = box.inside & within_phase(y, options.phase_limits) if options.phase_limits else box.inside
            beta = usual_beta if step.beta is None else step.beta
            keep, share = {"ER": (0.0, 0.0), "RAAR": (beta, 1 - 2 * beta)}.get(step.algorithm, (1.0, -beta))
            shrink = number == total or (options.shrink_every and number % options.shrink_every == 0)
            # The projected iterate: the iterate itself has the feedback outside the support, so its support would grow.
            current = torch.where(allowed, y, 0) if shrink else None
            if number == total:
                break
            kernels.update(
                box.lines.numpy(), x.numpy(), allowed.numpy(), box.first[2], np.float32(keep), np.float32(share)
            )
            box.enter()
            pending = current is None
            if current is not None:
                volume.advance(box, keep, share)
                sigma = sigma_at(options.sigma or usual_sigma(box.shape), number / total)
                support = shrink_wrap(box.whole(current.abs())[None], sigma=sigma, threshold=options.threshold)[0]
                box = _Box(support, measured.amplitude.shape)
                x = volume.inverse(box)
        assert current is not None
        found, inside = box.whole(current), box.whole(box.inside)
        box.enter(current)
        errors[total] = volume.sweep(box, (0.0, 0.0))
    return Found(found[None], inside[None], errors[None, 1:])


@contextmanager
def _mapping(workers: int) -> Iterator[Map]:
    if workers == 1:
        yield map
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool.map


class _Box:
    """Transforms along x and y from and to the box around a support (z, y, x), outside of which all values are 0.

    `planes` (x, z of the box, y) are the interface to the volume: contributions to its columns, or copies of them.
    """

    def __init__(self, support: Tensor, shape: torch.Size) -> None:
        self.shape, self.box = support.shape, bounding_box(support)
        self.first = [side.start for side in self.box]
        self.inside = support[self.box].contiguous()
        depth, height, _ = self.inside.shape
        width, whole_height, _ = shape
        self.lines, self.turned = (torch.zeros(depth, height, width, dtype=torch.complex64) for _ in range(2))
        # What enters and what leaves have planes of their own: those that enter stay 0 outside the box in y.
        self.entering, self.leaving, self.planes = (
            torch.zeros(width, depth, whole_height, dtype=torch.complex64) for _ in range(3)
        )

    def cut(self, volume: Tensor) -> Tensor:
        return volume[self.box].contiguous()

    def whole(self, inside: Tensor) -> Tensor:
        volume = inside.new_zeros(self.shape)
        volume[self.box] = inside
        return volume

    def enter(self, inside: Tensor | None = None) -> None:
        """Transform an object in the box (default: what is in `lines`) to `planes`."""
        if inside is not None:
            self.lines.zero_()[..., self.box[2]] = inside
        torch.fft.fft(self.lines, norm="ortho", out=self.turned)
        kernels.put_lines(self.turned.numpy(), self.entering.numpy(), self.first[1])
        torch.fft.fft(self.entering, norm="ortho", out=self.planes)

    def leave(self) -> Tensor:
        """Transform `planes` back to the object in the box, a view of `lines`."""
        torch.fft.ifft(self.planes, norm="ortho", out=self.leaving)
        kernels.take_lines(self.leaving.numpy(), self.turned.numpy(), self.first[1])
        torch.fft.ifft(self.turned, norm="ortho", out=self.lines)
        return self.lines[..., self.box[2]]


class _Volume:
    """The iterate as columns (x, y, z), transformed along x and y, and the same after the projection of its wave."""

    def __init__(self, measured: Measured, *, poisson: bool, mapping: Map) -> None:
        shape = measured.amplitude.shape
        amplitude = torch.where(measured.weight > 0, measured.amplitude, float(kernels.UNMEASURED))
        self.norm, self.mapping = measured.norm, mapping
        columns, back = (torch.zeros(shape, dtype=torch.complex64) for _ in range(2))
        planes = max(_PART // (shape[1] * shape[2]), 1)
        # Relative to the norm, far below the resolution of float32.
        least = max((1e-15 * measured.norm) ** 2, 1e-37)
        # One after the other, the parts share the memory of their waves, which then stays in the cache.
        shared = torch.empty(planes, *shape[1:], dtype=torch.complex64)
        self.parts = []
        for start in range(0, shape[0], planes):
            where = slice(start, min(start + planes, shape[0]))
            waves = shared[: where.stop - start] if mapping is map else torch.empty_like(columns[where])
            self.parts.append(_Part(where, columns[where], back[where], waves, amplitude[where], least, poisson))

    def sweep(self, box: _Box, factors: tuple[float, float] | None) -> float:
        """Update the iterate (`advance`, if factors are given), project its wave, and copy the result to the box.

        Returns
        -------
        float
            Error of the wave before the projection.
        """

        def each(part: _Part) -> float:
            planes = box.planes[part.where].numpy()
            if factors is not None:
                part.advance(planes, box.first[0], *factors)
            return part.project(planes, box.first[0])

        return math.sqrt(sum(self.mapping(each, self.parts))) / self.norm

    def advance(self, box: _Box, keep: float, share: float) -> None:
        """Set the iterate to keep times itself plus share times its projection plus the planes of the box."""
        for part in self.parts:
            part.advance(box.planes[part.where].numpy(), box.first[0], keep, share)

    def inverse(self, box: _Box) -> Tensor:
        """Transform the iterate back to the object in another box."""
        for part in self.parts:
            kernels.take_planes(part.columns, box.planes[part.where].numpy(), box.first[0])
        return box.leave().contiguous()


class _Part:
    """A few x planes of the volume: tensors, and the same memory as arrays."""

    def __init__(
        self,
        where: slice,
        columns: Tensor,
        back: Tensor,
        waves: Tensor,
        amplitude: Tensor,
        least: float,
        poisson: bool,
    ) -> None:
        self.where, self.tensors = where, (columns, back, waves)
        self.columns, self.back = columns.numpy(), back.numpy()
        self.pairs = [torch.view_as_real(values).view(-1).numpy() for values in self.tensors]
        self.amplitude = amplitude.reshape(-1).numpy()
        self.least, self.poisson = np.float32(least), poisson

    def advance(self, planes: kernels.Complexes, first: int, keep: float, share: float) -> None:
        if keep or share:
            kernels.mix(*self.pairs[:2], np.float32(keep), np.float32(share))
        else:
            self.columns.fill(0)
        kernels.add_planes(self.columns, planes, first)

    def project(self, planes: kernels.Complexes, first: int) -> float:
        columns, back, waves = self.tensors
        torch.fft.fft(columns, norm="ortho", out=waves)
        squares: float = kernels.project(self.pairs[2], self.amplitude, self.least, self.poisson)
        torch.fft.ifft(waves, norm="ortho", out=back)
        kernels.take_planes(self.back, planes, first)
        return squares
