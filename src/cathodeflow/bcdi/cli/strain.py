"""The command from objects to strain, and to files for other programs."""

import logging
from typing import Any

import click

from cathodeflow.bcdi.cli.shared import find_geometry, group, read_spec, sample_flag, scan_flag, spec_flag
from cathodeflow.bcdi.options import Strain
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag

log = logging.getLogger("cathodeflow.bcdi")


@stage_command(group, Strain)
@click.argument("objects")
@spec_flag
@scan_flag
@click.option("--geometry", metavar="FILE", help="YAML or JSON file of the geometry.")
@sample_flag
@click.option("--out", required=True, metavar="FILE", help="CXI file to write.")
@click.option("--vti", required=True, metavar="FILE", help="VTK image data to write, for ParaView.")
@click.option("--statistics", required=True, metavar="FILE", help="CSV table of strain by depth to write.")
@click.option("--figure", required=True, metavar="FILE", help="Image of slices to write.")
@click.option("--page", required=True, metavar="FILE", help="HTML page of the surface in three dimensions to write.")
@record_flag()
def strain(
    objects: str, spec: str | None, scan: int | None, geometry: str | None, sample: str, out: str, vti: str,
    statistics: str, figure: str, page: str, record: str, options: Strain,
) -> None:  # fmt: skip
    """Tell displacement and strain of the best of OBJECTS, and write it for other programs and to look at."""
    import numpy as np
    import pandas as pd
    import torch

    from cathodeflow.bcdi import strain as stage
    from cathodeflow.bcdi.ambiguities import centred
    from cathodeflow.bcdi.metrics import support_of
    from cathodeflow.bcdi.plots import slices_figure
    from cathodeflow.bcdi.surface import surface_page
    from cathodeflow.errors import InputError
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.phasing import read_starts
    from cathodeflow.io.reconstructions import Reconstruction, write_cxi, write_page, write_vti
    from cathodeflow.io.tables import write_csv
    from cathodeflow.record import write_record

    found = read_starts(objects)
    standard = centred(torch.from_numpy(found.objects[0]))
    volume, support = standard.numpy(), support_of(standard, threshold=options.threshold).numpy()
    where, missing = find_geometry(read_spec(spec, scan), geometry, options)
    process: dict[str, Any] = {"sample": sample, "options": options.model_dump(mode="json"), "binning": found.binning}
    rows: list[dict[str, Any]] = []
    metrics: dict[str, Any] = {"voxels": int(support.sum())}
    if where is None:
        log.warning("%s: no geometry (%s), so there is no strain", sample, ", ".join(missing))
        one = Reconstruction(np.where(support, volume, 0), support, frame="scan", process=process)
    else:
        try:
            made = stage.particle(volume, support, where, binning=found.binning, voxel_nm=options.voxel_nm,
                                  erosion=options.erosion)  # fmt: skip
        except InputError as error:
            raise InputError(f"{objects}: {error.where}", error.found, error.expected) from None
        fields = (made.strain, made.displacement)
        rows = stage.statistics(fields, made.support, made.voxel_nm, shells=options.shells)
        size = (made.voxel_nm,) * 3
        one = Reconstruction(made.volume, made.support, size, fields=fields, geometry=where._asdict(), process=process)
        extent = np.ptp(np.argwhere(made.support), axis=0) + 1
        metrics |= {f"extent_{axis}_nm": float(n * made.voxel_nm) for axis, n in zip("zyx", extent, strict=True)}
        metrics |= {"voxel_nm": made.voxel_nm, "voxels": int(made.support.sum())}
        whole = {row["quantity"]: row for row in rows if row["region"] == "whole"}
        metrics |= {f"strain_{name}": whole[made.strain.name][name] for name in ("deviation", "q05", "q95")}
        metrics["displacement_deviation_nm"] = whole[made.displacement.name]["deviation"]
    quantity = one.fields[0][2] if one.fields else None
    save_figure(figure, slices_figure(one.volume, one.support, strain=quantity, voxel_nm=one.voxel_nm))
    html = surface_page(one.volume, one.support, one.fields, voxel_nm=one.voxel_nm, level=options.level, title=sample)
    write_page(page, html)
    columns = ["quantity", "unit", "region", "from_nm", "to_nm", "voxels", "mean", "deviation"]
    write_csv(statistics, pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns))
    write_cxi(out, one)
    write_vti(vti, one)
    write_record(record, stage="bcdi.strain", sample=sample, options=options, metrics=metrics, figures=[figure])
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
