"""Global networks by name: the U-Net of this program, or architectures of segmentation-models-pytorch."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from cathodeflow.errors import InputError
from cathodeflow.fibsem.global_network import GlobalNetwork
from cathodeflow.fibsem.unet import DropoutKind, DropoutWhere, UNet

_EXPECTED = "`unet`, or `smp.<architecture>/<encoder>` such as smp.unet/resnet18"


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
        On all features that the encoder hands to the decoder, and before the segmentation head; or only on the
        features of the two lowest resolutions. Dropout that the architecture has itself (FPN) is on in any case.

    Raises
    ------
    InputError
        When the package is not installed, does not have such a network, or a parameter is out of range.
    """

    def __init__(
        self,
        name: str,
        n_classes: int = 3,
        *,
        context: int = 1,
        dropout: float = 0.0,
        dropout_where: DropoutWhere = "blocks",
        dropout_kind: DropoutKind = "element",
    ) -> None:
        super().__init__(
            {"name": name, "n_classes": n_classes, "context": context, "dropout": dropout,
             "dropout_where": dropout_where, "dropout_kind": dropout_kind}
        )  # fmt: skip
        if not 0 <= dropout < 1:
            raise InputError("dropout", str(dropout), "at least 0, below 1")
        self.body = _smp_model(name, context, n_classes)
        levels = len(self.body.encoder.out_channels)
        # Some encoders lose resolution less often than they have levels; decoders count on the levels.
        self.stride = max(2 ** (levels - 1), self.body.encoder.output_stride)
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
        features = self.body.encoder(self.prepared(x))
        thinned = [dropout(part) for dropout, part in zip(self.dropouts, features, strict=True)]
        decoded = self.last_dropout(self.body.decoder(thinned))
        # Not in bfloat16: entropy looks at more than its two to three digits.
        with torch.autocast(x.device.type, enabled=False):
            return self.body.segmentation_head(decoded.float())[..., :rows, :cols]


#: Families of global networks by the first part of their name; all but the U-Net take the rest as their first argument.
FAMILIES: dict[str, type[GlobalNetwork]] = {"unet": UNet, "smp": SmpNetwork}


def build_network(architecture: str = "unet", *, widths: Sequence[int] = (), **options: Any) -> GlobalNetwork:
    """Make a global network with random weights of torch's default generator.

    Parameters
    ----------
    architecture : str
        `unet`, or `smp.<architecture>/<encoder>`.
    widths : sequence of int
        Of `UNet`; the others have their own.
    **options
        `n_classes`, `context`, `dropout`, `dropout_where`, `dropout_kind`.

    Raises
    ------
    InputError
        When there is no such network, or a parameter is out of range.
    """
    family, dot, name = architecture.partition(".")
    if family not in FAMILIES or (family == "unet") == bool(dot):
        raise InputError("architecture", architecture, _EXPECTED)
    if family == "unet":
        return UNet(widths=widths, **options)
    return cast(Any, FAMILIES[family])(name, **options)


def _smp_model(name: str, channels: int, classes: int) -> Any:
    # Optional, and slow to import.
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        expected = "the package segmentation-models-pytorch: pip install 'cathodeflow[fibsem-architectures]'"
        raise InputError("architecture", f"smp.{name}", expected) from None
    architecture, _, encoder = name.partition("/")
    # The transformer of DPT hands more than features to its decoder.
    known = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt"})
    if architecture.lower() not in known:
        raise InputError("architecture", f"smp.{name}", f"smp.<one of {', '.join(known)}>/<encoder>")
    try:
        return smp.create_model(architecture, encoder, encoder_weights=None, in_channels=channels, classes=classes)
    except (KeyError, RuntimeError, ValueError) as error:
        found = f"smp.{name}: {error.args[0]}"
        raise InputError("architecture", found, "an encoder that this architecture works with") from None
