"""Standard errors of BraggNN's positions, by propagation of the counting noise through the network."""

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.bragg.model import BraggNN

Float32 = NDArray[np.float32]


def counting_errors(
    model: BraggNN, patches: Float32, counts: Float32, *, gain: float, batch_size: int
) -> tuple[Float32, Float32]:
    """Propagate the counting noise of each pixel to the position, to first order.

    The variance is the sum over pixels of gain * counts * (d position / d counts)^2; the derivative comes from one
    backward pass per axis and includes the scaling of a patch by its lowest and highest pixel. The prediction error of
    the network is not included: for bright peaks, add its error on the validation set.

    Parameters
    ----------
    model : BraggNN
    patches : (n, patch_size, patch_size) float32
        Prepared patches.
    counts : (n, 2) float32
        Intensities that 0 and 1 correspond to in each patch [counts].
    gain : float
        Detector counts per photon.
    batch_size : int
        Patches per batch.

    Returns
    -------
    row_std, col_std : (n,) float32
        [px]; NaN for patches with fewer than two pixels, where the derivative does not exist.
    """
    device = next(model.parameters()).device
    errors = np.empty((2, len(patches)), np.float32)
    for start in range(0, len(patches), batch_size):
        part = slice(start, start + batch_size)
        inputs = torch.from_numpy(patches[part, None]).to(device).requires_grad_()
        limits = torch.from_numpy(counts[part]).to(device)
        with torch.enable_grad():
            position = model(inputs) * model.patch_size
            gradients = [
                torch.autograd.grad(position[:, axis].sum(), inputs, retain_graph=axis == 0)[0] for axis in (0, 1)
            ]
        with torch.no_grad():
            pixels, low = inputs.flatten(1), limits[:, :1]
            height = limits[:, 1:] - low
            variance = gain * (pixels * height + low)
            for result, gradient in zip((errors[1], errors[0]), gradients, strict=True):
                slope = gradient.flatten(1).clone()
                through_high = -(slope * pixels).sum(1, keepdim=True)
                through_low = (slope * (pixels - 1)).sum(1, keepdim=True)
                slope.scatter_add_(1, pixels.argmax(1, keepdim=True), through_high)
                slope.scatter_add_(1, pixels.argmin(1, keepdim=True), through_low)
                squared = (slope.square() * variance).sum(1) / height[:, 0].square()
                result[part] = torch.where(squared > 0, squared.sqrt(), torch.nan).cpu().numpy()
    return errors[0], errors[1]
