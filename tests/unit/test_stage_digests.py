"""In a copy of the package, every kind of edit reruns the stages whose numbers it can change, and no other."""

import ast
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from cathodeflow.code_reach import PACKAGE, package_code
from cathodeflow.config import stages, techniques
from cathodeflow.provenance import FIGURES, stage_reach

TECHNIQUES = set(techniques())
DRAWN = {stage for stage in stages() if stage.endswith(f".{FIGURES}")}
LEVELS = {"debug", "info", "warning", "error"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("source") / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture
def package(root: Path) -> Iterator[Path]:
    """The copy; what a test edits is put back."""
    yield root
    for path in root.rglob("*.py"):
        original = (PACKAGE / path.relative_to(root)).read_bytes()
        if path.read_bytes() != original:
            path.write_bytes(original)


def digests(root: Path) -> dict[str, str]:
    package_code.cache_clear()
    return {stage: stage_reach(stage, root).digest for stage in stages()}


@cache
def original() -> dict[str, str]:
    return digests(PACKAGE)


def changed(root: Path) -> set[str]:
    before, after = original(), digests(root)
    return {stage for stage in before if before[stage] != after[stage]}


class Edit(ast.NodeTransformer):
    """An edit of syntax trees, which counts what it does."""

    done = 0
    #: Text of the modules that can be edited.
    needs = ""

    def text(self, nodes: list[ast.expr]) -> None:
        for node in nodes:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    part.value += " indeed"
                    self.done += 1


class Wording(Edit):
    needs = "raise "

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            self.text([argument for argument in node.exc.args if isinstance(argument, ast.Constant | ast.JoinedStr)])
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "InputError":
            self.text(node.args)
        return self.generic_visit(node)


class Logs(Edit):
    needs = "getLogger"

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.AST]:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LEVELS:
            self.text(call.args[:1])
            return [node, ast.parse(f"{ast.unparse(call.func)}('done')").body[0]]
        return node


class Labels(Edit):
    needs = "progress("

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "progress":
            self.text([argument for argument in node.args if isinstance(argument, ast.Constant | ast.JoinedStr)])
        return self.generic_visit(node)


class Descriptions(Edit):
    needs = "option("

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "option":
            self.text(node.args[1:])
            node.keywords = [word for word in node.keywords if word.arg not in ("ge", "gt", "le", "lt", "unit")]
        return self.generic_visit(node)


class Statements(Edit):
    """A statement more in every function."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body.insert(0, ast.parse("edited = 1").body[0])
        self.done += 1
        return node


def apply(edit: type[Edit], root: Path, pattern: str) -> Counter[str]:
    """Edit the modules that match; count the edits of each technique, and of what is common as `cathodeflow`."""
    counts: Counter[str] = Counter()
    for path in root.rglob(pattern):
        if edit.needs not in path.read_text():
            continue
        tree = ast.parse(path.read_bytes())
        made = edit()
        made.visit(tree)
        if made.done:
            path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
            part = path.relative_to(root).parts[0]
            counts[part if part in TECHNIQUES else root.name] += made.done
    return counts


@pytest.mark.parametrize("edit", [Wording, Logs, Labels, Descriptions])
def test_texts_rerun_nothing(package: Path, edit: type[Edit]) -> None:
    counts = apply(edit, package, "*.py")
    assert counts.keys() >= TECHNIQUES
    assert changed(package) == set()


@pytest.mark.parametrize(
    "module", ["errors", "record", "tracking", "code_reach", "provenance", "verify", "reference", "cli"]
)
def test_modules_that_compute_nothing_rerun_nothing(package: Path, module: str) -> None:
    assert apply(Statements, package, f"{module}.py")[package.name]
    assert changed(package) == set()


def test_record_format_reruns_nothing(package: Path) -> None:
    path = package / "record.py"
    text = path.read_text()
    assert "cathodeflow-record-1" in text
    path.write_text(text.replace("cathodeflow-record-1", "cathodeflow-record-2"))
    assert changed(package) == set()


def test_style_of_plots_redraws_and_computes_nothing(package: Path) -> None:
    counts = apply(Statements, package, "*plots.py") + apply(Statements, package, "plotting.py")
    assert counts.keys() >= TECHNIQUES | {package.name}
    assert changed(package) == DRAWN


def test_layout_and_comments_rerun_nothing(package: Path) -> None:
    for path in package.glob("*/options.py"):
        path.write_text("# A comment.\n" + ast.unparse(ast.parse(path.read_bytes())))
    assert changed(package) == set()


class Field(Edit):
    """A field more in the class of a technique's section."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if node.name == "Section":
            node.body.append(ast.parse("new_field: int = 3").body[0])
            self.done += 1
        return node


def test_a_new_field_of_a_section_reruns_nothing(package: Path) -> None:
    assert apply(Field, package, "options.py") == dict.fromkeys(TECHNIQUES, 1)
    assert changed(package) == set()


