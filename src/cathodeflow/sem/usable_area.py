"""The part of a micrograph that shows the specimen: the rectangle beside the information bar."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError

SIDES = ("bottom", "top", "left", "right")


class UsableArea(NamedTuple):
    """Rectangle of an image, first and end pixel along rows and columns: rows `row0` to `row1` - 1."""

    row0: int
    row1: int
    col0: int
    col1: int

    @classmethod
    def beside_bar(cls, shape: tuple[int, ...], bar_rows: int, at: str = "bottom") -> Self:
        """Return the area beside a bar.

        Parameters
        ----------
        shape : (int, int)
            Rows and columns of the image.
        bar_rows : int
            Thickness of the bar: rows of one at the bottom or top, columns of one at the left or right [px].
        at : {"bottom", "top", "left", "right"}
            Side of the image at which the bar is.

        Raises
        ------
        InputError
            Nothing would be left.

        Examples
        --------
        >>> UsableArea.beside_bar((100, 120), 12, "left")
        UsableArea(row0=0, row1=100, col0=12, col1=120)
        """
        rows, cols = shape[:2]
        length, unit = (rows, "rows") if at in ("bottom", "top") else (cols, "columns")
        if not 0 <= bar_rows < length:
            raise InputError("bar_rows", str(bar_rows), f"0 to {length - 1} of {length} {unit}")
        first = {"top": (bar_rows, 0), "left": (0, bar_rows)}.get(at, (0, 0))
        last = {"bottom": (bar_rows, 0), "right": (0, bar_rows)}.get(at, (0, 0))
        return cls(first[0], rows - last[0], first[1], cols - last[1])

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return this part of an image (row, col), a view."""
        return image[self.row0 : self.row1, self.col0 : self.col1]

    def bar(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the bar beside this area, a view; one at the left or right is turned so that it lies.

        It is empty if the area is the whole image.
        """
        cols = image.shape[1]
        if self.col0 or self.col1 < cols:
            return np.rot90(image[:, : self.col0] if self.col0 else image[:, self.col1 :])
        return image[: self.row0] if self.row0 else image[self.row1 :]

    def inset(self, margin: int, shape: tuple[int, ...]) -> Self:
        """Move the edges that are not those of the image inwards by `margin` [px].

        Examples
        --------
        >>> UsableArea(0, 88, 0, 120).inset(1, (100, 120))
        UsableArea(row0=0, row1=87, col0=0, col1=120)
        """
        rows, cols = shape[:2]
        return type(self)(
            self.row0 + margin * (self.row0 > 0),
            self.row1 - margin * (self.row1 < rows),
            self.col0 + margin * (self.col0 > 0),
            self.col1 - margin * (self.col1 < cols),
        )

    @property
    def rows(self) -> int:
        """Number of rows; 0 or less if nothing is left."""
        return self.row1 - self.row0

    @property
    def cols(self) -> int:
        """Number of columns; 0 or less if nothing is left."""
        return self.col1 - self.col0
