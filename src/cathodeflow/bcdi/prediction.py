"""From measured amplitudes to images with a trained network."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.bcdi.losses import residuals
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.operators import VOLUME, fourier, inverse_fourier
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision

#: Voxels of volumes that are computed at a time.
_TOGETHER = {"cpu": 2**18, "cuda": 2**23}
# Of the highest amplitude: what is fainter on finer voxels is the ringing of what was cut off.
_RINGING = 0.1


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


def predict_objects(
    model: PhaseNetwork,
    amplitude: Any,
    *,
    mask: Any = None,
    side: int | None = None,
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
    side : int, optional
        Show the network the middle of the pattern alone, at most this wide along each axis, so that what was trained on
        small volumes serves large ones of the same oversampling. The objects lie on the voxels of the whole pattern,
        but are as coarse as that middle. Default: all of it.
    device : {"auto", "cpu", "cuda"}
    precision : {"auto", "bf16-mixed", "32-true"}

    Raises
    ------
    InputError
        When shapes do not fit, or a volume is 0 everywhere, negative or not finite.
    """
    place = resolve_device(device)
    model = model.to(place).eval()
    whole = np.shape(amplitude)[-3:]
    if side is not None:
        amplitude, mask = (None if one is None else middle(np.asarray(one), side) for one in (amplitude, mask))
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
    if volumes.shape[1:] != whole:
        joined = _on_voxels(joined, whole)
    return joined if np.ndim(amplitude) == 4 else Inferred(*(tensor[0] for tensor in joined))


def middle(volumes: NDArray[Any], side: int) -> NDArray[Any]:
    """Cut (..., z, y, x) around index n // 2 to this side, where it is longer."""
    cuts = [slice(n // 2 - min(n, side) // 2, n // 2 - min(n, side) // 2 + min(n, side)) for n in volumes.shape[-3:]]
    return volumes[(..., *cuts)]  # type: ignore[arg-type]


def checked(model: PhaseNetwork, amplitude: Any, mask: Any = None) -> Tensor:
    """Amplitudes (n, z, y, x) float32 that a network can use, 0 where nothing was measured.

    Raises
    ------
    InputError
        As of `predict_objects`.
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


def _on_voxels(found: Inferred, shape: Sequence[int]) -> Inferred:
    """Bring objects to the voxels of a larger pattern, beyond whose middle their waves are 0."""
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
