"""Options: one class is the config section, the flags and the schema."""

import shlex
from typing import Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cathodeflow.commands import stage_command
from cathodeflow.errors import InputError
from cathodeflow.options import Options, from_config, from_flags, option, to_flags


class Find(Options):
    engine: Literal["union_find", "findpeaks"] = option("union_find", "Engine.")
    binning: Literal[1, 2, 4] = option(1, "Binning.")
    min_value: float = option(10.0, "Threshold.", unit="counts", ge=0)
    offset: float = option(0.0, "Offset.", ge=-100, le=100)
    sizes: tuple[int, ...] = option((16, 8), "Sizes.")
    stop: int | None = option(None, "Last.", ge=1)
    side: int | None = option(64, "Side; none: half of the image.", ge=1)
    weights: str | None = option(None, "File.")
    skip: bool = option(False, "Skip.")


def parse(line: str) -> Find:
    """Send a line of flags through a real command."""
    got = []
    group = click.Group("g")

    @stage_command(group, Find)
    def find_peaks(options: Find) -> None:
        got.append(options)

    result = CliRunner().invoke(group, ["find-peaks", *shlex.split(line)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return got[0]


@given(
    st.builds(
        Find,
        engine=st.sampled_from(["union_find", "findpeaks"]),
        binning=st.sampled_from([1, 2, 4]),
        min_value=st.floats(0, 1e9),
        offset=st.floats(-100, 100),
        sizes=st.lists(st.integers(-5, 99), max_size=4).map(tuple),
        stop=st.none() | st.integers(1, 10**9),
        side=st.none() | st.integers(1, 10**9),
        weights=st.none() | st.text("ab c'\"$;&|*-é", min_size=1, max_size=12),
        skip=st.booleans(),
    )
)
def test_flags_round_trip_through_the_shell_and_the_command(options: Find) -> None:
    assert parse(to_flags(options)) == options


def test_every_option_shows_in_the_flags_in_order() -> None:
    line = to_flags(Find(min_value=5, stop=3))
    assert (
        line == "--engine union_find --binning 1 --min-value 5.0 --offset 0.0 --sizes 16,8 --stop 3 --side 64 --no-skip"
    )
    # Two values swapped with each other give another line.
    assert to_flags(Find(min_value=1, offset=2)) != to_flags(Find(min_value=2, offset=1))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"min_valu": 3}, "c.yaml: min_valu: found an unknown key, expected 'min_value'"),
        ({"min_value": -1}, "c.yaml: min_value: found -1, expected greater than or equal to 0"),
        ({"min_value": "3"}, "c.yaml: min_value: found '3', expected a valid number"),
        ({"skip": "yes"}, "c.yaml: skip: found 'yes', expected a valid boolean"),
        ({"engine": "fast"}, "c.yaml: engine: found 'fast', expected 'union_find' or 'findpeaks'"),
        ({"stop": 2.5}, "c.yaml: stop: found 2.5, expected a valid integer"),
        ({"sizes": 3}, "c.yaml: sizes: found 3, expected a valid array"),
    ],
)
def test_wrong_section_is_one_line(section: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        from_config(Find, section, "c.yaml")
    assert str(error.value) == message


def test_all_wrong_keys_are_told_at_once() -> None:
    with pytest.raises(InputError) as error:
        from_config(Find, {"min_value": -1, "stop": 0}, "c.yaml")
    assert str(error.value).count("\n") == 1


def test_wrong_flag_names_the_flag() -> None:
    with pytest.raises(InputError, match=r"^--min-value: found 'x', expected a valid number"):
        from_flags(Find, {"min_value": "x"})


def test_not_a_number_is_refused() -> None:
    with pytest.raises(InputError):
        from_flags(Find, {"min_value": "nan"})
