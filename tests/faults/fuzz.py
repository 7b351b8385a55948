"""Read damaged files, of every kind and by every reader; started as a process of its own, which may crash or hang.

python -m tests.faults.fuzz FOLDER EXAMPLES SEED prints a line of JSON for every kind of file.
"""

import json
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from cathodeflow.errors import InputError
from tests.faults.seeds import SEEDS, TOKENS, Seed

#: Seconds of processor time for one file, and bytes of memory for all of them.
SECONDS, MEMORY = 20, 4 * 2**30
NUMBERS = (0, 1, 2, 127, 255, 65535, 200_000, 2**31 - 1, 2**32 - 1, 2**63 - 1)

place = st.one_of(st.integers(0, 400), st.integers(0, 2**31))
MUTATION = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("set"), place, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("number"), place, st.tuples(st.sampled_from(NUMBERS), st.sampled_from("BHIQ"), st.sampled_from("<>"))),
    st.tuples(st.just("insert"), place, st.one_of(st.binary(max_size=16), st.sampled_from(TOKENS))),
    st.tuples(st.just("drop"), place, st.integers(1, 64)),
    st.tuples(st.just("repeat"), place, st.integers(1, 64)),
    st.tuples(st.just("cut"), place, st.just(0)),
)  # fmt: skip


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
    counts = {"name": one.name, "read": 0, "refused": 0, "faults": []}
    choose = random.Random(number)

    @seed(number)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )  # fmt: skip
    @given(st.lists(MUTATION, min_size=1, max_size=3))
    def damage(mutations: list[tuple[str, int, Any]]) -> None:
        path = choose.choice(files)
        path.write_bytes(mutate(contents[path], mutations))
        (folder / "last").write_text(f"{path}: {mutations}")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            result = one.read(good)
            counts["read"] += 1
            if one.exact and not same(result, truth):
                counts["faults"].append(f"{one.name}: other values were read: {mutations}")
        except InputError:
            counts["refused"] += 1
        except (Exception, HangError):
            text = traceback.format_exc().strip().splitlines()
            counts["faults"].append(f"{one.name}: {mutations}: " + " | ".join(text[-7:]))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            path.write_bytes(contents[path])

    damage()
    return counts


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
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = fuzz(one, Path(folder, str(k)), int(examples), int(number) + k)
        found["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        print(json.dumps(found), flush=True)
        shutil.rmtree(Path(folder, str(k)))


if __name__ == "__main__":
    main(*sys.argv[1:])
