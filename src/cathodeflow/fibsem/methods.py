"""Methods that are compared: each computes a segmentation from the mean logits of a global network."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cathodeflow.fibsem.idk import classify_pixels, idk_probability
from cathodeflow.fibsem.local_prediction import predict_pixels
from cathodeflow.fibsem.phases import Phases, assemble, entropy, subtract_prior
from cathodeflow.fibsem.windows import pad_slices

#: Processing of the logits: none; class weights of the loss removed; a network on the output of each pixel; LCGAR.
Kind = Literal["network", "prior", "mlp", "local"]


class Method(NamedTuple):
    """A segmentation method.

    name : str, as in the tables.
    network : str, its global network.
    kind : processing of the logits.
    helpers : str, the method with a local model whose pixel networks are used; "" for `network` and `prior`.
    decides : pixels that the local model decides: IDK pixels, or all.
    """

    name: str
    network: str
    kind: Kind
    helpers: str = ""
    decides: Literal["idk", "all"] = "idk"


class Segmentation(NamedTuple):
    """A segmentation, and its IDK pixels: (n, row, col) bool, None for methods without a local model."""

    phases: Phases
    idk: Tensor | None


def all_methods(
    weights: Mapping[str, Sequence[float]], local: Mapping[str, str], everywhere: Collection[str] = ()
) -> list[Method]:
    """List all methods that are compared, with their controls.

    Parameters
    ----------
    weights : mapping
        Class weights of the loss of each global network.
    local : mapping
        Methods with a local model, and the global network of each.
    everywhere : collection of str
        Those whose local model decides all pixels.

    Examples
    --------
    >>> [method.name for method in all_methods({"unet": [1, 1], "ugsm": [1.5, 0.5]}, {"matphase": "ugsm"})]
    ['unet', 'ugsm', 'ugsm_prior', 'ugsm_mlp', 'matphase']
    """
    found = []
    for network, own in weights.items():
        found.append(Method(network, network, "network"))
        if max(own) > min(own):
            found.append(Method(f"{network}_prior", network, "prior"))
        built = [name for name, base in local.items() if base == network]
        if built:
            found.append(Method(f"{network}_mlp", network, "mlp", built[0]))
        found += [Method(name, network, "local", name, "all" if name in everywhere else "idk") for name in built]
    return found


def apply_method(
    method: Method,
    logits: Tensor,
    networks: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    device: torch.device | str,
    images: Tensor | None = None,
    near: Tensor | None = None,
) -> Segmentation:
    """Segment some images.

    Parameters
    ----------
    method : Method
    logits : (n, class, row, col) float
        Mean logits of the method's global network.
    networks : mapping
        Of a bundle, by `<method>-idk`, `<method>-mlp`, `<method>-local`.
    metadata : mapping
        Of the bundle: `class_weights` by global network, `threshold` by method.
    device : torch.device or str
    images : (m, row, col), optional
        For local models: the n images, then further neighbours that enter with them [grey].
    near : (n, context) int, optional
        Indices in `images` of the slices that enter with each image.
    """
    if method.kind == "network":
        return Segmentation(assemble(logits), None)
    if method.kind == "prior":
        return Segmentation(assemble(subtract_prior(logits.float(), metadata["class_weights"][method.network])), None)
    uncertainty = entropy(logits.float())
    if method.kind == "mlp":
        return Segmentation(
            assemble(classify_pixels(networks[f"{method.helpers}-mlp"], logits.float(), uncertainty)), None
        )
    assert images is not None and near is not None
    idk = (
        idk_probability(networks[f"{method.name}-idk"], logits.float(), uncertainty)
        >= metadata["threshold"][method.name]
    )
    local = networks[f"{method.name}-local"]
    padded = pad_slices(
        images, logits.float(), idk, side=local.window, low=float(local.grey_low), high=float(local.grey_high),
        near=near, device=device,
    )  # fmt: skip
    # What enters the local model has the IDK pixels in any case.
    decided = torch.ones_like(idk) if method.decides == "all" else idk
    pixels = decided.flatten().nonzero()[:, 0]
    return Segmentation(assemble(logits, decided, predict_pixels(local, padded, pixels, precision="auto")), idk)
