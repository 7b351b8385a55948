"""Code digests see every edit that can change a result, and no other."""

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest

from cathodeflow.code_reach import PACKAGE, code_digest, package_code, reach
from cathodeflow.provenance import RememberedReaches, _packages, code_parameter, stage_target
from cathodeflow.statements import normalise

FILES = {
    "__init__.py": '"""Package."""\n',
    "jobs.py": """
import numpy as np
from pkg import io
from pkg.options import Fit, Find as FindOptions
from pkg.steps import helper

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
    "steps.py": "def helper(x):\n    'Doc.'\n    return _inner(x)\n\ndef _inner(x):\n    return x * FACTOR\n\nFACTOR = 2\n",
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
    package_code.cache_clear()
    return {name: code_digest(f"pkg.jobs:{name}", root) for name in ("find", "fit", "other")}


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("find.py", "x > y", "x >= y", {"find"}),
        ("constants.py", "LEVEL = 1", "LEVEL = 4", {"find"}),
        ("constants.py", "OTHER = 2", "OTHER = 3", set()),
        ("find.py", "return 1", "return 2", set()),
        ("find.py", "@staticmethod\n", "", {"find"}),
        ("jobs.py", "def find(x):", "@command('help text')\ndef find(x):", set()),
        ("jobs.py", "from pkg import io", "def command(text):\n    return print\n\nfrom pkg import io", set()),
        ("options.py", "level = 3", "level = 4", {"find"}),
        ("options.py", "radius = 5", "radius = 6", {"fit"}),
        ("steps.py", "FACTOR = 2", "FACTOR = 3", {"fit"}),
        ("steps.py", "x * FACTOR", "x * FACTOR + 0", {"fit"}),
        ("io/frames.py", "open(x)", "open(x, 'rb')", {"fit"}),
        ("jobs.py", "np.zeros(3)", "np.zeros(4)", {"other"}),
        ("jobs.py", "def other():", "def other():\n    # why\n", set()),
        ("steps.py", "'Doc.'", "'Another docstring.'", set()),
        ("steps.py", "def helper(x):", "def helper( x ):", set()),
        ("find.py", "from .constants", "print('side effect')\nfrom .constants", {"find"}),
        ("constants.py", "LEVEL = 1", "if True:\n    LEVEL = 1", {"find"}),
        ("constants.py", "LEVEL = 1", "LEVEL = 1\nLEVEL += 2", {"find"}),
        ("options.py", "radius = 5\n", "radius = 5\n\nFit.radius = 6\n", {"fit"}),
        ("steps.py", "FACTOR = 2", "FACTOR = {}\nFACTOR['a'] = 2", {"fit"}),
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
    stage = (package / "steps.py").read_text()
    helper, inner = stage.split("\n\n", 1)
    (package / "steps.py").write_text("\n# moved\n" + inner + "\n\n" + helper + "\n")
    assert digests(package) == before


def test_a_command_given_on_by_its_package_is_the_same_command(package: Path) -> None:
    (package / "front.py").write_text("from pkg.jobs import find, fit as adjust\n")
    assert code_digest("pkg.front:find", package) == digests(package)["find"]
    assert code_digest("pkg.front:adjust", package) == digests(package)["fit"]


@pytest.mark.parametrize(
    ("front", "file", "old", "new"),
    [
        ("from pkg.steps import *\ndef run(x):\n    return helper(x)\n", "steps.py", "FACTOR = 2", "FACTOR = 3"),
        (
            "import pkg.find\nimport pkg.steps\ndef run(x):\n    return pkg.find.peaks(x, 1)\n",
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
        ("class A:\n    from pkg.steps import helper\nclass B(A): pass\nrun = B.helper\n", "steps.py", "= 2", "= 3"),
        ("from pkg.options import Fit\nclass A(Fit): pass\ndef run(x):\n    return A\n", "options.py", "= 5", "= 6"),
        ("from pkg import options\nclass run(options.Fit): pass\n", "options.py", "= 5", "= 6"),
        ("from pkg.options import Fit\nclass run(metaclass=Fit): pass\n", "options.py", "= 5", "= 6"),
        ("from pkg.options import Fit\nclass run(unit=Fit.radius): pass\n", "options.py", "= 5", "= 6"),
        (
            "from pkg.steps import helper\n@helper\ndef f(x): pass\ndef run(x):\n    return f(x)\n",
            "steps.py",
            "= 2",
            "= 3",
        ),
        ("from pkg.steps import helper\n@helper\nclass A: pass\ndef run(x):\n    return A\n", "steps.py", "= 2", "= 3"),
        (
            "from pkg.steps import helper\nclass run:\n    @helper\n    def f(x): pass\n",
            "steps.py",
            "= 2",
            "= 3",
        ),
        (
            "from pkg.steps import helper\ndef run(x):\n    def inner(y=helper(2)):\n        return y\n    return inner\n",
            "steps.py",
            "= 2",
            "= 3",
        ),
        ("def run(x, *, level=LEVEL):\n    return x\nLEVEL = 4\n", "front.py", "LEVEL = 4", "LEVEL = 5"),
        ("run = lambda x, level=LEVEL: x\nLEVEL = 4\n", "front.py", "LEVEL = 4", "LEVEL = 5"),
        ("from pkg.io.frames import read as run\n", "io/__init__.py", "from . import frames", "print(1)"),
        ("def run(x, level=LEVEL):\n    return x\nLEVEL = 4\n", "front.py", "LEVEL = 4", "LEVEL = 5"),
        ("T = 1\nT += 2\nT *= 3\ndef run(x):\n    return T\n", "front.py", "T += 2\nT *= 3", "T *= 3\nT += 2"),
    ],
)
def test_every_way_to_reach_code_counts(package: Path, front: str, file: str, old: str, new: str) -> None:
    (package / "front.py").write_text(front)
    package_code.cache_clear()
    before = code_digest("pkg.front:run", package)
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    package_code.cache_clear()
    assert code_digest("pkg.front:run", package) != before


def test_every_module_of_the_package_is_parsed() -> None:
    package_code.cache_clear()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        module = ".".join(("cathodeflow", *(part for part in parts if part != "__init__")))
        assert len(code_digest(module)) == 16


def test_unknown_target_is_refused(package: Path) -> None:
    with pytest.raises(ValueError, match="not in"):
        code_digest("pkg.jobs:absent", package)
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


# What a name refers to.

MODULE = """
import numpy as np
from pkg.steps import helper

def index(x):
    return x

class Holder:
    size = 3
"""


@pytest.mark.parametrize(
    ("code", "reached"),
    [
        ("def run(x):\n    index = x\n    return index", False),
        ("def run(index):\n    return index", False),
        ("def run(*, index=3):\n    return index", False),
        ("def run(*index):\n    return index", False),
        ("def run(x):\n    return [index for index in x]", False),
        ("def run(x):\n    return {index: y for index, y in x if index}", False),
        ("def run(x):\n    return [y for z in x for y in z if (index := y)] + [index]", False),
        ("def run(x):\n    for index in x:\n        pass\n    return index", False),
        ("def run(x):\n    with open(x) as index:\n        return index", False),
        ("def run(x):\n    try:\n        return x\n    except OSError as index:\n        return index", False),
        ("def run(x):\n    import os as index\n    return index", False),
        ("def run(x):\n    index = x\n    def inner():\n        return index\n    return inner", False),
        ("def run(x):\n    index = x\n    return [index for _ in x]", False),
        ("def run(x):\n    index = x\n    return lambda: [index + y for y in x]", False),
        (
            "def run(x):\n    index = 0\n    def inner():\n        nonlocal index\n        index += 1\n    return inner",
            False,
        ),
        ("def run(x):\n    return lambda index: index", False),
        ("class run:\n    index = 3\n    double = index * 2", False),
        ("def run(x):\n    return x.index", False),
        ("def run(x):\n    return x(index=3)", False),
        ("def run(x):\n    return index(x)", True),
        ("def run(x, y=index):\n    index = x\n    return index", True),
        ("def run(x):\n    return [index(y) for y in x]", True),
        ("def run(x):\n    return [index for index in index(x)]", True),
        ("def run(x):\n    return lambda: index", True),
        ("def run(x):\n    def inner(index):\n        return index\n    return inner(index)", True),
        ("def run(x):\n    def inner():\n        return index\n    index_ = 1\n    return inner", True),
        ("def run(x):\n    global index\n    index = x", True),
        ("class run:\n    index = 3\n    def method(self):\n        return index", True),
        ("class run:\n    index = 3\n    double = [index for _ in (1, 2)]", True),
        ("class run:\n    index = index(3)", True),
        ("class run:\n    def index(self):\n        return index(self)", True),
        ("def run(x):\n    class Inner:\n        def method(self):\n            return index\n    return Inner", True),
        ("def run(x):\n    return (lambda index: index)(1), (lambda: index)()", True),
        ("@index\ndef mark(x):\n    return x\ndef run(x):\n    return mark(x)", True),
        ("def run(x):\n    match x:\n        case [index]:\n            return index", False),
    ],
)
def test_only_what_a_name_refers_to_counts(package: Path, code: str, reached: bool) -> None:
    def digest(source: str) -> str:
        (package / "front.py").write_text(f"{source}\n{code}\n")
        package_code.cache_clear()
        return code_digest("pkg.front:run", package)

    edited = MODULE.replace("def index(x):\n    return x", "def index(x):\n    return x + 1")
    assert (digest(MODULE) != digest(edited)) == reached


# What changes no number, and what does.

SMALL = {
    "__init__.py": "",
    "errors.py": "class InputError(Exception):\n    def __init__(self, *texts):\n        self.texts = texts\n",
    "record.py": "def write_record(path, *, stage, metrics):\n    print(path, metrics)\n",
    "progress.py": "def progress(items, label, total=None):\n    return items\n",
    "tracking.py": "def live_run(uri, name):\n    return open(uri)\n",
    "options.py": """
from pydantic import BaseModel, Field

class Options(BaseModel):
    strict: bool = True

def option(default, text, **bounds):
    return Field(default, description=text, **bounds)
""",
    "training.py": "def fit(x, *, label='training', epochs=3):\n    return x\n",
    "plotting.py": "COLOUR = 'red'\n",
    "a/__init__.py": "from pkg.a.base import shift\n",
    "a/plots.py": "from pkg.plotting import COLOUR\n\ndef curve(x):\n    return x, COLOUR\n",
    "a/base.py": """
import importlib.resources
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from pkg.errors import InputError

log = logging.getLogger("pkg")
SHIFT = 2
CHOICES = {"mean": lambda x: x.mean(), "sum": lambda x: x.sum()}

class Model:
    depth = 2

class Deep(Model):
    def run(self, x):
        return np.abs(x) * self.depth

@dataclass(frozen=True)
class Row:
    x: int
    y: int = 3

@njit(cache=True)
def kernel(x, n=4):
    return x + n

def shift(x):
    return x + SHIFT

def table():
    return (Path(__file__).parent / "table.csv").read_text()

def page():
    return importlib.resources.files("pkg.a").joinpath("page.html").read_text()

def other_error(x):
    return InputError(x, "of another kind", "a number")
""",
    "a/table.csv": "1,2\n",
    "a/page.html": "<html></html>\n",
    "a/options.py": """
from pydantic import field_validator

from pkg.options import Options, option

class Fit(Options):
    level: float = option(1.5, "Level of the fit.", ge=0, le=9)

    @field_validator("level")
    @classmethod
    def _even(cls, level):
        if level == 7:
            raise ValueError("seven does not do")
        return round(level, 3)

class Find(Options):
    size: int = option(default=3, description="Size of peaks.", ge=1)

class Section(Options):
    fit: Fit = Fit()
    find: Find = Find()
""",
    "a/stages/__init__.py": "",
    "a/stages/fit.py": """
import logging

import numpy as np

from pkg.a.base import Deep, kernel, log as base_log, other_error
from pkg.a.options import Fit
from pkg.a.plots import curve
from pkg.errors import InputError
from pkg.progress import progress
from pkg.stage import stage
from pkg.training import fit as train

log = logging.getLogger("pkg.fit")

@stage("a.fit", help="Fit the peaks.")
def fit(frames, *, options: Fit):
    from pkg.record import write_record
    from pkg.tracking import live_run

    def step(x):
        return kernel(x) * 2

    if frames is None:
        raise InputError("frames", f"nothing but {frames}", "frames")
    found = [step(x) for x in progress(frames, "fitting", total=5)]
    log.info("%d fits", len(found))
    with live_run("uri", name="a fit") as send:
        result = train(Deep().run(np.asarray(found)), label="the fit", epochs=options.level)
    if not found:
        raise other_error("x")
    if options.level > 8:
        raise ValueError("level is " + "too high")
    curve(result)
    write_record("a.json", stage="a.fit", metrics={"sum": sum(found)})
    return result
""",
    "a/stages/find.py": """
from pkg.a import shift
from pkg.a.base import CHOICES, Row, table
from pkg.a.options import Find
from pkg.stage import stage

@stage("a.find")
def find(frames, *, options: Find):
    return Row(shift(frames), options.size), table(), CHOICES["mean"](frames)
""",
    "a/stages/figures.py": """
from pkg.a.base import page
from pkg.a.plots import curve
from pkg.stage import stage

@stage("a.figures")
def figures(x):
    return curve(x), page()
""",
    "stage.py": "def stage(name, help=None):\n    return lambda function: function\n",
}
STAGES = ("a.fit", "a.find", "a.figures")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    root = tmp_path / "pkg"
    for name, text in SMALL.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def parameters(root: Path, libraries: tuple[str, ...] = ()) -> dict[str, str]:
    package_code.cache_clear()
    return {stage: code_parameter(stage, libraries, root) for stage in STAGES}


BASE, OPTIONS, FIT, FIND = "a/base.py", "a/options.py", "a/stages/fit.py", "a/stages/find.py"


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        # No number changes.
        (FIT, "nothing but", "nothing else than", set()),
        (FIT, '"too high"', '"much too high"', set()),
        (BASE, "of another kind", "of some other kind", set()),
        (OPTIONS, "seven does not do", "all but seven", set()),
        ("errors.py", "self.texts = texts", "self.texts = list(texts)", set()),
        (FIT, "%d fits", "%d peaks were fitted", set()),
        (FIT, '    log.info("%d fits", len(found))\n', "", set()),
        (FIT, "    curve(result)\n", "    base_log.warning('here')\n    curve(result)\n", set()),
        (
            BASE,
            "    return x + SHIFT",
            "    logging.getLogger('pkg').info('shift by %d', SHIFT)\n    return x + SHIFT",
            set(),
        ),
        (FIT, '"fitting"', '"fitting peaks"', set()),
        (FIT, '"the fit"', '"our fit"', set()),
        ("progress.py", "return items", "return list(items)", set()),
        ("record.py", "print(path, metrics)", "print(path, stage, metrics)", set()),
        ("tracking.py", "open(uri)", "open(uri, 'rb')", set()),
        (FIT, 'name="a fit"', 'name="a long fit"', set()),
        ("stage.py", "lambda function: function", "lambda function: print(function) or function", set()),
        (FIT, '"Fit the peaks."', '"Fit all peaks."', set()),
        (OPTIONS, "Level of the fit.", "Level, in counts.", set()),
        (OPTIONS, "Size of peaks.", "Size of the peaks.", set()),
        (OPTIONS, "ge=0, le=9", "ge=0, le=10", set()),
        (OPTIONS, "    find: Find = Find()", "    find: Find = Find()\n    other: int = 3", set()),
        (FIT, "    curve(result)\n", "    curve(result[:3])\n", set()),
        # Figures alone.
        ("a/plots.py", "return x, COLOUR", "return x, COLOUR, 2", {"a.figures"}),
        ("plotting.py", "'red'", "'blue'", {"a.figures"}),
        ("a/page.html", "<html>", "<html lang='en'>", {"a.figures"}),
        # Numbers change.
        (BASE, "SHIFT = 2", "SHIFT = 3", {"a.find"}),
        (BASE, "n=4", "n=5", {"a.fit"}),
        (BASE, "@njit(cache=True)", "@njit(cache=True, fastmath=True)", {"a.fit"}),
        (BASE, "return x + n", "return x - n", {"a.fit"}),
        (BASE, "    y: int = 3", "    y: int = 3\n    z: int = 4", {"a.find"}),
        (BASE, "@dataclass(frozen=True)", "@dataclass(order=True)", {"a.find"}),
        (BASE, "    depth = 2", "    depth = 3", {"a.fit"}),
        (BASE, "class Deep(Model):", "class Deep:", {"a.fit"}),
        (BASE, "x.mean()", "np.median(x)", {"a.find"}),
        ("a/__init__.py", "from pkg.a.base import shift", "from pkg.a.base import table as shift", {"a.find"}),
        ("a/table.csv", "1,2", "1,3", {"a.find"}),
        (FIT, "kernel(x) * 2", "kernel(x) * 3", {"a.fit"}),
        (FIT, "[step(x) for x in", "[step(x + 1) for x in", {"a.fit"}),
        (FIT, "progress(frames,", "progress(frames[1:],", {"a.fit"}),
        (FIT, "frames is None", "frames is False", {"a.fit"}),
        (FIT, '{"sum": sum(found)}', '{"sum": max(found)}', {"a.fit"}),
        (FIT, "log = logging", "print('effect')\nlog = logging", {"a.fit"}),
        (OPTIONS, "option(1.5,", "option(2.5,", {"a.fit"}),
        (OPTIONS, "default=3", "default=4", {"a.find"}),
        (OPTIONS, "round(level, 3)", "round(level, 2)", {"a.fit"}),
        (OPTIONS, "    fit: Fit = Fit()", "    fit: Fit = Fit(level=2)", set()),
        ("options.py", "strict: bool = True", "strict: bool = False", {"a.fit", "a.find"}),
        ("training.py", "epochs=3", "epochs=4", {"a.fit"}),
        (FIND, "Row(shift(frames)", "Row(shift(-frames)", {"a.find"}),
    ],
)
def test_what_changes_no_number_reruns_nothing(small: Path, file: str, old: str, new: str, changed: set[str]) -> None:
    (small / "a/unrelated.txt").write_text("x")
    before = parameters(small)
    text = (small / file).read_text()
    assert old in text
    (small / file).write_text(text.replace(old, new))
    after = parameters(small)
    assert {stage for stage in STAGES if before[stage] != after[stage]} == changed


def test_the_function_behind_a_stage_is_found(small: Path) -> None:
    assert stage_target("a.fit", small) == "pkg.a.stages.fit:fit"
    assert reach("pkg.a.stages.fit:fit", small).digest == parameters(small)["a.fit"]


def test_libraries_are_those_that_a_stage_reaches(small: Path) -> None:
    package_code.cache_clear()
    assert reach("pkg.a.stages.fit:fit", small).libraries == {"numba", "numpy", "pydantic"}
    assert reach("pkg.a.stages.find:find", small).libraries == {"pydantic"}


def test_what_was_found_is_remembered_until_a_file_changes(small: Path) -> None:
    def reached() -> dict[str, str]:
        package_code.cache_clear()
        found = RememberedReaches(small)
        return {stage: found.reach(stage).digest for stage in STAGES}

    notes = small / "__pycache__" / "code_digests"
    first = reached()
    assert first == parameters(small)
    written = notes.read_bytes()
    assert reached() == first
    assert notes.read_bytes() == written
    # The notes are read: another digest in them is given as it stands.
    notes.write_bytes(written.replace(first["a.fit"].encode(), b"0123456789abcdef"))
    assert reached() == first | {"a.fit": "0123456789abcdef"}
    for damaged in (b"", written[: len(written) // 2], b"\xff" + written):
        notes.write_bytes(damaged)
        assert reached() == first
    (small / FIT).write_text((small / FIT).read_text() + "\nLAST = 1\n")
    assert reached() == parameters(small)
    # Notes of other files are left out.
    assert len(notes.read_text().split()) < 2 * len(written.decode().split())
    notes.unlink()
    notes.mkdir()
    assert reached() == parameters(small)


def test_versions_of_chosen_libraries_count_where_they_are_reached(small: Path) -> None:
    import numba

    alone, chosen = parameters(small), parameters(small, ("Numba", "torch"))
    assert chosen == {**alone, "a.fit": f"{alone['a.fit']} numba {numba.__version__}"}


def test_packages_of_libraries_are_those_that_python_finds() -> None:
    expected = {library: sorted(names) for library, names in importlib.metadata.packages_distributions().items()}
    assert {library: sorted(each.name for each in packages) for library, packages in _packages().items()} == expected
