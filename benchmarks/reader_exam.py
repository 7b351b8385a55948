"""Test of the file readers: images of the libraries that read detector files, each against that library's own pixels.

python benchmarks/reader_exam.py FOLDER ... [--written] [--details]

FOLDER holds files of any format, in folders by their origin, such as the test images of an unpacked source package.
`--written` adds files that fabio's and tifffile's own writers make. A file is read rightly if all pixels are those of
the library; refused if it ends in one line; and wrong otherwise, which ends with exit status 1.
docs/reader_exam.md has the outcome, and where the files come from.
"""

import argparse
import importlib.util
import logging
import os
import re
import signal
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fabio
import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters)
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.errors import InputError
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.micrographs import read_micrograph

logging.disable(logging.CRITICAL)
# Longest time for a file [s], and frames that are compared.
LIMIT, MOST = 60, 50
# Characters of a message in the table.
WIDTH = 200
# Difference of luminances that are rounded in another way, as a fraction of the range.
TOLERANCE = 0.01
ROWS, COLS = 33, 48
# Files that hold no image: tables, texts, archives, and parts of others.
NO_IMAGES = (".py", ".txt", ".csv", ".xml", ".msa", ".json", ".log", ".rpl", ".zip", ".md", ".rst", ".emi")


def ours(source: str) -> list[NDArray[Any]]:
    """Read the first frames of a file or dataset as the stages do."""
    series = open_series(source)
    return [frame for _, frame in read_frames(series, 0, min(series.n_frames, MOST))]


def theirs(path: Path, dataset: str | None) -> tuple[str, list[NDArray[Any]]]:
    """Read the first frames of a file or dataset with a library, and name it."""
    suffix = path.suffix.lower()
    with open(path, "rb") as file:
        head = file.read(8)
    if head == b"\x89HDF\r\n\x1a\n":
        return "h5py", _hdf5(path, dataset)
    if suffix == ".npy":
        return "numpy", _split(np.load(path))
    if suffix in (".png", ".jpg", ".bmp"):
        with Image.open(path) as image:
            return "Pillow", [np.asarray(image)]
    if suffix in (".tif", ".tiff"):
        return "tifffile", _split(tifffile.imread(path))
    with fabio.open(str(path)) as image:
        return "fabio", [image.get_frame(number).data for number in range(min(image.nframes, MOST))]


def _hdf5(path: Path, dataset: str | None) -> list[NDArray[Any]]:
    header = open_series(str(path)).files[0].header if dataset is None else None
    with h5py.File(path) as file:
        node = file[dataset if header is None else header.dataset]
        if isinstance(node, h5py.Dataset):
            return _split(node[()])
        names = sorted((name for name in node if re.fullmatch(r"data_?\d+", name)), key=lambda name: int(name[5:]))
        return [frame for name in names for frame in _split(node[name][()])][:MOST]


def _split(array: NDArray[Any]) -> list[NDArray[Any]]:
    return list(array.reshape(-1, *array.shape[-2:])[:MOST])


def micrograph(path: Path) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """Read an image as the SEM stages do, and with rosettasciio or Pillow; both brought to the range 0 to 1."""
    found = read_micrograph(str(path)).astype(float)
    if path.suffix.lower() in (".png", ".jpg", ".bmp", ".tif", ".tiff"):
        with Image.open(path) as image:
            # Alpha is dropped; colours become their luminance.
            grey = image if len(image.getbands()) == 1 and image.mode != "P" else image.convert("RGB").convert("L")
            name, expected = "Pillow", np.asarray(grey, float)
    else:
        from rsciio import IO_PLUGINS

        plugin = next(one for one in IO_PLUGINS if path.suffix.lower()[1:] in one["file_extensions"])
        reader = importlib.import_module(f"{plugin['api']}").file_reader
        name, expected = "rosettasciio", np.asarray(reader(str(path))[0]["data"], float)
    return name, _scaled(found), _scaled(expected)


def _scaled(values: NDArray[Any]) -> NDArray[Any]:
    span = np.ptp(values)
    return (values - values.min()) / span if span else np.zeros(values.shape)


def written(folder: Path) -> None:
    """Write images with the writers of fabio and tifffile."""
    from fabio import fabioformats

    random = np.random.default_rng(0)
    types = ["u1", "u2", "u4", "i2", "i4", "f4", "f8", "i8"]
    for name in fabioformats.get_class_by_name("edfimage") and sorted(_writers()):
        for dtype in types:
            image = random.integers(0, 100, (ROWS, COLS)).astype(dtype)
            target = folder / "written by fabio" / f"{name}_{dtype}.{_writers()[name]}"
            target.parent.mkdir(exist_ok=True)
            try:
                fabioformats.get_class_by_name(name)(data=image).write(str(target))
                with fabio.open(str(target)) as again:
                    assert np.array_equal(again.data, image)
            except Exception:  # what fabio cannot write and read itself is no exam
                target.unlink(missing_ok=True)
    stack = random.integers(0, 100, (3, ROWS, COLS))
    options: dict[str, dict[str, Any]] = {"plain": {}, "big": {"bigtiff": True}, "imagej": {"imagej": True}}
    options |= {f"compression {name}": {"compression": name} for name in ("zlib", "lzw", "packbits", "zstd", "lzma")}
    options |= {"tiles": {"tile": (16, 16)}, "strips": {"rowsperstrip": 5}}
    options["predictor"] = {"compression": "zlib", "predictor": True}
    for byteorder in "<>":
        for dtype in types:
            for name, keywords in options.items():
                order = "little" if byteorder == "<" else "big"
                target = folder / "written by tifffile" / f"{name} {dtype} {order}.tif"
                target.parent.mkdir(exist_ok=True)
                keywords = keywords | {"photometric": "minisblack", "byteorder": byteorder}
                try:
                    tifffile.imwrite(target, stack.astype(dtype), **keywords)
                except (ValueError, KeyError, NotImplementedError):
                    target.unlink(missing_ok=True)


