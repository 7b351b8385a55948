"""Networks that predict the complex object of a crystal from its diffraction amplitude, by name."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.bcdi.network_options import Architecture, Train
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.unrolled import Candidates, channels_last, computed
from cathodeflow.errors import InputError
from cathodeflow.io.models import restore
from cathodeflow.seeds import derived_seed

_INITIALISATION = 2**32 - 1


class PhaseNetwork(nn.Module):  # type: ignore[misc]
    """Diffraction amplitudes of any scale -> candidate objects in the middle of the volume.

    Parameters
    ----------
    architecture : {"autophasenn", "candidates", "unrolled"}
        The published network (`AutoPhaseNN`), or several candidates (`unrolled.Candidates`) without and with
        corrections through the modulus projection.
    widths : sequence of int
        Channels from the highest to the lowest resolution; each halves the sides, which must be multiples of 2 to the
        power of their number.
    threshold : float
        Amplitude below which voxels are set to 0, the shape constraint (T of the paper); the maximum amplitude is 1.
    candidates : int
        Objects per pattern; the published network predicts one.
    stages : int
        Correction stages of "unrolled", at least 1.

    Raises
    ------
    InputError
        The architecture is unknown, or a parameter is out of range.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        widths: Sequence[int],
        threshold: float,
        candidates: int,
        stages: int,
    ) -> None:
        super().__init__()
        if architecture not in get_args(Architecture):
            raise InputError("architecture", str(architecture), "one of " + ", ".join(get_args(Architecture)))
        if len(widths) < 2 or min(widths) < 1:
            raise InputError("widths", str(list(widths)), "channels of two or more resolutions")
        if not 0 <= threshold < 1:
            raise InputError("threshold", str(threshold), "at least 0, below 1")
        for name, value in (("candidates", candidates), ("stages", stages)):
            if value < 1:
                raise InputError(name, str(value), "at least 1")
        #: Parameters that rebuild the network, without its weights (`restored`).
        self.architecture: dict[str, Any] = {
            "architecture": architecture, "widths": list(widths), "threshold": threshold, "candidates": candidates,
            "stages": stages,
        }  # fmt: skip
        self.layers: nn.Module = (
            AutoPhaseNN(widths)
            if architecture == "autophasenn"
            else Candidates(widths, candidates, stages if architecture == "unrolled" else 0)
        )

    @property
    def stride(self) -> int:
        """Sides of volumes are multiples of it."""
        return 2 ** len(self.architecture["widths"])

    @property
    def threshold(self) -> float:
        """Amplitude below which voxels are set to 0; it may be changed."""
        return float(self.architecture["threshold"])

    @threshold.setter
    def threshold(self, value: float) -> None:
        self.architecture["threshold"] = value

    def check(self, shape: Sequence[int]) -> None:
        """Refuse volumes (z, y, x) whose sides are no multiples of `stride`.

        Raises
        ------
        InputError
        """
        if len(shape) != 3 or any(side % self.stride or not side for side in shape):
            expected = f"(z, y, x) with sides divisible by {self.stride}"
            raise InputError("amplitude", f"volumes of shape {tuple(shape)}", expected)

    def forward(self, amplitude: Tensor) -> Tensor:
        """Predict.

        Parameters
        ----------
        amplitude : (n, z, y, x) float32
            Square root of the diffracted intensity, of any scale, zero frequency at index n // 2.

        Returns
        -------
        (n, candidates, z, y, x) complex64
            Amplitude 0, or from the threshold to 1; phase within -pi..pi. 0 outside the middle half of each axis, since
            the pattern of a larger object is not oversampled.

        Raises
        ------
        InputError
            The shape does not fit the network.
        """
        self.check(amplitude.shape[1:])
        # A volume of zeros has no scale and stays 0.
        highest = amplitude.float().amax(VOLUME, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        return padded(self.layers(amplitude / highest, self.threshold))


class AutoPhaseNN(nn.Module):  # type: ignore[misc]
    """Layers of the published network: an encoder, and a decoder each for amplitude and phase [1]_.

    As in the authors' PyTorch code: blocks of two 3x3x3 convolutions, each with LeakyReLU (0.01) followed by batch
    normalisation; 2x2x2 max pooling after each block of the encoder, trilinear upsampling after each block of the
    decoders, and a last convolution to one channel.

    References
    ----------
    .. [1] Y. Yao, H. Chan, S. Sankaranarayanan, P. Balaprakash, R. J. Harder, M. J. Cherukara, npj Comput. Mater. 8,
       124 (2022)
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [nn.Sequential(_Twice(*pair), nn.MaxPool3d(2)) for pair in itertools.pairwise((1, *widths))]
        )
        self.amplitude_decoder, self.phase_decoder = _Decoder(widths), _Decoder(widths)

    def forward(self, amplitude: Tensor, threshold: float) -> Tensor:
        """Turn amplitudes (n, z, y, x), 1 at most, into (n, 1, z / 2, y / 2, x / 2) complex64."""
        features = channels_last(amplitude[:, None])
        for block in self.encoder:
            features = computed(block, features)
        magnitude = torch.sigmoid(self.amplitude_decoder(features))
        magnitude = torch.where(magnitude < threshold, 0.0, magnitude)
        return torch.polar(magnitude, math.pi * torch.tanh(self.phase_decoder(features)))


class _Twice(nn.Sequential):  # type: ignore[misc]
    """Two convolutions, each with LeakyReLU and batch normalisation."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(
            nn.Conv3d(before, after, 3, padding=1), nn.LeakyReLU(0.01), nn.BatchNorm3d(after),
            nn.Conv3d(after, after, 3, padding=1), nn.LeakyReLU(0.01), nn.BatchNorm3d(after),
        )  # fmt: skip


