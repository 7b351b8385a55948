"""Options that remove from a scan what is not diffraction of its crystal."""

from typing import Literal

from pydantic import field_validator

from cathodeflow.options import Options, option


class Cleaning(Options):
    """Hot pixels, saturation, and other crystals."""

    saturation: float | None = option(
        None,
        "Saturation level: pixels at or above it are masked. Default: the highest count, if several "
        "neighbouring pixels have it.",
        unit="counts",
        gt=0,
    )
    hot_ratio: float | None = option(
        10.0,
        "Voxels above this multiple of their second-highest neighbour in the frame are masked, and so are blocks of up "
        "to 3 x 3 pixels that are hot in most frames or in one; `none` masks no voxel.",
        gt=1,
    )
    aliens: Literal["remove", "warn", "keep"] = option(
        "remove",
        "Peaks of other crystals, which are far above the intensity on the opposite side of the pattern: mask them "
        "with a warning (`remove`), only warn (`warn`), or do not search for them (`keep`).",
    )
    exclude: tuple[tuple[int, ...], ...] = option(
        (),
        "Boxes of the raw scan to mask, each as (first frame, end, first row, end, first column, end).",
        unit="px",
    )

    @field_validator("exclude")
    @classmethod
    def _boxes(cls, boxes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
        if any(len(box) != 6 or min(box) < 0 or any(box[k] >= box[k + 1] for k in (0, 2, 4)) for box in boxes):
            raise ValueError("six numbers for each box: first frame, end, first row, end, first column, end")
        return boxes
