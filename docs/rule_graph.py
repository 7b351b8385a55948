"""Draw the rule graph of all techniques, without the edges to `all` and `mlflow`: python docs/rule_graph.py.

Every technique is a band; rules are in columns from left to right, and an edge leads from a rule to those that read its
results. Edges that follow from others are left out.
"""

import itertools
import re
import subprocess
import sys
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).with_suffix(".svg")
CONFIGURATIONS = ("config.yaml", "fibsem.yaml", "bcdi-series.yaml", "bcdi.yaml")
BANDS = {
    "bragg": ("Bragg peaks: frames to peaks, tracks, lattice parameters", "#1f6f8b"),
    "sem": ("SEM micrographs: images to composition and state, with an audit", "#8a5a00"),
    "fibsem": ("FIB-SEM slices: slices to phases and electrode properties", "#3b7a3b"),
    "bcdi": ("Coherent diffraction: rocking scans to shape and strain", "#7a3b7a"),
}
_WIDTH, _MARGIN, _SLOT, _THIN, _TITLE = 980, 14, 38, 16, 30

Edges = set[tuple[str, str]]


def rule_graph(dot: str) -> Edges:
    """Read the edges of `snakemake --rulegraph`, by names of rules, without `all` and `mlflow`."""
    names = dict(re.findall(r'^\s*(\d+)\[label = "([^"\\]+)', dot, re.MULTILINE))
    edges = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", dot)}
    return {edge for edge in edges if not {"all", "mlflow"} & set(edge)}


def reduced(edges: Edges) -> Edges:
    """Leave out the edges that a longer path replaces."""
    after: dict[str, set[str]] = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(after.get(start, ()))
        while waiting:
            if (node := waiting.pop()) not in found:
                found.add(node)
                waiting += after.get(node, ())
        return found

    return {(a, b) for a, b in edges if not any(b in reached(c) for c in after[a] if c != b)}


def columns(edges: Edges) -> list[list[str]]:
    """Order rules and the bends of long edges, named `a|b|column`, in columns; few edges cross."""
    nodes = sorted({node for edge in edges for node in edge})
    before = {node: [a for a, b in edges if b == node] for node in nodes}
    level: dict[str, int] = {}

    def column_of(node: str) -> int:
        if node not in level:
            level[node] = max((column_of(a) + 1 for a in before[node]), default=0)
        return level[node]

    found: list[list[str]] = [[] for _ in range(max(map(column_of, nodes)) + 1)]
    # A source stands just before the first rule that reads it.
    for node in nodes:
        if not before[node]:
            level[node] = min(level[b] for a, b in edges if a == node) - 1
    for node in nodes:
        found[level[node]].append(node)
    for a, b in sorted(edges):
        for number in range(level[a] + 1, level[b]):
            found[number].append(f"{a}|{b}|{number}")
    links = [link for edge in edges for link in _steps(edge, level)]
    for sweep in range(24):
        forward = sweep % 2 == 0
        for column in found if forward else reversed(found):
            places = {node: place for line in found for place, node in enumerate(_centred(line)) if node}
            near = {n: [a if n == b else b for a, b in links if n == (b if forward else a)] for n in column}
            column.sort(key=lambda n: sum(places[m] for m in near[n]) / len(near[n]) if near[n] else places[n])
    return found


def _centred(line: list[str]) -> list[str]:
    return [""] * ((40 - len(line)) // 2) + line


def _steps(edge: tuple[str, str], level: dict[str, int]) -> list[tuple[str, str]]:
    a, b = edge
    path = [a, *(f"{a}|{b}|{column}" for column in range(level[a] + 1, level[b])), b]
    return list(itertools.pairwise(path))


def picture(edges: Edges) -> str:
    """Return the picture as SVG."""
    parts: list[str] = []
    y = _MARGIN
    for technique, (title, colour) in BANDS.items():
        own = {(a, b) for a, b in edges if a.startswith(technique + "_") and b.startswith(technique + "_")}
        lines = columns(reduced(own))
        heights = [sum(_THIN if "|" in node else _SLOT for node in line) for line in lines]
        height = max(heights) + _TITLE + 10
        parts.append(
            f'<rect x="{_MARGIN}" y="{y}" width="{_WIDTH - 2 * _MARGIN}" height="{height}" rx="6" fill="{colour}" '
            f'fill-opacity=".07"/><text x="{_MARGIN + 10}" y="{y + 20}" class="title" fill="{colour}">'
            f"{escape(title)}</text>"
        )
        step = (_WIDTH - 2 * _MARGIN - 4) / len(lines)
        box = step - 16
        places: dict[str, tuple[float, float]] = {}
        for number, line in enumerate(lines):
            top = y + _TITLE + (max(heights) - heights[number]) / 2
            for node in line:
                size = _THIN if "|" in node else _SLOT
                places[node] = (_MARGIN + 8 + number * step, top + size / 2)
                top += size
        level = {node: number for number, line in enumerate(lines) for node in line}
        for edge in sorted(reduced(own)):
            for a, b in _steps(edge, level):
                (xa, ya), (xb, yb) = places[a], places[b]
                start, bend = xa + box, (xb - xa - box) / 2
                parts.append(
                    f'<path d="M{start:.0f} {ya:.0f}C{start + bend:.0f} {ya:.0f} {xb - bend:.0f} {yb:.0f} {xb:.0f} '
                    f'{yb:.0f}{f"h{box:.0f}" if "|" in b else ""}" stroke="{colour}" class="edge"/>'
                )
        for node, (x, middle) in places.items():
            if "|" not in node:
                text = node.removeprefix(technique + "_").replace("_", " ")
                words = text.split() if len(text) > box / 6.6 else [text]
                parts.append(
                    f'<rect x="{x:.0f}" y="{middle - 15:.0f}" width="{box:.0f}" height="30" rx="4" fill="#fff" '
                    f'stroke="{colour}" data-rule="{node}"/>'
                )
                parts += [
                    f'<text x="{x + box / 2:.0f}" y="{middle + 4 + 13 * (place - (len(words) - 1) / 2):.0f}" '
                    f'text-anchor="middle">{escape(word)}</text>'
                    for place, word in enumerate(words)
                ]
        y += height + 10
    style = (
        "text{font:11.5px DejaVu Sans,Verdana,Arial,sans-serif;fill:#222}"
        "text.title{font-weight:bold;font-size:13px}.edge{fill:none;stroke-opacity:.55;stroke-width:1.3}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 4}" role="img" '
        f'aria-label="Rules of the four techniques"><style>{style}</style><rect width="100%" height="100%" '
        'fill="#fff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        text = Path(sys.argv[1]).read_text()
    else:
        files = [f"config/{name}" for name in CONFIGURATIONS]
        text = subprocess.run(
            ["snakemake", "--cores", "1", "--rulegraph", "--configfile", *files],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    PICTURE.write_text(picture(rule_graph(text)))
