"""Recognition of short printed texts by the network that the package rapidocr (extra `ocr`) brings along."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rows of the images that the network takes.
_ROWS = 48


class Text(NamedTuple):
    """A text, and the mean probability of its characters."""

    text: str
    confidence: float


@cache
def recognizer() -> Callable[[NDArray[np.uint8]], Text] | None:
    """Return a function from the image of a line of text, (row, col) uint8, to the text; None without the extra `ocr`.

    The network is PP-OCR [1]_ (Apache 2.0), which is run by onnxruntime. Of its characters the likeliest in each column
    count, without repetitions (CTC).

    References
    ----------
    .. [1] Y. Du et al., PP-OCR: a practical ultra lightweight OCR system, arXiv:2009.09941 (2020)
    """
    found = importlib.util.find_spec("rapidocr")
    folder = Path(found.origin).parent if found and found.origin else None
    models = sorted(folder.glob("models/*rec*.onnx")) if folder else []
    if not models:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Images are read side by side.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(models[-1], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    # The first class is no character, the last a blank.
    characters = ["", *session.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]

    def read(image: NDArray[np.uint8]) -> Text:
        probabilities = session.run(None, {name: _prepared(image)})[0][0]
        best = probabilities.argmax(axis=1)
        kept = (best != 0) & np.concatenate([[True], best[1:] != best[:-1]])
        text = "".join(characters[index] for index in best[kept] if index < len(characters))
        return Text(text, float(probabilities.max(axis=1)[kept].mean()) if kept.any() else 0.0)

    return read


def _prepared(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    from PIL import Image

    cols = max(round(image.shape[1] * _ROWS / image.shape[0]), 1)
    scaled = Image.fromarray(image).resize((cols, _ROWS), Image.Resampling.BICUBIC)
    grey = np.asarray(scaled, np.float32) / np.float32(127.5) - np.float32(1)
    # Short texts are padded, as in the training of the network.
    padded = np.zeros((_ROWS, max(cols, 160)), np.float32)
    padded[:, :cols] = grey
    return np.broadcast_to(padded, (1, 3, *padded.shape)).astype(np.float32)
