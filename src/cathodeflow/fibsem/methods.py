"""From the global network's mean logits to phases, by every method that is compared."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from cathodeflow.fibsem.dense import predict_dense
from cathodeflow.fibsem.idk import classify_pixels, idk_probability
from cathodeflow.fibsem.local import predict_local
from cathodeflow.fibsem.phases import Phases, assemble, entropy, subtract_prior
from cathodeflow.fibsem.windows import pad_slices

#: What is done with the logits: nothing; the loss's class weights undone; a network on each pixel's outputs; LCGAR.
Kind = Literal["network", "prior", "mlp", "local"]


class Method(NamedTuple):
    """A way to phases.

    name : str, as in the tables.
    network : str, the global network that it is built on.
    kind : what is done with its logits.
    helpers : str, the method with a local model whose pixel networks are used; "" for `network` and `prior`.
    """

    name: str
    network: str
    kind: Kind
    helpers: str = ""


class Answer(NamedTuple):
    """Phases, and where the global network did not know: (n, row, col) bool, None where that was not asked."""

    phases: Phases
    idk: Tensor | None


def all_methods(weights: Mapping[str, Sequence[float]], local: Mapping[str, str]) -> list[Method]:
    """List everything that is compared, controls beside what they control.

    Parameters
    ----------
    weights : mapping
        Class weights of the loss of each global network.
    local : mapping
        Methods with a local model, and the global network of each.

    Examples
    --------
    >>> [one.name for one in all_methods({"unet": [1, 1], "ugsm": [1.5, 0.5]}, {"matphase": "ugsm"})]
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
        found += [Method(name, network, "local", name) for name in built]
    return found


def answer(
    method: Method,
    logits: Tensor,
    networks: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    grey: Tensor | None = None,
    neighbours: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Answer:
    """Tell the phases of some images.

    Parameters
    ----------
    method : Method
    logits : (n, class, row, col) float
        Mean logits of the method's global network.
    networks : mapping
        Of a bundle, by `<method>-idk`, `<method>-mlp`, `<method>-local`.
    metadata : mapping
        Of the bundle: `class_weights` by global network, `threshold` by method.
    grey : (m, row, col), optional
        For local models: the n images, then those beside them that only they need.
    neighbours : (n, context) int, optional
        Places in `grey` of what each image is seen with.
    device : torch.device or str

    Returns
    -------
    Answer
    """
    if method.kind == "network":
        return Answer(assemble(logits), None)
    if method.kind == "prior":
        return Answer(assemble(subtract_prior(logits.float(), metadata["class_weights"][method.network])), None)
    doubt = entropy(logits.float())
    if method.kind == "mlp":
        return Answer(assemble(classify_pixels(networks[f"{method.helpers}-mlp"], logits.float(), doubt)), None)
    assert grey is not None and neighbours is not None
    idk = idk_probability(networks[f"{method.name}-idk"], logits.float(), doubt) >= metadata["threshold"][method.name]
    local, beside = networks[f"{method.name}-local"], len(grey) - len(logits)
    # Of the images beside these only the grey is looked at.
    padded = pad_slices(
        grey, torch.cat([logits.float(), logits.new_zeros((beside, *logits.shape[1:])).float()]),
        torch.cat([idk, idk.new_zeros((beside, *idk.shape[1:]))]), side=local.window,
        low=float(local.grey_low), high=float(local.grey_high),
        neighbours=torch.cat([neighbours, neighbours.new_zeros((beside, neighbours.shape[1]))]), device=device,
    )  # fmt: skip
    # Where windows overlap unchanged, a whole slice is computed at once.
    settle = predict_dense if local.architecture["edges"] == "seen" else predict_local
    pixels = idk.flatten().nonzero()[:, 0]
    return Answer(assemble(logits, idk, settle(local, padded, pixels)), idk)
