"""Captions of the report: names of samples stay text, whatever letters they have."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from docutils.core import publish_parts

from cathodeflow.errors import InputError
from cathodeflow.samples import Sample, read_samples

CAPTIONS = sorted((Path(__file__).parents[2] / "workflow" / "report").glob("*.rst"))


class AnyName(dict[str, str]):
    """Wildcards that all have one value."""

    def __getattr__(self, name: str) -> str:
        return self["all"]


@pytest.mark.parametrize("path", CAPTIONS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["scan_", "a_b_", "<script>alert(1)</script>", "*x", "|x|"])
def test_names_in_captions_are_shown_as_they_are(path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text(encoding="utf-8")
    given = SimpleNamespace(wildcards=AnyName(all=name))
    # As Snakemake makes them.
    caption = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text).render(snakemake=given)
    page = publish_parts(caption, writer="html")["body"]
    shown = name.replace("<", "&lt;").replace(">", "&gt;")
    assert page.count(shown) == text.count("{{") and "<script" not in page and "system-message" not in page
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["<b>a</b>", 'a"b', "a&b", "a b", "{a}", "../a"])
def test_names_with_markup_are_no_names_of_samples(tmp_path: Path, name: str) -> None:
    (tmp_path / "s.tsv").write_text(f"sample\n{name}\n".replace('"', '""'))
    with pytest.raises(InputError, match="expected letters, digits"):
        read_samples(str(tmp_path / "s.tsv"), Sample)