EDITS = {
    "constant": ("sem", "_UNKNOWN = np.iinfo(np.int64).max", "_UNKNOWN = np.iinfo(np.int32).max", "sem.split"),
    "constant of one stage": ("sem", "_QUANTILES = 1025", "_QUANTILES = 513", "sem.audit"),
    "constant of a loss": ("sem", "FOCUSING = 2.0", "FOCUSING = 2.5", "sem.train"),
    "order": ("sem", '(record["label"], record["time"] or', '(record["time"] or', "sem.index"),
    "nested function": ("sem", "path), area=area)", "path), area=None)", "sem.crops"),
    "decorator of a kernel": (
        "bragg",
        "nogil=True)\ndef _gather_row",
        "nogil=True, fastmath=True)\ndef _gather_row",
        "bragg.find_peaks bragg.study",
    ),
    "kernel": ("bragg", "JACOBIAN = 11", "JACOBIAN = 12", "bragg.fit bragg.study"),
    "table": ("bragg", 'MODELS = {"pseudo_voigt": 7', 'MODELS = {"pseudo_voigt": 8', "bragg.fit bragg.study"),
    "pairs": ("bragg", '("fit", "truth"))', '("truth", "fit"))', "bragg.compare"),
    "start": ("bcdi", "_FIRST_WIDTH = 0.5", "_FIRST_WIDTH = 0.6", "bcdi.evaluate bcdi.phase bcdi.refine bcdi.trust"),
    "default argument": (
        "bcdi",
        "order: int = 3,\n) -> NDArray[np.float32]",
        "order: int = 1,\n) -> NDArray[np.float32]",
        "bcdi.series bcdi.strain bcdi.trust",
    ),
    "base class": (
        "bcdi",
        "class _Twice(nn.Sequential)",
        "class _Twice(nn.Module)",
        "bcdi.evaluate bcdi.infer bcdi.train",
    ),
    "lambda": (
        "bcdi",
        "lambda point: 1 - np.sum(beyond",
        "lambda point: 2 - np.sum(beyond",
        "bcdi.simulate bcdi.simulate_scan",
    ),
    "field": ("bcdi", "    rounding: float = 0.0\n", "    rounding: float = 0.5\n", "bcdi.simulate bcdi.simulate_scan"),
    "key of a sort": ("bcdi", "lambda m: (abs(m - n), m)", "lambda m: (abs(m - n), -m)", "bcdi.prepare"),
    "class attribute": (
        "fibsem",
        "class Padded(NamedTuple):",
        "class Padded(NamedTuple):\n    extra: int",
        "fibsem.calibrate_errors fibsem.measure fibsem.predict fibsem.tables fibsem.test fibsem.train_local",
    ),
    "levels": (
        "fibsem",
        "_LEVELS = 2**16",
        "_LEVELS = 2**15",
        "fibsem.calibrate_errors fibsem.measure fibsem.predict fibsem.predict_global fibsem.tables fibsem.test "
        "fibsem.train_global fibsem.train_local",
    ),
    "figure of merit": ("fibsem", '{"test_images": len(tested)}', '{"test_images": 2 * len(tested)}', "fibsem.test"),
    "common function": (
        "",
        "confidence: float = 0.95, independent",
        "confidence: float = 0.9, independent",
        "bcdi.evaluate bragg.compare bragg.study sem.audit sem.test",
    ),
    "common class": (
        "",
        "class NewFile(h5py.File)",
        "class NewFile(h5py.Group)",
        "bcdi.export bcdi.infer bcdi.phase bcdi.prepare bcdi.refine bcdi.series bcdi.simulate_scan bcdi.strain bcdi.trust bragg.export"
        " bragg.fit"
        " bragg.frames bragg.locate bragg.patches bragg.simulate sem.explain",
    ),
    "base of all options": ("", "allow_inf_nan=False", "allow_inf_nan=True", " ".join(set(stages()) - DRAWN)),
}


@pytest.mark.parametrize("name", EDITS)
def test_real_edits_rerun_just_what_can_differ(package: Path, name: str) -> None:
    folder, old, new, expected = EDITS[name]
    found = [path for path in (package / folder).rglob("*.py") if old in path.read_text()]
    assert len(found) == 1, f"{old!r} stands in {found}"
    found[0].write_text(found[0].read_text().replace(old, new))
    assert changed(package) - DRAWN == set(expected.split())


def test_data_files_of_the_package_rerun_what_reads_them(package: Path) -> None:
    path = next(path for path in package.rglob("*.py") if "_UNKNOWN = np.iinfo" in path.read_text())
    path.write_text(
        path.read_text().replace(
            "_UNKNOWN = np.iinfo(np.int64).max", "_UNKNOWN = len((Path(__file__).parent / 'unknown.txt').read_text())"
        )
    )
    table = path.with_name("unknown.txt")
    try:
        table.write_text("1")
        one = digests(package)
        table.write_text("2")
        two = digests(package)
    finally:
        table.unlink()
    assert {stage for stage in one if one[stage] != two[stage]} == {"sem.split"}
