"""Networks trained crosswise, each without a part of the slices, judged on one scale."""

from collections.abc import Callable, Sequence

from torch import Tensor

# Images on which scales are compared; more change them little.
_COMPARED = 16


def matched_scales(
    answer: Callable[[str, int], Tensor], names: Sequence[str], images: Sequence[int]
) -> dict[str, float]:
    """Factors that bring the logits of networks to the scale of the first one's.

    What learns from logits of several networks, and is applied to those of one, must not find in their scale which
    network they are of: how sure of itself a network is depends on the slices and steps that it was trained with.

    Parameters
    ----------
    answer : (name, image) -> (1, n_classes, row, col) logits
    names : sequence of str
        Of the networks; the first one's factor is 1.
    images : sequence of int
        That none of the networks was trained on. Without any, or without contrast in the answers, all factors are 1.

    Returns
    -------
    dict of float
        Ratio of the mean deviation of a pixel's logits over the classes.
    """
    some = images[:: max(1, -(-len(images) // _COMPARED))]
    spread = {name: sum(float(answer(name, image).std(1).mean()) for image in some) for name in names}
    first = spread[names[0]]
    return {name: first / value if first and value else 1.0 for name, value in spread.items()}
