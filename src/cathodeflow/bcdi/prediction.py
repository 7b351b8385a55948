"""Prediction of objects from measured amplitudes with a trained network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.bcdi.losses import residuals
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.network_options import Evaluate, Infer
from cathodeflow.bcdi.operators import VOLUME, fourier, inverse_fourier
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision

#: Number of voxels that are computed at a time.
_TOGETHER = {"cpu": 2**18, "cuda": 2**23}
# Fraction of the maximum amplitude below which values on finer voxels are ringing caused by the crop.
_RINGING = 0.1


class Inferred(NamedTuple):
    """Objects predicted by a network, on the CPU, sorted by residual, the lowest first.

    objects : (candidates, z, y, x) complex64
        Scaled so that |F(o)| has the norm of the amplitude; 0 outside the supports.
    supports : (candidates, z, y, x) bool
        Where the network's amplitude is above its threshold.
    residuals : (candidates,) float32
        Norm of |F(o)| - amplitude relative to that of the amplitude, over the measured pixels; 1 for an object of
        zeros.

    For several volumes, all arrays have a leading axis for the volumes.
    """

    objects: Tensor
    supports: Tensor
    residuals: Tensor


def predict_objects(model: PhaseNetwork, amplitude: Any, options: Infer | Evaluate, *, mask: Any = None) -> Inferred:
    """Predict objects; apart from the results, memory use does not depend on the number of volumes.

    Parameters
    ----------
    model : PhaseNetwork
        Moved to the device and set to evaluation mode.
    amplitude : (z, y, x) or (n, z, y, x) float32
        Square root of the intensity, on any scale, zero frequency at index n // 2; sides divisible by `model.stride`.
    options : Infer or Evaluate
        With `side`, the network is applied to the central crop of the pattern, at most this wide along each axis, so
        that a network trained on small volumes can be used for large ones of the same oversampling. The objects are on
        the voxels of the whole pattern, with the resolution of that crop.
    mask : (z, y, x) bool, optional
        True where a pixel was measured; the values of the others are ignored. Default: all.

    Raises
    ------
    InputError
        Shapes do not match, or a volume is 0 everywhere, negative or not finite.
    """
    device, side = resolve_device(options.device or "auto"), options.side
    model = model.to(device).eval()
    whole = np.shape(amplitude)[-3:]
    if side is not None:
        amplitude, mask = (None if volume is None else middle(np.asarray(volume), side) for volume in (amplitude, mask))
    volumes = checked(model, amplitude, mask)
    autocast = resolve_precision(options.precision, device) != "32-true"
    valid = None if mask is None else torch.as_tensor(np.asarray(mask), device=device).bool()
    size = max(_TOGETHER[device.type] // volumes[0].numel(), 1)
    found: list[Inferred] = []
    with torch.inference_mode():
        for part in volumes.split(size):
            measured = part.to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                objects = model(measured)
            found.append(_sorted(objects, measured, valid))
    joined = Inferred(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    if volumes.shape[1:] != whole:
        joined = _on_voxels(joined, whole)
    return joined if np.ndim(amplitude) == 4 else Inferred(*(tensor[0] for tensor in joined))


def middle(volumes: NDArray[Any], side: int) -> NDArray[Any]:
    """Crop (..., z, y, x) around index n // 2 to this side along longer axes."""
    cuts = [slice(n // 2 - min(n, side) // 2, n // 2 - min(n, side) // 2 + min(n, side)) for n in volumes.shape[-3:]]
    return volumes[(..., *cuts)]  # type: ignore[arg-type]


def checked(model: PhaseNetwork, amplitude: Any, mask: Any = None) -> Tensor:
    """Amplitudes (n, z, y, x) float32 that a network can use, 0 where nothing was measured.

    Raises
    ------
    InputError
        As in `predict_objects`.
    """
    volumes = torch.as_tensor(np.asarray(amplitude)).float()
    volumes = volumes[None] if volumes.ndim == 3 else volumes
    if volumes.ndim != 4 or not len(volumes):
        raise InputError("amplitude", f"shape {tuple(volumes.shape)}", "(z, y, x) or (n, z, y, x)")
    model.check(volumes.shape[1:])
    if mask is not None:
        if np.shape(mask) != tuple(volumes.shape[1:]):
            raise InputError("mask", f"shape {np.shape(mask)}", f"{tuple(volumes.shape[1:])}, that of a volume")
        volumes = torch.where(torch.as_tensor(np.asarray(mask)).bool(), volumes, 0.0)
    for number, volume in enumerate(volumes):
        lowest, highest = float(volume.min()), float(volume.max())
        if not 0 <= lowest <= highest < np.inf or highest == 0:
            found = "0 everywhere" if lowest == highest == 0 else f"from {lowest:.3g} to {highest:.3g}"
            raise InputError("amplitude", f"volume {number} {found}", "finite values, at least 0, and some above 0")
    return volumes


def _on_voxels(found: Inferred, shape: Sequence[int]) -> Inferred:
    """Interpolate objects to the voxels of a larger pattern; their waves are 0 outside its central crop."""
    waves = fourier(found.objects)
    before = [n // 2 - m // 2 for n, m in zip(shape, waves.shape[-3:], strict=True)]
    after = [n - m - start for n, m, start in zip(shape, waves.shape[-3:], before, strict=True)]
    pads = [amount for pair in zip(reversed(before), reversed(after), strict=True) for amount in pair]
    fine = inverse_fourier(F.pad(waves, pads))
    size = fine.abs()
    kept = size > _RINGING * size.amax(VOLUME, keepdim=True)
    return Inferred(torch.where(kept, fine, 0), kept, found.residuals)


def _sorted(objects: Tensor, measured: Tensor, valid: Tensor | None) -> Inferred:
    residual = residuals(objects, measured, mask=valid)
    residual, order = residual.sort(1)
    objects = objects.gather(1, order[..., None, None, None].expand_as(objects))
    norms = [torch.linalg.vector_norm(part, dim=VOLUME, keepdim=True) for part in (objects, measured[:, None])]
    scaled = objects * (norms[1] / norms[0].clamp_min(torch.finfo(torch.float32).tiny))
    return Inferred(scaled.cpu(), (objects != 0).cpu(), residual.cpu())
