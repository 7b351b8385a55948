"""npz: frame caches of hexrd, the pixels above a threshold of each frame; or one array of frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIECE
from cathodeflow.io.raw_format import FrameConditions, FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _is_cache(names: set[str]) -> bool:
    return {"shape", "nframes", "dtype"} <= names


def _array_name(path: str, names: set[str]) -> str:
    """Return the name of the array of frames: `data`, as in PyNX, or the only one."""
    if "data" in names or len(names) == 1:
        return "data" if "data" in names else min(names)
    expected = "one array, or `data`, or a hexrd frame cache with shape, nframes, dtype, 0_row, 0_col, 0_data ..."
    raise InputError(path, f"members {', '.join(sorted(names)[:6])}", expected)


def _array_header(cache: Any, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and type of an array, without its values."""
    import numpy as np

    with cache.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def _header(path: str, dataset: str | None) -> FrameHeader:
    import numpy as np

    with np.load(path, allow_pickle=False) as cache:
        names = set(cache.files)
        if not _is_cache(names):
            shape, dtype = _array_header(cache, _array_name(path, names))
            if len(shape) not in (2, 3) or dtype.kind not in "biuf":
                raise InputError(path, f"an array of shape {shape}, {dtype}", "a 2-D or 3-D array of real numbers")
            if math.prod(shape) * dtype.itemsize > MAX_PIECE:
                raise InputError(path, f"an array of more than {MAX_PIECE} bytes", "at most that, or npy or HDF5")
            rows, cols = shape[-2:]
            return FrameHeader(shape[0] if len(shape) == 3 else 1, (rows, cols), dtype)
        large = [member.filename for member in cache.zip.infolist() if member.file_size > MAX_PIECE]
        if large:
            raise InputError(
                path, f"{large[0]} of more than {MAX_PIECE} bytes", f"members of at most {MAX_PIECE} bytes"
            )
        n_frames, shape = int(cache["nframes"]), cache["shape"]
        # The number in the file may be wrong; there cannot be more frames than members.
        wanted = range(min(n_frames, len(names)))
        missing = {f"{i}_{part}" for i in wanted for part in ("row", "col", "data")} - names
        if missing or shape.shape != (2,):
            found = f"no {min(missing)}" if missing else f"shape {shape.tolist()}"
            raise InputError(path, found, f"rows, columns and data of {n_frames} 2-D frames")
        text = cache["dtype"][()]
        dtype = np.dtype(text.decode() if isinstance(text, bytes) else str(text))
        return FrameHeader(n_frames, (int(shape[0]), int(shape[1])), dtype)


def _read(path: str, header: FrameHeader, indices: range) -> Iterator[NDArray[Any]]:
    import numpy as np

    with np.load(path, allow_pickle=False) as cache:
        if not _is_cache(set(cache.files)):
            frames = cache[_array_name(path, set(cache.files))]
            yield from (frames if frames.ndim == 3 else frames[None])[indices.start : indices.stop : indices.step]
            return
        for index in indices:
            frame = np.zeros(header.shape, header.dtype)
            row, col = cache[f"{index}_row"], cache[f"{index}_col"]
            if row.size and (row.min() < 0 or col.min() < 0):
                raise InputError(f"{path}, frame {index}", "negative pixel indices", f"indices within {header.shape}")
            frame[row, col] = cache[f"{index}_data"]
            yield frame


def _conditions(path: str, header: FrameHeader, omega_name: str | None) -> FrameConditions:
    import numpy as np

    from cathodeflow.io.conditions import middle

    with np.load(path, allow_pickle=False) as cache:
        name, unknown = omega_name or "omega", np.full(header.n_frames, np.nan)
        omega = middle(cache[name], header.n_frames, f"{path}, {name}") if name in cache.files else unknown
        return FrameConditions(omega, unknown)


FORMAT = RawFormat(
    name="npz",
    magic=(b"PK\x03\x04",),
    suffixes=(".npz",),
    frames=FrameReader(_header, _read, conditions=_conditions),
)
