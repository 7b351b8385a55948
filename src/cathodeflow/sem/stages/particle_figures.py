"""Stage: draw the outlines and the distributions of the particles."""

from typing import Any

import numpy as np
import pandas as pd

from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv, read_table
from cathodeflow.sem.listed_images import listed_reader
from cathodeflow.sem.particle_options import ParticleFigures
from cathodeflow.sem.particle_plots import Shown, distributions_figure, outlines_figure
from cathodeflow.sem.resample import to_uint8
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage


@stage("sem.particle_figures")
def particle_figures(
    table: InputFile,
    *,
    distributions_table: InputFile,
    images_table: InputFile,
    outlines: InputFile,
    out: OutputFile,
    sheet: OutputFile,
    options: ParticleFigures,
) -> Metrics:
    """Draw the distributions of the particles in TABLE, and parts of images with their outlines.

    Parameters
    ----------
    table : path
        Table of the particles that `particles` wrote.
    distributions_table : path
        Distributions that `particles` wrote.
    images_table : path
        Table of the images that `particles` wrote.
    outlines : path
        Outlines that `particles` wrote.
    out : path
        Figure of the distributions to write.
    sheet : path
        Contact sheet to write: of each class, the middle of the image with the median number of particles.

    Raises
    ------
    InputError
        A table or an image cannot be read.
    """
    particles, images = read_csv(table), read_csv(images_table)
    corners = read_table(outlines, ["name", "particle", "row", "col"])
    read = listed_reader(images)
    parts = []
    for _, same in images.groupby("label", sort=False):
        row = same.sort_values("particles", kind="stable").iloc[len(same) // 2]
        of_image = particles[particles["name"] == row["name"]].set_index("particle")
        area = UsableArea(*(int(row[name]) for name in UsableArea._fields))
        parts.append(_part(to_uint8(read(row["image"]), area=area), area, row, of_image,
                           corners[corners["name"] == row["name"]], options.width))  # fmt: skip
    save_figure(out, distributions_figure(particles, read_csv(distributions_table)))
    save_figure(sheet, outlines_figure(parts))
    return Metrics({}, figures=[out, sheet])


def _part(
    image: Any, area: UsableArea, row: pd.Series, particles: pd.DataFrame, corners: pd.DataFrame, width: int
) -> Shown:
    """Cut out the middle of an image, so many typical diameters wide, with the outlines in it."""
    cols = min(round(width * row["typical_px"]), area.cols)
    rows = min(round(0.75 * cols), area.rows)
    top, left = area.row0 + (area.rows - rows) // 2, area.col0 + (area.cols - cols) // 2
    polygons, cut = [], []
    for number, outline in corners.groupby("particle"):
        places = outline[["row", "col"]].to_numpy(np.float64) - (top, left)
        if (places.max(axis=0) >= 0).all() and (places.min(axis=0) < (rows, cols)).all():
            polygons.append(places)
            cut.append(bool(particles["cut"].to_dict()[number]))
    pixel_nm = float(row["pixel_nm"]) if row["pixel_nm"] > 0 else None
    title = f"{str(row['label']).replace('_', ' ')}: {int(row['particles'])} particles in the image"
    return Shown(image[top : top + rows, left : left + cols], polygons, cut, title, pixel_nm)
