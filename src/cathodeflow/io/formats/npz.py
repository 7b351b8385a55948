"""npz: frame caches of hexrd, the pixels above a threshold of each frame."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.guard import MAX_PIECE
from cathodeflow.io.raw_format import FrameConditions, FrameHeader, FrameReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _header(path: str, dataset: str | None) -> FrameHeader:
    import numpy as np

    with np.load(path, allow_pickle=False) as cache:
        names = set(cache.files)
        if not {"shape", "nframes", "dtype"} <= names:
            found = f"members {', '.join(sorted(names)[:6])}"
            raise InputError(path, found, "a hexrd frame cache with shape, nframes, dtype, 0_row, 0_col, 0_data ...")
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
