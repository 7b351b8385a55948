"""Options: one class is the config section, the flags and the schema."""

import re
import shlex
from typing import ClassVar, Literal

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cathodeflow.commands import command
from cathodeflow.errors import InputError
from cathodeflow.options import Options, from_config, from_flags, option, to_flags
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage


class Augment(Options):
    renamed: ClassVar[dict[str, str]] = {"turn": "rotate90"}

    flip: bool = option(False, "Reflect.")
    rotate90: bool = option(True, "Rotate.")


class Find(Options):
    renamed: ClassVar[dict[str, str]] = {
        "average": "ema_decay",
        "mirror": "augment.flip",
        "symmetries": "augment.rotate90 and augment.flip",
    }

    engine: Literal["union_find", "findpeaks"] = option("union_find", "Engine.")
    binning: Literal[1, 2, 4] = option(1, "Binning.")
    min_value: float = option(10.0, "Threshold.", unit="counts", ge=0)
    offset: float = option(0.0, "Offset.", ge=-100, le=100)
    sizes: tuple[int, ...] = option((16, 8), "Sizes.")
    stop: int | None = option(None, "Last.", ge=1)
    side: int | None = option(64, "Side; none: half of the image.", ge=1)
    frames: str | None = option(None, "Named like an argument of the stage.")
    skip: bool = option(False, "Skip.")
    ema_decay: float = option(0.0, "Decay.", ge=0, lt=1)
    augment: Augment = option(Augment(), "Augmentation.")


class Files(Options):
    model: InputFile | None = option(None, "A file.")
    title: str = option("", "Any text.")


GOT: list[Find] = []


@stage("test.find_peaks")
def find_peaks(
    frames: InputFile, *, out: OutputFile, passes: int = 3, mask: InputFile | None = None, options: Find
) -> Metrics:
    """Find peaks in FRAMES.

    A second paragraph.

    Parameters
    ----------
    frames : path
        Frames.
    out : path
        Table to write,
        of peaks.
    passes : int
        How often.
    mask : path
        Bad pixels.

    Raises
    ------
    InputError
        Never.
    """
    GOT.append(options)
    return Metrics({})


def run(line: str) -> click.testing.Result:
    """Send a line of flags through the real command."""
    words = ["a.h5", "--out", "a.parquet", *shlex.split(line)]
    return CliRunner().invoke(command(find_peaks), words, catch_exceptions=False)


def parse(line: str) -> Find:
    result = run(line)
    assert result.exit_code == 0, result.output
    return GOT.pop()


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
        frames=st.none() | st.text("ab c'\"$;&|*-é", min_size=1, max_size=12),
        skip=st.booleans(),
        augment=st.builds(Augment, flip=st.booleans(), rotate90=st.booleans()),
    )
)
def test_flags_round_trip_through_the_shell_and_the_command(options: Find) -> None:
    assert parse(to_flags(options)) == options


def test_every_option_shows_in_the_flags_in_order() -> None:
    line = to_flags(Find(min_value=5, stop=3))
    assert line == (
        "--engine union_find --binning 1 --min-value 5.0 --offset 0.0 --sizes 16,8 --stop 3 --side 64 --no-skip"
        " --ema-decay 0.0 --no-augment-flip --augment-rotate90"
    )
    # Two values swapped with each other give another line.
    assert to_flags(Find(min_value=1, offset=2)) != to_flags(Find(min_value=2, offset=1))