class _Decoder(nn.Module):  # type: ignore[misc]
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(_Twice(*pair), nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True))
                for pair in itertools.pairwise(reversed(widths))
            ]
        )
        self.last = nn.Conv3d(widths[0], 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = computed(block, x)
        # The phase is up to pi, where bfloat16 would have steps of 0.016 rad.
        with torch.autocast(x.device.type, enabled=False):
            return self.last(x.float())


def make_network(options: Train) -> PhaseNetwork:
    """Make a network with the threshold of the last epoch, whose initial weights depend only on the seed.

    The global random state is unchanged.

    Examples
    --------
    >>> published = make_network(Train(architecture="autophasenn"))
    >>> round(sum(weights.numel() for weights in published.parameters()) / 1e6, 1)
    7.0
    """
    architecture = options.model_dump(include={"architecture", "widths", "candidates", "stages"})
    return _seeded(architecture | {"threshold": options.threshold[1]}, options.seed or 0)


def _seeded(architecture: Mapping[str, Any], seed: int) -> PhaseNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(derived_seed(seed, _INITIALISATION))
        return PhaseNetwork(**architecture)


def restored(weights: Mapping[str, Tensor], metadata: Mapping[str, Any], *, where: str = "weights") -> PhaseNetwork:
    """Make the network of a model file, in evaluation mode.

    Parameters
    ----------
    weights : mapping of str to Tensor
        The network's `state_dict`.
    metadata : mapping
        Metadata of the file, with the `architecture` of the network.
    where : str
        Name of the file in errors.

    Raises
    ------
    InputError
        The file is not a model of `cathodeflow bcdi train`, or weights and architecture do not match.
    """
    architecture = metadata.get("architecture")
    if not isinstance(architecture, dict):
        raise InputError(where, "weights without an architecture", "a model of `cathodeflow bcdi train`")
    try:
        return restore(lambda: _seeded(architecture, 0), weights, where=where, expected="a phase-retrieval network")
    except InputError as error:
        raise InputError(where, error.found, error.expected) from None


def padded(objects: Tensor) -> Tensor:
    """Pad (..., z / 2, y / 2, x / 2) with zeros to (..., z, y, x); index n // 4 becomes n // 2."""
    return F.pad(objects, [side // 2 for side in reversed(objects.shape[-3:]) for _ in range(2)])
