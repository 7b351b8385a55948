"""Random generators that depend on names, so that what is drawn for one image does not depend on the others."""

import hashlib

import numpy as np


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Return the generator of a seed and of what it is for, such as a name.

    Parameters
    ----------
    seed : int
        Not negative.
    *words : str or int
        What the numbers are for; other words give independent numbers.

    Examples
    --------
    >>> int(generator(1, "333/a.jpg").integers(1000)) == int(generator(1, "333/a.jpg").integers(1000))
    True
    """
    digest = hashlib.sha256(repr(words).encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
