"""Formulas of the documentation as SVG, so that the pages need no script and no network."""

from html import escape

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import TextPath

_SIZE = 17.0
_LETTERS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C"}
_POINTS = {Path.CURVE3: 2, Path.CURVE4: 3}


def fence(source: str, language: str, css_class: str, options: object, md: object, **others: object) -> str:
    """Draw a block of code of the language `math`, one line per formula, as inline SVG in the colour of the text."""
    lines = [line for line in source.strip().splitlines() if line.strip()]
    return "".join(f'<div class="{css_class}">{svg(line.strip())}</div>' for line in lines)


def svg(formula: str) -> str:
    """Return a formula in TeX, as far as matplotlib reads it, as SVG."""
    path = TextPath((0, 0), f"${formula}$", size=_SIZE, prop=FontProperties(math_fontfamily="stix"))
    parts: list[str] = []
    codes, points, index = path.codes, path.vertices, 0
    while index < len(codes):
        code = codes[index]
        if code == Path.CLOSEPOLY:
            parts.append("Z")
            index += 1
            continue
        count = _POINTS.get(code, 1)
        numbers = points[index : index + count] * np.array((1, -1))
        parts.append(_LETTERS[code] + " ".join(f"{value:.1f}" for value in numbers.ravel()))
        index += count
    low, high = path.get_extents().min, path.get_extents().max
    width, height = high - low + 4
    box = f"{low[0] - 2:.1f} {-high[1] - 2:.1f} {width:.1f} {height:.1f}"
    return (
        f'<svg role="img" aria-label="{escape(formula, quote=True)}" viewBox="{box}" width="{width:.0f}" '
        f'height="{height:.0f}"><path fill="currentColor" d="{"".join(parts)}"/></svg>'
    )
