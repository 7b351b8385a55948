"""Seeds that are derived from others."""

import numpy as np


def derived_seed(seed: int, *stream: int) -> int:
    """Mix a seed with the number of an epoch, or any others, into an independent seed.

    So no state of random numbers needs to be stored: epoch 7 draws the same numbers whether or not the training was
    interrupted before.
    """
    return int(np.random.SeedSequence([seed, *stream]).generate_state(1, np.uint64)[0])
