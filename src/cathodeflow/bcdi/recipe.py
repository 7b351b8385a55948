"""Recipes of iterative phasing in the field's notation: `3*(20*ER+180*HIO)+20*ER`."""

import re
from typing import NamedTuple

from cathodeflow.errors import InputError

#: Error reduction, hybrid input-output, relaxed averaged alternating reflections, difference map.
ALGORITHMS = ("ER", "HIO", "RAAR", "DM")

#: Hybrid input-output, to leave wrong minima, then relaxed averaged alternating reflections of decreasing relaxation:
#: because of noise and other errors, HIO and a relaxation near 1 do not converge to the right minimum.
#: As many iterations as the usual 3*(20*ER+180*HIO)+20*ER.
DEFAULT = "20*ER+180*HIO+200*RAAR(beta=0.9)+200*RAAR(beta=0.8)+20*ER"

#: Maximum number of iterations of a recipe; more are assumed to be a typing error.
MOST_ITERATIONS = 1_000_000

_EXPECTED = "for example 3*(20*ER+180*HIO)+20*ER"
_TOKEN = re.compile(r"\s*([A-Za-z]+|\d+(?:\.\d*)?|\.\d+|[-*+()=])")


class Step(NamedTuple):
    """Iterations of one algorithm, and `beta`, its feedback or relaxation if the recipe sets it."""

    algorithm: str
    iterations: int
    beta: float | None = None


def parse(recipe: str) -> list[Step]:
    """Read a recipe.

    Parameters
    ----------
    recipe : str
        A sum of terms, each an algorithm (ER, HIO, RAAR, DM) or a sum in parentheses, with the number of its repeats
        before it. HIO, RAAR and DM may have their own beta: `180*HIO(beta=0.8)`. Spaces are ignored.

    Returns
    -------
    list of Step
        In the order in which they are run; equal neighbours are joined.

    Raises
    ------
    InputError
        The recipe is invalid; the error names what was found and what was expected instead.

    Examples
    --------
    >>> parse("2*(5*ER + 10*HIO) + ER")
    [Step(algorithm='ER', iterations=5, beta=None), Step(algorithm='HIO', iterations=10, beta=None), \
Step(algorithm='ER', iterations=5, beta=None), Step(algorithm='HIO', iterations=10, beta=None), \
Step(algorithm='ER', iterations=1, beta=None)]
    """
    reader = _Reader(recipe, _tokens(recipe))
    steps = reader.sum()
    if reader.rest:
        raise reader.error(reader.rest[0], "+ or the end")
    return steps


def total_iterations(steps: list[Step]) -> int:
    """Count the iterations of a recipe.

    Examples
    --------
    >>> total_iterations(parse("3*(20*ER+180*HIO)+20*ER"))
    620
    """
    return sum(step.iterations for step in steps)


def _tokens(recipe: str) -> list[str]:
    found, start = [], 0
    while recipe[start:].strip():
        match = _TOKEN.match(recipe, start)
        if match is None:
            raise InputError("recipe", f"{recipe[start:].strip()[0]!r} in {recipe!r}", _EXPECTED)
        found.append(match[1])
        start = match.end()
    return found


class _Reader:
    """Recursive-descent parser of the remaining tokens."""

    def __init__(self, recipe: str, rest: list[str]) -> None:
        self.recipe, self.rest = recipe, rest

    def error(self, found: str, expected: str) -> InputError:
        return InputError("recipe", f"{found} in {self.recipe!r}", f"{expected}, {_EXPECTED}")

    def take(self, expected: str) -> str:
        if not self.rest:
            raise self.error("the end", expected)
        return self.rest.pop(0)

    def demand(self, token: str) -> None:
        found = self.take(token)
        if found != token:
            raise self.error(found, token)

    def sum(self) -> list[Step]:
        steps = self.term()
        while self.rest[:1] == ["+"]:
            self.rest.pop(0)
            steps = self.joined(steps + self.term())
        return steps

    def term(self) -> list[Step]:
        token = self.take("an algorithm, a number or (")
        if token == "(":
            steps = self.sum()
            self.demand(")")
            return steps
        if token[0].isdigit():
            if not token.isdigit() or int(token) < 1:
                raise self.error(token, "a whole number of repeats, at least 1")
            self.demand("*")
            return self.repeated(self.term(), int(token))
        if token.upper() not in ALGORITHMS:
            raise self.error(token, f"one of {', '.join(ALGORITHMS)}, a number or (")
        return [Step(token.upper(), 1, self.beta(token.upper()))]

    def beta(self, algorithm: str) -> float | None:
        if self.rest[:1] != ["("]:
            return None
        self.rest.pop(0)
        if algorithm == "ER":
            raise self.error("an argument of ER", "none")
        self.demand("beta")
        self.demand("=")
        token = self.take("a number")
        try:
            value = float(token)
        except ValueError:
            raise self.error(f"beta={token}", "a number") from None
        if not 0 < value <= 1:
            raise self.error(f"beta={token}", "above 0, at most 1")
        self.demand(")")
        return value

    def repeated(self, steps: list[Step], count: int) -> list[Step]:
        total = count * total_iterations(steps)
        if total > MOST_ITERATIONS:
            raise self.error(f"{total} iterations", f"at most {MOST_ITERATIONS}")
        if len(steps) == 1:
            return [steps[0]._replace(iterations=total)]
        return self.joined(steps * count)

    def joined(self, steps: list[Step]) -> list[Step]:
        done: list[Step] = []
        for step in steps:
            if done and (done[-1].algorithm, done[-1].beta) == (step.algorithm, step.beta):
                done[-1] = step._replace(iterations=done[-1].iterations + step.iterations)
            else:
                done.append(step)
        return done
