"""Warnings that any stage may have left in its record."""

from collections.abc import Iterator

from cathodeflow.report.numbers import is_number, number
from cathodeflow.report.results import Results

#: Warnings of the log of a job that are shown; the record has all.
_MOST = 5
#: Figures of merit that should be 0, and what another value means.
_COUNTS = {
    "frames_left_out": "frames could not be used and were left out",
    "frames_without_peaks": "frames have no peak",
    "saturated": "peaks have saturated pixels; their positions are less certain",
    "images_left_out": "images could not be read and were left out",
    "duplicates": "images are copies of others",
    "slices_left_out": "slices could not be used and were left out",
    "slices_without_labels": "slices have no labels",
    "labels_without_slices": "label images have no slice",
}


def general_warnings(results: Results) -> Iterator[str]:
    """Yield the warnings in the records of a technique: of the log, and of data that were left out."""
    for job in results.all(*results.jobs):
        logged = (job.record.get("job") or {}).get("warnings", [])
        for text in logged[:_MOST]:
            # Many name their sample themselves.
            yield f"{job.sample}, {_words(job.stage)}: {text.removeprefix(f'{job.sample}: ')}"
        if len(logged) > _MOST:
            yield f"{job.sample}, {_words(job.stage)}: {len(logged) - _MOST} more warnings in the record"
        for name, value in job.metrics.items():
            if name in _COUNTS and is_number(value) and value > 0:
                yield f"{job.sample}, {_words(job.stage)}: {number(value)} {_COUNTS[name]}"


def _words(stage: str) -> str:
    return stage.replace("_", " ")
