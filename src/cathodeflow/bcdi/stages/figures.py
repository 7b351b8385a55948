"""Stage: draw the figures of a reconstruction, or of the network."""

import torch
from matplotlib.figure import Figure

from cathodeflow.bcdi import plots
from cathodeflow.bcdi.coherence import detected_amplitude
from cathodeflow.bcdi.options import Figures
from cathodeflow.bcdi.resolution import Curve
from cathodeflow.bcdi.surface import surface_page
from cathodeflow.bcdi.trust_figure import trust_figure
from cathodeflow.io.figures import save_figure
from cathodeflow.io.phasing import read_pattern, read_starts
from cathodeflow.io.reconstructions import read_cxi, write_page
from cathodeflow.io.tables import read_csv, read_json
from cathodeflow.plotting import training_curves
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage


@stage("bcdi.figures")
def figures(
    *,
    out: OutputFolder,
    sample: str = "Particle",
    pattern: InputFile | None = None,
    objects: InputFile | None = None,
    phasing: InputFile | None = None,
    reconstruction: InputFile | None = None,
    curves: InputFile | None = None,
    trust: InputFile | None = None,
    strain_errors: InputFile | None = None,
    training: InputFile | None = None,
    success_rates: InputFile | None = None,
    options: Figures,
) -> Metrics:
    """Draw the figures that the given files allow.

    With `objects` and `phasing`: errors.png. With `objects` and `pattern`: diffraction.png. With `reconstruction`:
    slices.png and particle.html, the surface in 3D. With `curves`: resolution.png. With `trust` and
    `strain_errors`: trust.png. With `training`: train.png. With
    `success_rates`: success.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    sample : str
        Name of the reconstruction, for the title.
    pattern : path
        Diffraction amplitudes (prepared.h5).
    objects : path
        Objects of `phase` or `refine` (objects.h5).
    phasing : path
        Record of the stage that wrote them (phase.json or refine.json).
    reconstruction : path
        CXI file of `strain`.
    curves : path
        Table of the agreement by spatial frequency that `metrics` wrote.
    trust : path
        Table of the probability that each start is right, which `trust` wrote.
    strain_errors : path
        CXI file of the strain and its standard error, which `trust` wrote.
    training : path
        Record of the training (train.json).
    success_rates : path
        Table of success rates that `evaluate` wrote.
    """
    drawn: dict[str, Figure] = {}
    if objects and phasing:
        merits = read_json(phasing)["metrics"]
        errors = read_starts(objects).errors
        drawn["errors"] = plots.errors_figure(errors, best=merits["best_start"], noise=merits["counting_noise"])
    if objects and pattern:
        drawn["diffraction"] = _diffraction(pattern, objects)
    if reconstruction:
        particle = read_cxi(reconstruction)
        strain = next((values for name, _, values in particle.fields if name.startswith("strain")), None)
        drawn["slices"] = plots.slices_figure(
            particle.volume, particle.support, strain=strain, voxel_nm=particle.voxel_nm
        )
        page = surface_page(
            particle.volume,
            particle.support,
            particle.fields,
            voxel_nm=particle.voxel_nm,
            level=options.isosurface,
            title=sample,
        )
        write_page(f"{out}/particle.html", page)
    if curves:
        # Without a geometry, frequencies are per voxel and give no resolution in nm.
        table = read_csv(curves).query("unit == '1/nm'")
        drawn["resolution"] = plots.resolution_figure(
            {
                str(name): Curve(*(rows[column].to_numpy(float) for column in Curve._fields))
                for name, rows in table.groupby("curve", sort=False)
            }
        )
    if trust and strain_errors:
        drawn["trust"] = trust_figure(read_csv(trust), read_cxi(strain_errors))
    if training:
        record = read_json(training)
        drawn["train"] = training_curves(record["history"], unit="1", kept=record["metrics"]["best_epoch"])
    if success_rates:
        drawn["success"] = plots.success_figure(read_csv(success_rates).query("regime != 'all'"))
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)


def _diffraction(pattern: str, objects: str) -> Figure:
    """Draw the measured amplitudes and those of the best object."""
    measured, found = read_pattern(pattern), read_starts(objects)
    best, widths = (torch.from_numpy(values[:1]) for values in (found.objects, found.coherence))
    calculated = detected_amplitude(best, widths)[0].numpy()
    return plots.diffraction_figure(measured.amplitude, calculated, valid=measured.mask)
