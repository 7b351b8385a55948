"""Code digests see every edit that can change a result, and no other."""

import ast
import sys
from pathlib import Path

import pytest

from cathodeflow.provenance import PACKAGE, _parse, code_digest, normalise

FILES = {
    "__init__.py": '"""Package."""\n',
    "cli.py": """
import numpy as np
from pkg import io
from pkg.options import Fit, Find as FindOptions
from pkg.stage import helper

def find(x):
    from pkg.find import peaks
    return peaks(x, FindOptions.level)

def fit(x):
    return helper(x) + io.frames.read(x) + Fit.radius

def other():
    return np.zeros(3)
""",
    "options.py": "class Find:\n    level = 3\n\nclass Fit:\n    radius = 5\n",
    "find.py": "from .constants import LEVEL\n\n@staticmethod\ndef peaks(x, y):\n    return x > y + LEVEL\n\ndef unused():\n    return 1\n",
    "constants.py": "LEVEL = 1\nOTHER = 2\n",
    "stage.py": "def helper(x):\n    'Doc.'\n    return _inner(x)\n\ndef _inner(x):\n    return x * FACTOR\n\nFACTOR = 2\n",
    "io/__init__.py": "from . import frames\n",
    "io/frames.py": "def read(x):\n    return open(x)\n",
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def digests(root: Path) -> dict[str, str]:
    _parse.cache_clear()
    return {name: code_digest(f"pkg.cli:{name}", root) for name in ("find", "fit", "other")}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("find.py", "x > y", "x >= y", {"find"}),
        ("constants.py", "LEVEL = 1", "LEVEL = 4", {"find"}),
        ("constants.py", "OTHER = 2", "OTHER = 3", set()),
        ("find.py", "return 1", "return 2", set()),
        ("find.py", "@staticmethod\n", "", {"find"}),
        ("cli.py", "def find(x):", "@command('help text')\ndef find(x):", set()),
        ("cli.py", "from pkg import io", "def command(text):\n    return print\n\nfrom pkg import io", set()),
        ("options.py", "level = 3", "level = 4", {"find"}),
        ("options.py", "radius = 5", "radius = 6", {"fit"}),
        ("stage.py", "FACTOR = 2", "FACTOR = 3", {"fit"}),
        ("stage.py", "x * FACTOR", "x * FACTOR + 0", {"fit"}),
        ("io/frames.py", "open(x)", "open(x, 'rb')", {"fit"}),
        ("cli.py", "np.zeros(3)", "np.zeros(4)", {"other"}),
        ("cli.py", "def other():", "def other():\n    # why\n", set()),
        ("stage.py", "'Doc.'", "'Another docstring.'", set()),
        ("stage.py", "def helper(x):", "def helper( x ):", set()),
        ("find.py", "from .constants", "print('side effect')\nfrom .constants", {"find"}),
        ("constants.py", "LEVEL = 1", "if True:\n    LEVEL = 1", {"find"}),
        ("constants.py", "LEVEL = 1", "LEVEL = 1\nLEVEL += 2", {"find"}),
        ("options.py", "radius = 5\n", "radius = 5\n\nFit.radius = 6\n", {"fit"}),
        ("stage.py", "FACTOR = 2", "FACTOR = {}\nFACTOR['a'] = 2", {"fit"}),
        ("find.py", "LEVEL\n\n@", "LEVEL\nLEVEL = LEVEL + 1\n\n@", {"find"}),
    ],
)
def test_edit_changes_exactly_what_it_reaches(package: Path, file: str, old: str, new: str, changed: set[str]) -> None:
    before = digests(package)
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    after = digests(package)
    assert {name for name in before if before[name] != after[name]} == changed


def test_digest_does_not_depend_on_place_or_order(package: Path, tmp_path: Path) -> None:
    before = digests(package)
    stage = (package / "stage.py").read_text()
    helper, inner = stage.split("\n\n", 1)
    (package / "stage.py").write_text("\n# moved\n" + inner + "\n\n" + helper + "\n")
    assert digests(package) == before


def test_a_command_given_on_by_its_package_is_the_same_command(package: Path) -> None:
    (package / "front.py").write_text("from pkg.cli import find, fit as adjust\n")
    assert code_digest("pkg.front:find", package) == digests(package)["find"]
    assert code_digest("pkg.front:adjust", package) == digests(package)["fit"]


@pytest.mark.parametrize(
    ("front", "file", "old", "new"),
    [
        ("from pkg.stage import *\ndef run(x):\n    return helper(x)\n", "stage.py", "FACTOR = 2", "FACTOR = 3"),
        (
            "import pkg.find\nimport pkg.stage\ndef run(x):\n    return pkg.find.peaks(x, 1)\n",
            "find.py",
            "x > y",
            "x < y",
        ),
        (
            "from pkg import find as f\ndef run(x):\n    return f.peaks(x, 1)\n",
            "constants.py",
            "LEVEL = 1",
            "LEVEL = 2",
        ),
        ("class A:\n    from pkg.stage import helper\nclass B(A): pass\nrun = B.helper\n", "stage.py", "= 2", "= 3"),
        ("def run(x, level=LEVEL):\n    return x\nLEVEL = 4\n", "front.py", "LEVEL = 4", "LEVEL = 5"),
        ("T = 1\nT += 2\nT *= 3\ndef run(x):\n    return T\n", "front.py", "T += 2\nT *= 3", "T *= 3\nT += 2"),
    ],
)
def test_every_way_to_reach_code_counts(package: Path, front: str, file: str, old: str, new: str) -> None:
    (package / "front.py").write_text(front)
    _parse.cache_clear()
    before = code_digest("pkg.front:run", package)
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    _parse.cache_clear()
    assert code_digest("pkg.front:run", package) != before


def test_sentences_that_describe_options_do_not_count(package: Path) -> None:
    texts = [
        "A = option(3, 'A sentence.', ge=0)",
        "A = option(3, 'Another.', ge=0)",
        "A = option(4, 'A sentence.', ge=0)",
    ]
    one, two, three = (normalise(ast.parse(text)) for text in texts)
    assert one == two != three


def test_every_module_of_the_package_is_parsed() -> None:
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(("cathodeflow", *(part for part in parts if part != "__init__")))
        assert len(code_digest(module)) == 16


def test_unknown_target_is_refused(package: Path) -> None:
    with pytest.raises(ValueError, match="not in"):
        code_digest("pkg.cli:absent", package)
    with pytest.raises(ValueError, match="not in"):
        code_digest("numpy.linalg", package)


def test_normal_form_is_independent_of_python_version() -> None:
    # Written out: a Python that adds fields to its trees (type_params, defaults) must not change digests.
    text = normalise(ast.parse("def f(a, b=2):\n    return g(a)[0] + b"))
    assert text == (
        "Module(body=FunctionDef(name='f';args=arguments(args=arg(arg='a'),arg(arg='b');defaults=Constant(value=2));"
        "body=Return(value=BinOp(left=Subscript(value=Call(func=Name(id='g');args=Name(id='a'));"
        "slice=Constant(value=0));op=Add();right=Name(id='b')))))"
    ), sys.version
