"""Stage: parameters of a cell, and its discharge curves, from the measured properties of an electrode."""

import logging
from typing import Any

import numpy as np

from cathodeflow.fibsem.cell_options import Cell
from cathodeflow.fibsem.cell_parameters import (
    PARAMETERS,
    Electrode,
    bpx_content,
    drawn_electrodes,
    electrode_of,
    require_template,
    validated,
)
from cathodeflow.fibsem.discharge import Curve, discharge, has_pybamm, require_pybamm
from cathodeflow.fibsem.nmc_cell import NMC_CELL
from cathodeflow.io.tables import read_csv, read_json, write_csv, write_json
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.fibsem")
# Electrodes that are drawn for the standard errors of the parameters.
_DRAWN = 2000


@stage("fibsem.cell")
def cell(
    properties: InputFile,
    *,
    out: OutputFile,
    curves: OutputFile | None = None,
    options: Cell,
) -> Metrics:
    """Write the parameters of a cell with the electrode of PROPERTIES as a BPX file.

    Porosity, transport efficiency, particle radius and specific surface of the positive electrode are the measured
    ones, all other parameters those of the template. With PyBaMM, discharge curves of cells that are drawn from the
    error bars show what the errors mean for the capacity.

    Parameters
    ----------
    properties : path
        Table `properties.csv` that `measure` or `properties` wrote.
    out : path
        BPX file to write (JSON).
    curves : path
        CSV table of the discharge curves to write; without rows where PyBaMM is not installed.

    Raises
    ------
    InputError
        A property is missing or not finite, lengths are in voxels, the template is no BPX file of a DFN model, or
        PyBaMM is not installed and `discharge` is `always`.
    """
    if options.discharge == "always":
        require_pybamm()
    table, where = read_csv(properties), options.template or "the packaged template"
    template = require_template(read_json(options.template) if options.template else NMC_CELL, where)
    electrode, rng = electrode_of(table, options, properties), np.random.default_rng(options.seed or 0)
    drawn = {
        kind: drawn_electrodes(table, options, properties, error=kind, count=_DRAWN, rng=rng) for kind in options.errors
    }
    known: dict[str, Electrode] = {kind: found for kind, found in drawn.items() if found is not None}
    for kind in drawn.keys() - known.keys():
        log.warning("%s has no column of the %s error", properties, kind)
    # Of both terms together, where the options have them first.
    errors = {
        name: float(np.std(values, ddof=1))
        for found in list(known.values())[:1]
        for name, values in found.parameters().items()
    }
    title = f"{template.get('Header', {}).get('Title', 'Cell')}, positive electrode measured"
    content = bpx_content(template, electrode, errors, title=title)
    validated(content, where)
    write_json(out, content)
    metrics: dict[str, Any] = {name: float(value) for name, value in electrode.parameters().items()}
    metrics |= {f"{name}_error": value for name, value in errors.items()}
    for name, value in electrode.parameters().items():
        log.info("%s: %.4g +- %.2g", PARAMETERS[name], value, errors.get(name, float("nan")))
    if curves is not None:
        wanted = options.discharge != "never" and has_pybamm()
        if options.discharge == "auto" and not wanted:
            log.info("no discharge curves: PyBaMM is not installed (pip install 'cathodeflow[cell]')")
        rows, figures = _discharged(template, electrode, known, content, options) if wanted else (_columns(), {})
        write_csv(curves, rows)
        metrics |= figures
    return Metrics(metrics)


def _columns() -> dict[str, list[Any]]:
    return {name: [] for name in ("error", "c_rate", "cell", "capacity_ah", "voltage")}


def _discharged(
    template: dict[str, Any], electrode: Electrode, drawn: dict[str, Electrode], content: dict[str, Any], options: Cell
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Discharge the measured cell and those drawn from the error bars: rows of the table, and figures of merit."""
    capacity = float(content["Parameterisation"]["Cell"]["Nominal cell capacity [A.h]"])
    columns, figures = _columns(), {}

    def add(kind: str, c_rate: float, number: int, one: Electrode) -> float:
        # All cells are discharged with the same current, as one does not know which cell one has.
        curve = discharge(
            bpx_content(template, one), current=c_rate * capacity, c_rate=c_rate, model=options.model
        )  # fmt: skip
        found = curve or Curve(np.array([]), np.array([]))
        count = len(found.capacity)
        parts: list[Any] = [[kind] * count, [c_rate] * count, [number] * count, *found]
        for name, values in zip(columns, parts, strict=True):
            columns[name].extend(values)
        return float(found.capacity[-1]) if count else float("nan")

    for c_rate in options.c_rates:
        figures[f"capacity_{c_rate:g}c"] = add("none", c_rate, 0, electrode)
        for kind, cells in drawn.items():
            each = [Electrode(*values) for values in zip(*(values[: options.samples] for values in cells), strict=True)]
            found = [add(kind, c_rate, number, one) for number, one in enumerate(each)]
            figures[f"capacity_{c_rate:g}c_error_{kind}"] = float(np.nanstd(found, ddof=1))
            log.info("%gC: %.4g A h, standard deviation %.2g A h by %s", c_rate, figures[f"capacity_{c_rate:g}c"],
                     figures[f"capacity_{c_rate:g}c_error_{kind}"], f"the {kind} error" if kind != "both" else
                     "both errors")  # fmt: skip
    return columns, figures
