"""A technique without a part of its own in the report: its figures of merit as they are."""

import importlib

from cathodeflow.report.numbers import number
from cathodeflow.report.parts import Content, Grid
from cathodeflow.report.results import Results
from cathodeflow.report.warnings import general_warnings


def general_content(results: Results) -> Content:
    """List the figures of merit of every stage."""
    try:
        text = importlib.import_module(f"cathodeflow.{results.technique}").__doc__ or ""
    except ImportError:
        text = ""
    grids = [
        Grid(
            f"{stage.replace('_', ' ')}",
            ["Sample", *names],
            [[job.sample, *(number(job.metrics.get(name)) for name in names)] for job in jobs],
        )
        for stage, jobs in results.jobs.items()
        if (names := list(jobs[0].metrics))
    ]
    title = results.technique.upper() if len(results.technique) < 5 else results.technique
    return Content(title, text.strip().split("\n")[0], [], grids, [], [*general_warnings(results)])
