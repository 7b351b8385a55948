"""Options of the sampling error of properties."""

from cathodeflow.options import Options, option


class SamplingError(Options):
    """Error of the properties of one volume as a sample of the electrode."""

    blocks: int = option(
        2,
        "Blocks along each axis whose spread gives the sampling error. Volume fractions also use the two-point "
        "correlation of the whole volume.",
        ge=1,
        le=8,
    )
    min_block_px: int = option(
        16, "Minimum side of a block. Axes that are too short for two blocks are not cut.", unit="px", ge=4
    )
