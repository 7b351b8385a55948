"""Write movies: MP4 (H.264) through PyAV, GIF through Pillow; equal pictures give equal bytes."""

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.io.atomic import atomic_path

Picture = NDArray[np.uint8]

# H.264 plays in all browsers and players if its colour has half the resolution (yuv420p), and both sides are even.
_ENCODERS = ("libx264", "libopenh264", "mpeg4")
# One thread, as several would make the bytes depend on their number, and no macroblock tree, which makes them depend on
# what was in memory before (measured: three different files of 12 encodings of the same pictures, one without it).
_OPTIONS = {"libx264": {"preset": "fast", "crf": "19", "threads": "1", "x264-params": "mbtree=0"}}
# Number of ITU-R BT.709, in which colours are stored, and which the file names.
_BT709 = 1
_LIMITED_RANGE = 1
# Half of the GIF's colours by their frequency, for the many grey levels, the other half by where they are, for lines.
_GIF_COLOURS = ((Image.Quantize.MEDIANCUT, 128), (Image.Quantize.FASTOCTREE, 127))


def write_mp4(path: str | os.PathLike[str], pictures: Iterable[Picture], *, fps: int) -> int:
    """Write an MP4 movie, atomically and with one picture in memory.

    Parameters
    ----------
    path : path
    pictures : iterable of (row, col, 3) uint8
        RGB pictures of one size, with even sides.
    fps : int
        Pictures per second.

    Returns
    -------
    int
        Number of pictures.

    Raises
    ------
    ValueError
        There is no picture, or a side is odd or differs.
    """
    shown = iter(pictures)
    first = next(shown, None)
    if first is None or first.shape[0] % 2 or first.shape[1] % 2:
        raise ValueError(f"pictures: found {None if first is None else first.shape}, expected even sides")
    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    count = 0
    # `bitexact` leaves out the version of the library; `faststart` lets browsers play before all is loaded.
    settings = {"movflags": "faststart", "fflags": "+bitexact"}
    with atomic_path(path) as temporary, av.open(os.fspath(temporary), "w", format="mp4", options=settings) as file:
        stream = cast(av.VideoStream, file.add_stream(encoder, rate=fps, options=_OPTIONS.get(encoder, {})))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        context = stream.codec_context
        context.time_base = Fraction(1, fps)
        context.color_range = _LIMITED_RANGE
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for picture in chain([first], shown):
            if picture.shape != first.shape:
                raise ValueError(f"picture {count}: found {picture.shape}, expected {first.shape}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = frame.reformat(
                format="yuv420p", src_color_range="JPEG", dst_color_range="MPEG", dst_colorspace="ITU709"
            )
            frame.pts, frame.time_base = count, Fraction(1, fps)
            file.mux(stream.encode(frame))
            count += 1
        file.mux(stream.encode(None))
    return count


def write_gif(
    path: str | os.PathLike[str], pictures: Iterable[Picture], *, samples: Sequence[Picture], seconds: float, width: int
) -> int:
    """Write a GIF that repeats, atomically; all pictures have the colours that suit `samples`.

    Pillow keeps the parts of all pictures that change until the end, so their number should be small.

    Parameters
    ----------
    path : path
    pictures : iterable of (row, col, 3) uint8
        RGB pictures of one size.
    samples : sequence of (row, col, 3) uint8
        Some of them, from which the common palette is made.
    seconds : float
        Time for which each picture is shown [s].
    width : int
        Pictures that are wider are reduced to this width [px].

    Returns
    -------
    int
        Number of pictures.
    """
    sheet = _reduced(np.concatenate(samples), width)
    colours = [sheet.quantize(number, method).getpalette() or [] for method, number in _GIF_COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([level for part in colours for level in part])
    count = 0

    def coloured() -> Iterator[Image.Image]:
        nonlocal count
        for picture in pictures:
            count += 1
            yield _reduced(picture, width).quantize(palette=palette, dither=Image.Dither.NONE)

    images = coloured()
    first = next(images)
    with atomic_path(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=images,
            duration=max(20, 10 * round(100 * seconds)),
            loop=0,
        )
    return count


def _reduced(picture: Picture, width: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.width <= width:
        return image
    return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.BOX)
