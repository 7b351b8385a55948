"""From measured amplitudes to images with a trained network."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cathodeflow.bcdi.losses import residuals
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision

#: Voxels of volumes that are computed at a time.
_TOGETHER = {"cpu": 2**18, "cuda": 2**23}


class Inferred(NamedTuple):
    """Images that a network found, on the CPU, the candidate of the lowest residual first.

    objects : (candidates, z, y, x) complex64
        Scaled so that |F(o)| has the norm of the amplitude; 0 outside the supports.
    supports : (candidates, z, y, x) bool
        Where the network's amplitude is above its threshold.
    residuals : (candidates,) float32
        Norm of |F(o)| less the amplitude over that of the amplitude, where it was measured; 1 for an object of zeros.

    Of several volumes all have a leading axis for them.
    """

    objects: Tensor
    supports: Tensor
    residuals: Tensor


def infer(
    model: PhaseNetwork,
    amplitude: Any,
    *,
    mask: Any = None,
    device: str = "auto",
    precision: str = "auto",
) -> Inferred:
    """Predict objects; memory beside the results does not grow with the number of volumes.

    Parameters
    ----------
    model : PhaseNetwork
        It ends on the device, in evaluation mode.
    amplitude : (z, y, x) or (n, z, y, x) float32
        Square root of the intensity, of any scale, zero frequency at index n // 2; sides divisible by `model.stride`.
    mask : (z, y, x) bool, optional
        True where a pixel was measured; what stands in the others is not looked at. Default: all.
    device : {"auto", "cpu", "cuda"}
    precision : {"auto", "bf16-mixed", "32-true"}

    Raises
    ------
    InputError
        When shapes do not fit, or a volume is 0 everywhere, negative or not finite.
    """
    place = resolve_device(device)
    model = model.to(place).eval()
    volumes = checked(model, amplitude, mask)
    autocast = resolve_precision(precision, place) != "32-true"
    valid = None if mask is None else torch.as_tensor(np.asarray(mask), device=place).bool()
    size = max(_TOGETHER[place.type] // volumes[0].numel(), 1)
    found: list[Inferred] = []
    with torch.inference_mode():
        for part in volumes.split(size):
            measured = part.to(place)
            with torch.autocast(place.type, torch.bfloat16, enabled=autocast):
                objects = model(measured)
            found.append(_sorted(objects, measured, valid))
    joined = Inferred(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    return joined if np.ndim(amplitude) == 4 else Inferred(*(tensor[0] for tensor in joined))


def checked(model: PhaseNetwork, amplitude: Any, mask: Any = None) -> Tensor:
    """Amplitudes (n, z, y, x) float32 that a network can use, 0 where nothing was measured.

    Raises
    ------
    InputError
        As of `infer`.
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
        least, most = float(volume.min()), float(volume.max())
        if not 0 <= least <= most < np.inf or most == 0:
            found = "0 everywhere" if least == most == 0 else f"from {least:.3g} to {most:.3g}"
            raise InputError("amplitude", f"volume {number} {found}", "finite, at least 0, more somewhere")
    return volumes


def _sorted(objects: Tensor, measured: Tensor, valid: Tensor | None) -> Inferred:
    residual = residuals(objects, measured, mask=valid)
    residual, order = residual.sort(1)
    objects = objects.gather(1, order[..., None, None, None].expand_as(objects))
    norms = [torch.linalg.vector_norm(part, dim=VOLUME, keepdim=True) for part in (objects, measured[:, None])]
    scaled = objects * (norms[1] / norms[0].clamp_min(torch.finfo(torch.float32).tiny))
    return Inferred(scaled.cpu(), (objects != 0).cpu(), residual.cpu())