def test_a_nested_option_is_a_key_of_its_group_in_yaml_and_a_flag() -> None:
    wanted = Find(augment=Augment(flip=True, rotate90=False))
    assert from_config(Find, {"augment": {"flip": True, "rotate90": False}}, "c.yaml") == wanted
    assert parse("--augment-flip --no-augment-rotate90") == wanted
    with pytest.raises(InputError, match=r"^c\.yaml: augment\.flip: found 'maybe', expected true or false$"):
        from_config(Find, {"augment": {"flip": "maybe"}}, "c.yaml")
    with pytest.raises(InputError, match=r"^c\.yaml: augment\.flop: found an unknown key, expected 'flip'$"):
        from_config(Find, {"augment": {"flop": True}}, "c.yaml")
    with pytest.raises(InputError, match=r"^--augment-flip: found 'maybe', expected true or false"):
        from_flags(Find, {"augment.flip": "maybe"})


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ({"average": 0.9}, "average", "ema_decay"),
        ({"mirror": True}, "mirror", "augment.flip"),
        ({"augment": {"turn": True}}, "augment.turn", "augment.rotate90"),
        ({"symmetries": False}, "symmetries", "augment.rotate90 and augment.flip"),
    ],
)
def test_an_old_key_is_refused_with_its_new_name(section: dict[str, object], old: str, new: str) -> None:
    with pytest.raises(InputError) as error:
        from_config(Find, section, "c.yaml")
    assert str(error.value) == f"c.yaml: {old} was renamed to {new}"


@pytest.mark.parametrize(
    ("flag", "new"),
    [
        ("--average 0.9", "--average was renamed to --ema-decay"),
        ("--no-mirror", "--no-mirror was renamed to --augment-flip"),
        ("--symmetries", "--symmetries was renamed to --augment-rotate90 and --augment-flip"),
    ],
)
def test_an_old_flag_is_refused_with_its_new_name(flag: str, new: str) -> None:
    result = run(flag)
    assert result.exit_code == 2 and new in result.output and not GOT
    assert "was renamed" not in run("--unknown").output


def test_help_has_the_texts_of_the_docstring_and_of_the_options() -> None:
    text = " ".join(CliRunner().invoke(command(find_peaks), ["--help"], terminal_width=300).output.split())
    assert "FRAMES Find peaks in FRAMES. A second paragraph. Arguments: FRAMES Frames. Options:" in text
    assert "Parameters" not in text and "InputError" not in text
    assert "--out FILE Table to write, of peaks. [required]" in text
    assert "--passes INTEGER How often. [default: 3]" in text and "--mask FILE Bad pixels. --" in text
    assert "--min-value NUMBER Threshold. ([counts]; >= 0; default: 10.0)" in text
    # A tuple is shown as its flag takes it.
    assert re.search(r"--sizes INTEGERS Sizes\. +\(default: 16,8\)", text)
    assert parse("--sizes 16,8") == Find()
    assert "--augment-flip / --no-augment-flip Reflect." in text


def test_what_a_stage_needs_is_asked_for() -> None:
    result = CliRunner().invoke(command(find_peaks), ["a.h5"])
    assert result.exit_code == 2 and "Missing option '--out'" in result.output


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"min_valu": 3}, "c.yaml: min_valu: found an unknown key, expected 'min_value'"),
        ({"min_value": -1}, "c.yaml: min_value: found -1, expected greater than or equal to 0"),
        ({"min_value": "3"}, "c.yaml: min_value: found '3', expected a valid number"),
        ({"skip": "maybe"}, "c.yaml: skip: found 'maybe', expected true or false"),
        ({"engine": "fast"}, "c.yaml: engine: found 'fast', expected 'union_find' or 'findpeaks'"),
        ({"stop": 2.5}, "c.yaml: stop: found 2.5, expected a valid integer"),
        ({"sizes": 3}, "c.yaml: sizes: found 3, expected a valid array"),
    ],
)
def test_wrong_section_is_one_line(section: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        from_config(Find, section, "c.yaml")
    assert str(error.value) == message


def test_what_people_write_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"min_value": "3e1", "offset": "-2.5E-1", "skip": "yes", "augment": {"flip": "No"}}
    found = from_config(Find, section, "c.yaml")
    assert (found.min_value, found.offset, found.skip, found.augment.flip) == (30, -0.25, True, False)
    monkeypatch.setenv("NETWORKS", "/networks")
    assert from_config(Files, {"model": "$NETWORKS/a.pt", "title": "3e1 $NETWORKS"}, "c.yaml") == Files(
        model="/networks/a.pt", title="3e1 $NETWORKS"
    )


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
