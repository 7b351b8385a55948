"""The documentation as a site: it builds without a warning, all links lead somewhere, and no page asks the network."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Page(HTMLParser):
    """Anchors, links, and what a browser loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.ids |= {found[key] for key in ("id", "name") if key in found}
        if (tag == "a" and "href" in found) or (tag == "link" and found.get("rel") in ("canonical", "prev", "next")):
            self.links.append(found["href"])
        else:
            self.loaded += [found[key] for key in ("src", "href", "data") if found.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """Pages of the site, built in a process of its own; warnings end it."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return {path: Page(path.read_text()) for path in folder.rglob("*.html")}


def test_every_link_leads_to_a_page_a_file_or_a_heading(site: dict[Path, Page]) -> None:
    wrong = []
    for path, page in site.items():
        for link in page.links if path.name != "404.html" else []:
            parts = urlsplit(link)
            if parts.scheme or link in ("", "#", "."):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in site[target].ids):
                wrong.append(f"{path.name}: {link}")
    assert len(site) > 40 and not wrong, wrong


def test_no_page_loads_anything_from_the_network(site: dict[Path, Page]) -> None:
    loaded = {(path, source) for path, page in site.items() for source in page.loaded}
    outside = [source for _, source in loaded if re.match(r"(https?:)?//", source)]
    # The page for wrong addresses has absolute paths.
    missing = [
        f"{path.name}: {source}"
        for path, source in loaded
        if path.name != "404.html"
        and not source.startswith("data:")
        and not (path.parent / urlsplit(source).path).exists()
    ]
    styles = [text for path in ROOT.glob("docs/**/*.css") if re.search(r"@import|url\(", text := path.read_text())]
    assert not outside and not missing and not styles, (outside, missing, styles)


def test_formulas_are_drawn_in_the_page(site: dict[Path, Page]) -> None:
    page = next(path for path in site if path.parts[-2:] == ("methods", "bcdi.html")).read_text()
    assert page.count('<div class="math"><svg') > 5 and "```math" not in page


def test_pages_of_the_reference_have_the_package_in_them(site: dict[Path, Page]) -> None:
    texts = {"/".join(path.parts[-2:]): page for path, page in site.items()}
    assert {"bragg-fit", "check"} <= {
        name.removeprefix("cathodeflow-") for name in texts["reference/commands.html"].ids
    }
    assert "braggfit" in texts["reference/stages.html"].ids
    assert "bragg" in texts["reference/settings.html"].ids


def test_the_picture_of_the_graph_shows_rules_that_exist() -> None:
    rules = set(
        re.findall(r"^rule (\w+):", "".join(path.read_text() for path in ROOT.glob("workflow/rules/*.smk")), re.M)
    )
    drawn = set(re.findall(r'data-rule="(\w+)"', (ROOT / "docs" / "rule_graph.svg").read_text()))
    assert len(drawn) > 40 and drawn <= rules, drawn - rules


def test_documents_are_short_enough_to_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    heavy = [path.name for path in ROOT.glob("docs/**/*") if path.is_file() and path.stat().st_size > 1_000_000]
    assert not heavy
