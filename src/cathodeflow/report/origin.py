"""Where the results come from: data, settings, code and versions."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cathodeflow.report.numbers import number
from cathodeflow.report.parts import Finding, Grid
from cathodeflow.report.results import Job, Results

_SIMULATED = "simulated"


def jobs_of(results: Mapping[str, Results]) -> list[Job]:
    """Return all jobs of all techniques."""
    return [job for each in results.values() for job in each.all(*each.jobs)]


def data_grid(results: Results) -> Grid:
    """List the samples: files that were read and do not come from another job, and columns of the sample sheet."""
    jobs = results.all(*results.jobs)
    made = {
        _below((job.path.parent / name).as_posix(), results.technique): _sample(job)
        for job in jobs
        for name in job.record["outputs"]
    }
    further: dict[str, dict[str, str]] = {}
    raw: dict[str, set[str]] = {}
    together: set[str] = set()
    for job in jobs:
        inputs = list(job.record.get("inputs", {}))
        raw.setdefault(_sample(job), set()).update(name for name in inputs if _is_raw(name, made, results.technique))
        others = {made[place] for name in inputs if (place := _below(name, results.technique)) in made}
        if len(others - {_sample(job)}) > 1:
            together.add(_sample(job))  # such as a series of scans, which is no sample itself
        if sheet := (job.record.get("job") or {}).get("sample_sheet"):
            further.setdefault(_sample(job), {}).update(sheet)
    raw = {sample: names for sample, names in raw.items() if names and sample not in together}
    columns = sorted({name for values in further.values() for name in values})
    rows = [
        [
            sample,
            number(len(raw.get(sample, ()))),
            _SIMULATED if is_simulated(raw.get(sample, ()), results.technique) else "given",
            *(further.get(sample, {}).get(name, "") for name in columns),
        ]
        for sample in sorted({*raw, *further})
    ]
    return Grid("Samples", ["Sample", "Raw files and folders", "Data", *columns], rows)


def _sample(job: Job) -> str:
    """Name of the sample without the part of it, such as the route or the seed."""
    return job.sample.split("/")[0]


def _below(name: str, technique: str) -> str:
    """Return the part of a path below the folder of the technique, as the run may have had another results folder."""
    return name.rpartition(f"/{technique}/")[2]


def data_sentence(grid: Grid) -> str:
    """Say how many samples there are and which of them are simulated, from `data_grid`."""
    n, simulated = len(grid.rows), [row[0] for row in grid.rows if row[2] == _SIMULATED]
    samples = f"Raw data of {n} sample{'s' if n != 1 else ''}"
    if not simulated:
        return f"{samples}."
    return (
        f"{samples}, simulated by the workflow."
        if len(simulated) == n
        else f"{samples}; simulated: {simulated[0]}"
        + ("." if len(simulated) == 1 else f" and {len(simulated) - 1} more.")
    )


def _is_raw(name: str, made: Mapping[str, str], technique: str) -> bool:
    """Whether an input is raw data: simulated raw data count, outputs and records of other jobs do not."""
    is_result = _below(name, technique) in made or f"results/{technique}/" in name
    return is_simulated([name], technique) or not is_result


def is_simulated(names: Iterable[str], technique: str) -> bool:
    """Whether some of the files are raw data that the workflow simulated."""
    return any(f"results/raw/{technique}/" in name for name in names)


def records_grid(results: Results) -> Grid:
    """List all jobs: stage, sample, time and memory, and the digests that identify code and result."""
    rows = []
    for job in results.all(*results.jobs):
        run = job.record.get("job") or {}
        rows.append(
            [
                job.stage.replace("_", " "),
                job.sample,
                run.get("start", "")[:16].replace("T", " "),
                _duration(run),
                number(run.get("max_rss_mb")) if "max_rss_mb" in run else "",
                job.record["code"],
                job.record["digest"][:12],
            ]
        )
    columns = ["Stage", "Sample", "Start (UTC)", "Time [s]", "Memory [MB]", "Code digest", "Digest of the record"]
    return Grid("Jobs", columns, rows)


def _duration(run: Mapping[str, Any]) -> str:
    try:
        return number(float((datetime.fromisoformat(run["end"]) - datetime.fromisoformat(run["start"])).seconds))
    except (KeyError, ValueError, TypeError):
        return ""


def versions_of(jobs: Iterable[Job]) -> list[Finding]:
    """List commits of the code, names of the runs, and versions of Python and the libraries."""
    jobs = list(jobs)
    commits = Counter(job.record.get("commit") or "not known" for job in jobs)
    names = dict.fromkeys(name for job in jobs if (name := (job.record.get("job") or {}).get("run_name")))
    platforms = dict.fromkeys(name for job in jobs if (name := (job.record.get("job") or {}).get("platform")))
    found: dict[str, dict[str, None]] = {}
    for job in jobs:
        for package, version in job.record.get("versions", {}).items():
            found.setdefault(package, {})[version] = None
    texts = [f"{commit[:12]}{'+' if commit.endswith('+') else ''} ({count} jobs)" for commit, count in commits.items()]
    lines = [Finding("Commit of Cathodeflow", ", ".join(texts), "", "+: files differ from the commit")]
    if names:
        lines.append(Finding("Name of the run", ", ".join(names)))
    if platforms:
        lines.append(Finding("Machine", ", ".join(platforms)))
    lines += [Finding(package, ", ".join(versions)) for package, versions in sorted(found.items())]
    return lines


def origin_warnings(results: Mapping[str, Results]) -> list[str]:
    """Name what makes results hard to reproduce: several commits, and changed files."""
    commits = {commit for job in jobs_of(results) if (commit := job.record.get("commit"))}
    found = []
    if len(commits) > 1:
        found.append(f"The jobs were run with {len(commits)} states of the code; see versions.")
    if any(commit.endswith("+") for commit in commits):
        found.append("Files of Cathodeflow differed from the commit when jobs were run; see versions.")
    return found
