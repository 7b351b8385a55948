"""Random generators that depend on names, so that the numbers drawn for one image do not depend on other images."""

import hashlib

import numpy as np


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """Return the random generator of a seed and of a purpose, such as the name of an image.

    Parameters
    ----------
    seed : int
        Not negative.
    *words : str or int
        What the numbers are used for; other words give independent numbers.

    Examples
    --------
    >>> int(generator(1, "333/a.jpg").integers(1000)) == int(generator(1, "333/a.jpg").integers(1000))
    True
    """
    digest = hashlib.sha256(repr(words).encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u4").tolist()
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
