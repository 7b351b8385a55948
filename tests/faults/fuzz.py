"""Read damaged files, of every kind and by every reader; started as a process of its own, which may crash or hang.

python -m tests.faults.fuzz FOLDER EXAMPLES SEED prints a line of JSON for every kind of file.
"""

import json
import random
import re
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cathodeflow.errors import InputError
from tests.faults.seeds import SEEDS, TOKENS, Seed, frames
from tests.faults.structure import other_hdf5, other_json

#: Seconds of processor time in this process for one file; a decoder with its own process has limits of its own.
SECONDS = 5
#: MB that one small damaged file may take.
MEMORY_MB = 400
#: What is said where a decoder in a process of its own was ended.
LIMITS = ("of processor time", "of memory", "the decoder ended")
NUMBERS = (0, 1, 2, 127, 255, 65535, 200_000, 2**31 - 1, 2**32 - 1, 2**63 - 1)
TEXTS = (b"0", b"-1", b"1", b"3", b"65536", b"24000000", b"99999999999", b"1e9", b"1.5", b"nan", b"", b"x")
#: How well-formed files get other contents, by suffix.
STRUCTURES = {".json": other_json, **dict.fromkeys((".h5", ".nxs", ".cxi"), other_hdf5)}
#: Suffixes of formats that are recognised by them.
SUFFIXES = (
    ".mpa",
    ".mrc",
    ".spe",
    ".pnm",
    ".spr",
    ".kcd",
    ".img",
    ".raw",
    ".edf",
    ".cbf",
    ".dm3",
    ".gz",
    ".bz2",
    ".xml",
)

place = st.one_of(st.integers(0, 400), st.integers(0, 2**31))
MUTATION = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("number"), place, st.tuples(st.sampled_from(NUMBERS), st.sampled_from("BHIQ"), st.sampled_from("<>"))),
    st.tuples(st.just("insert"), place, st.one_of(st.binary(max_size=16), st.sampled_from(TOKENS))),
    st.tuples(st.just("drop"), place, st.integers(1, 64)),
    st.tuples(st.just("repeat"), place, st.integers(1, 64)),
    st.tuples(st.just("cut"), place, st.just(0)),
    st.tuples(st.just("field"), place, st.sampled_from(TEXTS)),
    st.tuples(st.just("rename"), st.just(0), st.sampled_from(SUFFIXES)),
)  # fmt: skip

OTHER = st.tuples(st.just("other"), st.integers(0, 10**6), st.integers(0, 10**6))


class HangError(BaseException):
    """A reader that does not end; no Exception, so that no reader catches it."""


def mutate(content: bytes, mutations: list[tuple[str, int, Any]]) -> bytes:
    """Damage a file's content."""
    data = bytearray(content)
    for kind, where, what in mutations:
        at = where % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << what
        elif kind == "set":
            data[at : at + len(what)] = what
        elif kind == "number":
            value, size, order = what
            packed = struct.pack(order + size, value % 2 ** (8 * struct.calcsize(size)))
            data[at : at + len(packed)] = packed
        elif kind == "insert":
            data[at:at] = what
        elif kind == "drop":
            del data[at : at + what]
        elif kind == "repeat":
            data[at:at] = data[at : at + what] * 3
        elif kind == "cut":
            del data[at:]
        elif kind == "field" and (found := list(re.finditer(rb"-?\d+", data[:20_000]))):
            number = found[where % len(found)]
            data[number.start() : number.end()] = what
    return bytes(data)


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal to the last bit."""
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.nn.Module):
        return same(dict(one.state_dict()), dict(other.state_dict()))
    if isinstance(one, torch.Tensor | np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind in "fc")
    return bool(one == other)


def fuzz(one: Seed, folder: Path, examples: int, number: int) -> dict[str, Any]:
    """Damage one kind of file again and again, and count what becomes of it."""
    folder.mkdir()
    good = folder / "good" / one.name
    good.parent.mkdir()
    one.make(good)
    files = sorted(path for path in good.rglob("*") if path.is_file()) if good.is_dir() else [good]
    contents = {path: path.read_bytes() for path in files}
    # Noise behind the first bytes of a format is no good file.
    truth = one.read(good) if one.exact else None
    counts: dict[str, Any] = {
        "name": one.name,
        "read": 0,
        "refused": 0,
        "limited": 0,
        "faults": [],
        "slowest_s": 0.0,
        "memory_mb": 0,
    }
    choose = random.Random(number)
    bytewise, structured = st.lists(MUTATION, min_size=1, max_size=3), any(path.suffix in STRUCTURES for path in files)

    @seed(number)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    @given(bytewise | st.lists(OTHER, min_size=1, max_size=2) if structured else bytewise)
    def damage(mutations: list[tuple[str, int, Any]]) -> None:
        path = choose.choice(files)
        path.write_bytes(mutate(contents[path], mutations))
        for kind, where, what in mutations:
            if kind == "other" and path.suffix in STRUCTURES:
                STRUCTURES[path.suffix](path, where, what)
        # Only frames are recognised by content and suffix; the name of another file is its reader's business.
        suffix = next((what for kind, _, what in mutations if kind == "rename" and one.read is frames), "")
        read = path.rename(f"{path}{suffix}") if suffix else good
        (folder / "last").write_text(f"{path}: {mutations}")
        before = memory("VmRSS", reset=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        clock = time.monotonic()
        try:
            result = one.read(read)
            counts["read"] += 1
            if one.exact and mutations[0][0] != "other" and not same(result, truth):
                counts["faults"].append(f"{one.name}: other values were read: {mutations}")
        except InputError as error:
            counts["refused"] += 1
            counts["limited"] += any(text in str(error) for text in LIMITS)
        except (Exception, HangError):
            text = traceback.format_exc().strip().splitlines()
            counts["faults"].append(f"{one.name}: {mutations}: " + " | ".join(text[-7:]))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            taken_s = round(time.monotonic() - clock, 1)
            if taken_s > counts["slowest_s"]:
                counts.update(slowest_s=taken_s, slowest=str(mutations))
            taken = (memory("VmHWM") - before) // 1024
            counts["memory_mb"] = max(counts["memory_mb"], taken)
            if taken > MEMORY_MB:
                counts["faults"].append(f"{one.name}: {taken} MB: {mutations}")
            if suffix:
                read.unlink()
            path.write_bytes(contents[path])

    damage()
    return counts


def memory(name: str, *, reset: bool = False) -> int:
    """Memory of this process [kB]: VmRSS now, VmHWM the most since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def hang(*_: Any) -> None:
    """End what takes too long."""
    raise HangError


def main(folder: str, examples: str, number: str, *names: str) -> None:
    """Damage all kinds of files."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, hang)
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    for k, one in enumerate(SEEDS):
        if names and one.name not in names:
            continue
        print(f"# {one.name}", flush=True)
        found = fuzz(one, Path(folder, str(k)), int(examples), int(number) + k)
        print(json.dumps(found), flush=True)
        shutil.rmtree(Path(folder, str(k)))


if __name__ == "__main__":
    main(*sys.argv[1:])
