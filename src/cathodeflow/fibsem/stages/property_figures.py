"""Stage: draw the properties with their error bars, and the discharge curves that follow from them."""

from matplotlib.figure import Figure

from cathodeflow.fibsem.error_options import PropertyFigures
from cathodeflow.fibsem.error_plots import discharge_figure, properties_figure
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import read_csv, read_json
from cathodeflow.stage import InputFile, Metrics, OutputFolder, stage


@stage("fibsem.property_figures")
def property_figures(
    *,
    out: OutputFolder,
    comparison: InputFile | None = None,
    test: InputFile | None = None,
    curves: InputFile | None = None,
    options: PropertyFigures,
) -> Metrics:
    """Draw the figures of properties that the given files allow.

    With `comparison`: property_errors.png. With `curves`: discharge.png.

    Parameters
    ----------
    out : path
        Folder for the figures.
    comparison : path
        CSV table that `compare-properties` wrote.
    test : path
        Record of `test`, to mark the method that is best on the validation set, or in cross-validation.
    curves : path
        CSV table of discharge curves that `cell` wrote.
    """
    drawn: dict[str, Figure] = {}
    if comparison:
        scores = read_json(test)["metrics"] if test else {}
        # Where labels are few, a method is chosen by cross-validation.
        by = (
            "crossvalidation_miu_"
            if any(name.startswith("crossvalidation_miu_") for name in scores)
            else "validation_miu_"
        )
        known = {name.removeprefix(by): value for name, value in scores.items() if name.startswith(by)}
        drawn["property_errors"] = properties_figure(
            read_csv(comparison), best=max(known, key=lambda name: known[name], default=None), phases=options.phases
        )
    if curves:
        drawn["discharge"] = discharge_figure(read_csv(curves))
    files = [f"{out}/{name}.png" for name in drawn]
    for path, figure in zip(files, drawn.values(), strict=True):
        save_figure(path, figure)
    return Metrics({}, figures=files)
