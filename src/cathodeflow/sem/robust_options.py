"""Options of training a network that is used on images of other sessions."""

from cathodeflow.options import Options, option


class Robust(Options):
    """Training against what differs between sessions of a microscope. All of it is disabled by default."""

    magnification: float = option(
        1.0, "Maximum random magnification of a crop; the minimum is its reciprocal. 1 disables it.", ge=1, le=4
    )
    octaves: float = option(
        1.0,
        "Maximum factor by which each octave of spatial frequencies is randomly amplified, or divided: focus, noise "
        "and contrast of details. 1 disables it.",
        ge=1,
        le=16,
    )
    curve: float = option(
        0.0,
        "Maximum weight of a random increasing curve of grey levels, which changes the histogram; 0 disables it.",
        ge=0,
        le=1,
    )
    charging: float = option(
        0.0,
        "Maximum amplitude of random gradients of brightness and of lines that are too bright or dark, as a fraction "
        "of the intensity range; 0 disables it.",
        ge=0,
        le=1,
    )
    group_weight: float = option(
        0.0,
        "Emphasis on the groups with the highest loss (a group is one class in one session): their weight"
        " is proportional to exp(group_weight * loss). 0 gives every crop the same weight. Needs `mixup: "
        "0`.",
        ge=0,
        le=20,
    )

    @property
    def changes_crops(self) -> bool:
        """Whether crops are changed."""
        return self.magnification > 1 or self.octaves > 1 or self.curve > 0 or self.charging > 0
