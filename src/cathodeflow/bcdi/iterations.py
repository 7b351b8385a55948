"""The loop of iterative phasing, ordered so that an iteration is little more than two short Fourier transforms.

With y = P_M x, every algorithm here is x' = a x + c z + u, where u is zero outside the support, and z = y except in the
difference map. For example, HIO is x - beta y outside, and u = (1 + beta) y - x makes it y inside. So the iterate
need not be known in real space outside the support: it is kept as columns transformed along x and y, to which z (on
the way back from the detector) and u are added. Only the box around the support of y and u is needed, and all
transforms except those along z are pruned to it.

Objects are (start, z, y, x), waves and columns (start, x, y, z), so that every transform reads or writes contiguous
memory. Objects have their centre at index n // 2, waves the zero frequency at index 0; this shifts the object by half
the volume, which only multiplies its wave by phase factors that do not affect any step of an iteration.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from cathodeflow.bcdi.coherence import Blur
from cathodeflow.bcdi.operators import bounding_box, within_phase
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.recipe import Step, total_iterations
from cathodeflow.bcdi.support import shrink_wrap, sigma_at, usual_sigma

#: Minimum fraction of the coherent intensity of a pixel that remains in it after a blur.
_OWN_SHARE = 0.1


class Measured(NamedTuple):
    """Measured amplitude, the constraint of the waves.

    amplitude : (x, y, z) float32, zero frequency at index 0; 0 where there is no constraint.
    weight : (x, y, z) float32, 1 where there is a constraint, else 0.
    norm : float, of the amplitude.
    """

    amplitude: Tensor
    weight: Tensor
    norm: float


class Found(NamedTuple):
    """Objects (start, z, y, x) complex64, their supports (start, z, y, x) bool and errors (start, iteration)."""

    objects: Tensor
    supports: Tensor
    errors: Tensor


class _Box:
    """Transforms along x and y from and to a box of the volume, outside of which all values are zero."""

    def __init__(self, shape: torch.Size, box: tuple[slice, slice, slice], device: torch.device) -> None:
        self.shape, self.box = shape, box
        starts, _, height, width = shape
        depth_inside, height_inside = (side.stop - side.start for side in box[:2])
        self.lines = torch.zeros(starts, depth_inside, height_inside, width, dtype=torch.complex64, device=device)
        self.planes = self.lines.new_zeros(starts, depth_inside, height, width)

    def columns(self, inside: Tensor) -> Tensor:
        """Transform objects in the box (start, z, y, x) to the part of the columns (start, x, y, z) that is not 0."""
        self.lines[..., self.box[2]] = inside
        self.planes[:, :, self.box[1]] = torch.fft.fft(self.lines, norm="ortho")
        return torch.fft.fft(self.planes, dim=2, norm="ortho").permute(0, 3, 2, 1)

    def filled(self, inside: Tensor) -> Tensor:
        """Transform objects in the box (start, z, y, x) to whole columns (start, x, y, z)."""
        starts, depth, height, width = self.shape
        columns = self.lines.new_zeros(starts, width, height, depth)
        columns[..., self.box[0]] = self.columns(inside)
        return columns

    def inverse(self, columns: Tensor) -> Tensor:
        """Transform columns (start, x, y, z) back to the part of their objects in the box (start, z, y, x)."""
        z, y, x = self.box
        planes = torch.fft.ifft(columns[..., z], dim=2, norm="ortho")[:, :, y]
        return torch.fft.ifft(planes, dim=1, norm="ortho")[:, x].permute(0, 3, 2, 1).contiguous()

    def cut(self, volumes: Tensor) -> Tensor:
        """Copy the box out of volumes (start, z, y, x)."""
        z, y, x = self.box
        return volumes[:, z, y, x].contiguous()

    def whole(self, inside: Tensor) -> Tensor:
        """Insert the box into volumes (start, z, y, x) of zeros."""
        z, y, x = self.box
        volumes = inside.new_zeros(self.shape)
        volumes[:, z, y, x] = inside
        return volumes


class _Detector:
    """Comparison of the modulus of waves (start, x, y, z) with the measured one; memory is reused."""

    def __init__(self, measured: Measured, shape: torch.Size, blur: Blur | None, poisson: bool) -> None:
        self.measured, self.blur, self.poisson = measured, blur, poisson
        missing = (measured.weight == 0).expand(shape).flatten().nonzero().flatten()
        self.missing = missing if len(missing) else None
        self.modulus = torch.empty(shape, device=measured.amplitude.device)
        self.projected = torch.empty(shape, dtype=torch.complex64, device=measured.amplitude.device)

    def intensity(self, waves: Tensor) -> Tensor:
        # Four to six times as fast as the modulus of complex numbers, which avoids overflow.
        squares = torch.view_as_real(self.projected)
        torch.mul(torch.view_as_real(waves), torch.view_as_real(waves), out=squares)
        return torch.add(squares[..., 0], squares[..., 1], out=self.modulus)

    def compare(self, waves: Tensor) -> Tensor:
        """Calculate and keep the modulus; return the error of each start (start,)."""
        intensity = self.intensity(waves)
        if self.blur is not None:
            # A positive blur leaves at least this intensity in a pixel; without the bound, rounding could make it 0.
            intensity = torch.maximum(self.blur(intensity), intensity.mul_(_OWN_SHARE))
        modulus = intensity.sqrt_()
        if self.missing is not None:
            modulus.view(-1).index_fill_(0, self.missing, 0)
        self.modulus = modulus
        # In memory that is overwritten next.
        scratch = torch.view_as_real(self.projected).view(-1)[: modulus.numel()].view(modulus.shape)
        difference = torch.sub(modulus, self.measured.amplitude, out=scratch)
        return torch.linalg.vector_norm(difference.flatten(1), dim=1) / self.measured.norm

    def project(self, waves: Tensor) -> Tensor:
        """Scale the waves of the last `compare` to the measured modulus; the next call overwrites the result."""
        amplitude, modulus = self.measured.amplitude, self.modulus
        if self.poisson:
            # Proximity operator of the Poisson likelihood with weight 1 (Soulez et al. 2016, section 3.B).
            scale = (modulus + (modulus.square() + 8 * amplitude.square()).sqrt_()).mul_(0.25)
        else:
            scale = amplitude
        # Relative to the norm, far below the resolution of float32: avoids 0 / 0.
        factor = torch.div(scale, modulus.clamp_min_(1e-15 * self.measured.norm), out=modulus)
        if self.missing is not None:
            factor.view(-1).index_fill_(0, self.missing, 1)
        # A product of complex and real numbers would make a complex copy of the latter.
        return self.projected.copy_(factor).mul_(waves)


def iterate(
    objects: Tensor,
    supports: Tensor,
    measured: Measured,
    steps: list[Step],
    options: Phase,
    blur: Blur | None,
    *,
    usual_beta: float,
) -> Found:
    """Run all iterations of a recipe.

    Parameters
    ----------
    objects : (start, z, y, x) complex64
        Initial objects; set to 0 outside their supports.
    supports : (start, z, y, x) bool
    measured : Measured
    steps : list of Step
    options : Phase
    blur : Blur, optional
        Blur by partial coherence; if its widths are fitted, they are updated.
    usual_beta : float
        Feedback or relaxation of steps without their own.
    """
    total, device = total_iterations(steps), objects.device
    errors = torch.empty(total + 1, len(objects), device=device)
    shape = torch.Size((len(objects), *measured.amplitude.shape))
    detector = _Detector(measured, shape, blur, options.likelihood == "poisson")
    box, inside = _boxed(supports, device)
    x = torch.where(inside, box.cut(objects), 0)
    columns = box.filled(x)
    sequence = (step for step in steps for _ in range(step.iterations))
    for number, step in enumerate(sequence, 1):
        waves = _along_z(columns)
        errors[number - 1] = detector.compare(waves)
        back = _back_along_z(detector.project(waves))
        y = box.inverse(back)
        allowed = inside & within_phase(y, options.phase_limits) if options.phase_limits else inside
        beta = usual_beta if step.beta is None else step.beta
        if step.algorithm == "ER":
            x = torch.where(allowed, y, 0)
            columns.zero_()[..., box.box[0]] = box.columns(x)
        else:
            keep, mix = (beta, 1 - 2 * beta) if step.algorithm == "RAAR" else (1.0, -beta)
            z = y
            if step.algorithm == "DM" and beta != 1:
                # Elser 2003, equations 10 to 12, gamma_M = 1 / beta, gamma_S = -1 / beta.
                waves = _along_z(box.filled(torch.where(inside, x, 0))).mul_(1 - 1 / beta).add_(waves, alpha=1 / beta)
                detector.compare(waves)
                back = _back_along_z(detector.project(waves))
                z = box.inverse(back)
            update = torch.where(allowed, (1 - mix) * y - keep * x, 0)
            x = keep * x + mix * z + update
            if keep != 1:
                columns.mul_(keep)
            columns.add_(back, alpha=mix)[..., box.box[0]].add_(box.columns(update).contiguous())
        if number == total:
            break
        if options.shrink_every and number % options.shrink_every == 0:
            # The projected iterate: the iterate itself has the feedback outside the support, so its support would grow.
            current = torch.where(allowed, y, 0)
            if blur is not None and options.coherence == "fit":
                intensity = detector.intensity(_along_z(box.filled(current)))
                blur.fit(intensity, measured.amplitude, measured.weight)
            sigma = sigma_at(options.sigma or usual_sigma(box.shape[1:]), number / total)
            supports = shrink_wrap(box.whole(current.abs()), sigma=sigma, threshold=options.threshold)
            box, inside = _boxed(supports, device)
            x = box.inverse(columns)
    final = torch.where(allowed, y, 0)
    errors[total] = detector.compare(_along_z(box.filled(final)))
    return Found(box.whole(final), box.whole(inside), errors[1:].T)


def _along_z(columns: Tensor) -> Tensor:
    return torch.fft.fft(columns, norm="ortho")


def _back_along_z(waves: Tensor) -> Tensor:
    return torch.fft.ifft(waves, norm="ortho")


def _boxed(supports: Tensor, device: torch.device) -> tuple[_Box, Tensor]:
    """Return the box around supports (start, z, y, x), and the part of the supports in it."""
    box = _Box(supports.shape, bounding_box(supports), device)
    return box, box.cut(supports)