def _writers() -> dict[str, str]:
    return {
        "cbfimage": "cbf", "tifimage": "tif", "eigerimage": "h5", "fit2dmaskimage": "msk", "limaimage": "h5",
        "lambdaimage": "nxs", "numpyimage": "npy", "esperantoimage": "esperanto", "mar345image": "mar3450",
        "brukerimage": "sfrm", "bruker100image": "sfrm", "oxdimage": "img", "pnmimage": "pnm", "edfimage": "edf",
        "dtrekimage": "img",
    }  # fmt: skip


def sources(path: Path) -> list[str | None]:
    """List what can be read in a file: every image of an HDF5 file that does not say which one is its frames."""
    if not h5py.is_hdf5(path):
        return [None]
    try:
        open_series(str(path))
    except InputError:
        names: list[str | None] = []
        with h5py.File(path) as file:
            file.visititems(lambda name, node: names.append(f"/{name}") if getattr(node, "ndim", 0) > 1 else None)
        return names or [None]
    return [None]


def judge(path: Path, dataset: str | None) -> tuple[str, str]:
    """Return the outcome for a file - `read`, `refused`, `wrong` or `slow` - and what is to be said of it."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(LIMIT)
    try:
        return _judge_image(path) if path.suffix.lower() in _MICROGRAPHS else _judge_frames(path, dataset)
    except TimeoutError:
        return "slow", f"more than {LIMIT} s"
    finally:
        signal.alarm(0)


_MICROGRAPHS = (".png", ".dm3", ".dm4", ".ser", ".jpg", ".bmp")


def _late(*_: object) -> None:
    raise TimeoutError


def _judge_frames(path: Path, dataset: str | None) -> tuple[str, str]:
    try:
        found = ours(f"{path}::{dataset}" if dataset else str(path))
    except InputError as error:
        return "refused", f"{error.found}; expected {error.expected}"
    except TimeoutError:
        raise
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    try:
        library, expected = theirs(path, dataset)
    except TimeoutError:
        raise
    except Exception as error:
        return "wrong", f"read, but the library cannot ({type(error).__name__})"
    same = len(found) == len(expected) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(found, expected, strict=True)
    )
    return ("read", library) if same else ("wrong", f"other pixels than {library}")


def _judge_image(path: Path) -> tuple[str, str]:
    try:
        library, found, expected = micrograph(path)
    except InputError as error:
        return "refused", f"{error.found}; expected {error.expected}"
    close = found.shape == expected.shape and np.allclose(found, expected, atol=TOLERANCE)
    return ("read", library) if close else ("wrong", f"other pixels than {library}")


def files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix.lower() not in NO_IMAGES and os.path.getsize(path):
            yield path


def report(outcomes: dict[tuple[str, str], list[tuple[str, str, str]]], details: bool) -> None:
    """Print a Markdown table of the outcomes by origin and suffix, and what was said of the files refused or wrong."""
    print(
        "| files of | suffix | images | read as the library reads them | refused | wrong |\n|---|---|---|---|---|---|"
    )
    said: Counter[str] = Counter()
    for (origin, suffix), entries in sorted(outcomes.items()):
        counts = Counter(outcome for _, outcome, _ in entries)
        wrong = counts["wrong"] + counts["slow"]
        print(f"| {origin} | `{suffix}` | {len(entries)} | {counts['read']} | {counts['refused']} | {wrong} |")
        said.update((origin, suffix, text) for _, outcome, text in entries if outcome != "read")
    print("\n| files of | suffix | files | refused with |\n|---|---|---|---|")
    for (origin, suffix, text), count in sorted(said.items()):
        print(f"| {origin} | `{suffix}` | {count} | {_short(text)} |")
    if details:
        for entries in outcomes.values():
            for name, outcome, text in entries:
                print(f"{outcome:8} {name}: {text}", file=sys.stderr)


def _short(text: str) -> str:
    """Leave the middle out of a long line, such as a list of datasets."""
    text = text.replace("|", "/")
    return text if len(text) <= WIDTH else f"{text[: WIDTH // 2]} ... {text[-WIDTH // 2 :]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--written", action="store_true", help="Add files that the libraries' own writers make.")
    parser.add_argument("--details", action="store_true", help="Name every file on the standard error output.")
    arguments = parser.parse_args()
    outcomes: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.written:
            written(Path(temporary))
        folders = [*arguments.folders, *(sorted(Path(temporary).iterdir()) if arguments.written else ())]
        for folder in folders:
            for path in files(folder):
                for dataset in sources(path):
                    outcome, text = judge(path, dataset)
                    text = text.replace(str(path), "FILE").replace(path.name, "FILE")
                    name = f"{path.name}{f'::{dataset}' if dataset else ''}"
                    outcomes[folder.name, path.suffix.lower()].append((name, outcome, text))
    report(outcomes, arguments.details)
    sys.exit(any(outcome in ("wrong", "slow") for entries in outcomes.values() for _, outcome, _ in entries))


if __name__ == "__main__":
    main()
