"""Options that say how far a reconstruction can be trusted."""

from cathodeflow.options import Options, option
from cathodeflow.training.base_options import Device


class MoreStarts(Options):
    """Further starts of the iterative phase retrieval, until one of them is probably right."""

    max_starts: int | None = option(
        None,
        "Search: phase more starts, `starts` at a time and up to this number, until one is right with the probability "
        "`until`. Rounds of random starts and of starts bred from the best objects alternate, with lower thresholds of "
        "the shrink-wrap. Set it to 30 for crystals with a phase range above 2 pi. Default: no more than `starts`.",
        ge=1,
        le=1000,
    )
    until: float = option(
        0.9, "With `max_starts`: stop as soon as one start is right with this probability.", gt=0, lt=1
    )


class Trust(Options):
    """Objects and amplitudes -> probability that each object is right, errors of the strain, spread over the starts."""

    redrawn: int = option(
        4,
        "Number of patterns that are simulated from the best object with new counting noise, and phased "
        "starting from it, for the errors of the strain; 0: only the spread over the starts.",
        ge=0,
        le=100,
    )
    warn_below: float = option(
        0.5, "Warn if the probability that the best object is right is below this value; 0 never warns.", ge=0, le=1
    )
    threads: int = option(1, "CPU threads.", ge=1)
    device: Device | None = option(None, "Compute device. Default: the device of the workflow.")
    seed: int | None = option(None, "Random seed of the drawn patterns. Default: the workflow seed.", ge=0)
