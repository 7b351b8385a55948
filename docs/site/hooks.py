"""Hooks of the documentation site: pages made from other files, links to them, and formulas."""

import posixpath
import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from formulas import fence
from pages import generated

ROOT = Path(__file__).parents[2]
# Pages that are made of files outside of docs/, by these files.
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
MOVED["config/README.md"] = "reference/settings.md"
_LINK = re.compile(r"(?<!\\)(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw code blocks of the language `math` as formulas."""
    config.mdx_configs["pymdownx.superfences"] = {"custom_fences": [{"name": "math", "class": "math", "format": fence}]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made of other files, and every file of the repository that a page links to."""
    made = generated(ROOT)
    whole = {target: (ROOT / origin).read_text() for origin, target in MOVED.items() if target not in made}
    for target, content in (made | whole).items():
        files.append(File.generated(config, target, content=content))
    for file in list(files.documentation_pages()):
        for _, link, _, _ in _LINK.findall(_CODE.sub("", file.content_string)):
            path = _in_repository(link, file.src_uri)
            if path and path.startswith("repository/") and not files.get_file_from_path(path):
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path.removeprefix("repository/"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that leave docs/ lead to the pages and files of the site."""

    def moved(match: re.Match[str]) -> str:
        start, link, anchor, end = match.groups()
        target = _in_repository(link, page.file.src_uri)
        if target is None:
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return start + posixpath.relpath(target, here or ".") + (anchor or "") + end

    pieces = _CODE.split(markdown)
    pieces[::2] = [_LINK.sub(moved, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _in_repository(link: str, page: str) -> str | None:
    """Return the place on the site of a relative link, seen from the file that the page is made of."""
    if re.match(r"[a-z]+:|/", link):
        return None
    origin = next((source for source, target in MOVED.items() if target == page), f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if path in MOVED:
        return MOVED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if (ROOT / path).is_file() else None


def on_post_build(config: MkDocsConfig) -> None:
    """Write the search index as a script too: pages that are opened as files may not fetch it."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text()
    (folder / "search_index.js").write_text(f"var __index = {index}")
