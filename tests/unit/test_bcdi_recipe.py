import pytest

from cathodeflow.bcdi.recipe import DEFAULT, Step, parse, total_iterations
from cathodeflow.errors import InputError


def named(recipe):
    return [(step.algorithm, step.iterations) for step in parse(recipe)]


def test_the_usual_recipe():
    assert named("3*(20*ER+180*HIO)+20*ER") == [("ER", 20), ("HIO", 180)] * 3 + [("ER", 20)]
    assert total_iterations(parse("3*(20*ER+180*HIO)+20*ER")) == total_iterations(parse(DEFAULT)) == 620


@pytest.mark.parametrize(
    ("recipe", "steps"),
    [
        ("ER", [("ER", 1)]),
        (" 2 * ( er + 3*Hio ) ", [("ER", 1), ("HIO", 3)] * 2),
        ("2*(ER+2*(RAAR+DM))", ([("ER", 1)] + [("RAAR", 1), ("DM", 1)] * 2) * 2),
        ("2*3*ER", [("ER", 6)]),
        ("10*ER+5*ER", [("ER", 15)]),
        ("2*(ER+HIO+ER)", [("ER", 1), ("HIO", 1), ("ER", 2), ("HIO", 1), ("ER", 1)]),
        ("((4*ER))", [("ER", 4)]),
        ("1000*(ER)", [("ER", 1000)]),
    ],
)
def test_nesting_repeats_spaces_and_neighbours(recipe, steps):
    assert named(recipe) == steps


def test_an_algorithm_may_have_a_beta_of_its_own():
    steps = parse("10*HIO(beta=0.8)+5*HIO+2*RAAR(beta = .75)")
    assert steps == [Step("HIO", 10, 0.8), Step("HIO", 5), Step("RAAR", 2, 0.75)]


@pytest.mark.parametrize(
    ("recipe", "found"),
    [
        ("", "the end"),
        ("20*", "the end"),
        ("3*(20*ER", r"the end.*expected \)"),
        ("20 ER", r"ER in .*expected \*"),
        ("20*XY", "XY.*one of ER, HIO, RAAR, DM"),
        ("0*ER", "0 in .*at least 1"),
        ("2.5*ER", r"2\.5 in .*whole number"),
        ("-3*ER", "- in "),
        ("20*ER+", "the end"),
        ("20*ER)", r"\) in "),
        ("20*ER 5*HIO", "5 in "),
        ("20*ER;5*HIO", "';'"),
        ("HIO(gamma=1)", "gamma in .*expected beta"),
        ("HIO(beta=x)", "beta=x.*a number"),
        ("HIO(beta=1.5)", "beta=1.5.*at most 1"),
        ("ER(beta=0.9)", "argument of ER"),
        ("9999*(9999*ER+HIO)", "99990000 iterations in .*at most"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(recipe, found):
    with pytest.raises(InputError, match=found) as caught:
        parse(recipe)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("recipe: ")
