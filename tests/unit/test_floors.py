"""The floors of the package: io <- helpers <- numeric modules <- stages <- command line; only io opens files."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "import_floors.py"
# Source code of the package, for digests and help texts; tables of run times that Snakemake writes.
OPENS_FILES = {"code_reach", "provenance", "commands", "tracking"}
FUNCTIONS = {
    "open", "fdopen", "read_text", "read_bytes", "write_text", "write_bytes", "mkstemp", "NamedTemporaryFile",
    "np.load", "np.save", "np.savez", "np.savez_compressed", "np.loadtxt", "np.savetxt", "np.genfromtxt", "np.fromfile",
    "np.memmap", "tofile", "torch.load", "torch.save", "load_file", "save_file", "h5py.File", "zarr.open", "to_zarr",
    "from_zarr", "pd.read_csv", "pd.read_parquet", "pd.read_json", "pd.read_excel", "to_csv", "to_parquet", "to_json",
    "to_excel", "imread", "imwrite", "TiffFile", "savefig", "Image.open", "ZipFile", "copyfile", "copytree", "copy2",
}  # fmt: skip
# Libraries of file formats that compute nothing.
LIBRARIES = {
    "h5py",
    "hdf5plugin",
    "tifffile",
    "zarr",
    "fabio",
    "pyarrow",
    "safetensors",
    "sqlite3",
    "yaml",
    "shutil",
    "tempfile",
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("import_floors", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


floors = load()
IMPORTS: dict[str, set[str]] = floors.imports()


def test_no_module_imports_from_a_higher_floor() -> None:
    order = {floor: number for number, floor in enumerate(floors.FLOORS)}
    # `import cathodeflow` alone, for its version and folder, is no import of what it holds.
    upwards = {
        (name, other)
        for name, others in IMPORTS.items()
        for other in others - {"__init__"}
        if order[floors.floor_of(other)] < order[floors.floor_of(name)]
    }
    assert upwards == set()


def test_io_imports_io_and_errors_alone() -> None:
    assert any(name.startswith("io.formats.") for name in IMPORTS)
    outside = {(name, other) for name, others in IMPORTS.items() if name.startswith("io.") for other in others}
    assert {pair for pair in outside if not pair[1].startswith("io.") and pair[1] != "errors"} == set()


def test_techniques_do_not_import_each_other() -> None:
    names = floors.techniques()
    assert names == ["bcdi", "bragg", "fibsem", "sem"]
    first = {name: name.split(".")[0] for name in IMPORTS}
    mixed = {
        (name, other)
        for name, others in IMPORTS.items()
        for other in others
        if first[other] in names and first[name] != first[other]
    }
    assert mixed == set()


def test_no_imports_in_circles_below_the_stages() -> None:
    low = {name for name in IMPORTS if floors.floor_of(name) in ("io", "helpers", "numeric modules")}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(IMPORTS[name] & low):
                visit(other, (*way, name))
            done.add(name)

    for name in sorted(low):
        visit(name, ())


def opened_files(source: str) -> list[str]:
    """Calls that open files, and imports of libraries that do."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).replace("numpy.", "np.").replace("pandas.", "pd.")
            method = isinstance(node.func, ast.Attribute) and node.func.attr
            if name in FUNCTIONS or (method and method in FUNCTIONS):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: import {name}" for name in names if name.split(".")[0] in LIBRARIES]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "open('a')",
        "Path('a').open('w')",
        "path.read_text()",
        "np.load('a.npy')",
        "numpy.fromfile('a')",
        "torch.save(state, 'a.pth')",
        "table.to_csv('a.csv')",
        "figure.savefig('a.png')",
        "def f():\n    import h5py",
        "from zarr.codecs import ZstdCodec",
    ],
)
def test_opened_files_are_seen(line: str) -> None:
    assert len(opened_files(line)) == 1


def test_only_io_opens_files() -> None:
    modules = floors.modules()
    found = {
        name: opened_files(path.read_text(encoding="utf-8"))
        for name, path in modules.items()
        if not name.startswith("io.") and name not in OPENS_FILES
    }
    assert {name: calls for name, calls in found.items() if calls} == {}
    assert any(
        opened_files(path.read_text(encoding="utf-8")) for name, path in modules.items() if name.startswith("io.")
    )


def test_the_picture_shows_the_floors_as_they_are() -> None:
    assert floors.PICTURE.read_text(encoding="utf-8") == floors.picture(), f"run python {SCRIPT}"
