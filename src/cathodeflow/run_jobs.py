"""Jobs of a run of the workflow: what was planned, began, ended and failed, and the time that is left."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "failed", "done"]
# Rules that are no stage.
_OTHERS = ("all", "mlflow")
# Finished jobs from which on the time that is left is estimated.
_ENOUGH = 4


@dataclass
class Job:
    """A job.

    Attributes
    ----------
    rule : str
        Such as `bragg_find_peaks`.
    wildcards : dict
        Such as the name of the scan.
    log, benchmark : str
        Files of the job, "" if it has none.
    state : str
    begun, ended : float
        Seconds since 1970; 0 before.
    problem : str
        What Snakemake says of the failure, as that the time limit was reached.
    """

    rule: str
    wildcards: dict[str, str] = field(default_factory=dict)
    log: str = ""
    benchmark: str = ""
    state: State = "waiting"
    begun: float = 0.0
    ended: float = 0.0
    problem: str = ""

    @property
    def technique(self) -> str:
        """Technique, or the rule itself where it belongs to none."""
        return self.rule.split("_", 1)[0]

    @property
    def sample(self) -> str:
        """Sample, model or other thing that the job works on: the first wildcard."""
        return next(iter(self.wildcards.values()), "")

    @property
    def name(self) -> str:
        """Technique, stage, and all that the job works on.

        Examples
        --------
        >>> Job("bragg_find_peaks", {"scan": "charge_010"}).name
        'bragg find-peaks charge_010'
        """
        technique, _, stage = self.rule.partition("_")
        return " ".join(filter(None, [technique, stage.replace("_", "-"), *self.wildcards.values()]))


class Run:
    """A run of the workflow.

    Parameters
    ----------
    begun : float
        Start of the run [seconds since 1970].

    Attributes
    ----------
    jobs : dict
        Jobs by their numbers; those of `expected` that have not begun need not be among them.
    expected : Counter
        Number of jobs of each rule that are to run.
    """

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.jobs: dict[int, Job] = {}
        self.expected: Counter[str] = Counter()

    def expect(self, counts: Mapping[str, int]) -> None:
        """Set the number of jobs of each rule that are to run."""
        self.expected = Counter({rule: count for rule, count in counts.items() if rule not in ("all", "total")})

    def begin(self, number: int, at: float, job: Job | None = None) -> Job:
        """Note that a job begins, or is sent to a cluster; again after a failure, too."""
        job = self.jobs.setdefault(number, job or Job("unknown"))
        job.state, job.begun, job.problem = "running", at, ""
        return job

    def end(self, number: int, at: float, state: State = "done", problem: str = "") -> Job:
        """Note that a job has ended."""
        job = self.jobs.setdefault(number, Job("unknown"))
        job.state, job.ended, job.problem = state, at, problem
        return job

    def count(self, state: State) -> int:
        """Return the number of jobs in a state, `all` left out."""
        return sum(job.state == state and job.rule != "all" for job in self.jobs.values())

    @property
    def total(self) -> int:
        """Number of jobs that are to run."""
        return self.expected.total()

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time until the end, from the jobs of this run that have ended; None if they are too few.

        Jobs of the same rule are taken to last as long as each other, those of another rule as long as the mean; as
        many jobs run beside each other as until now.
        """
        lasted: dict[str, list[float]] = defaultdict(list)
        for job in self.jobs.values():
            if job.state == "done" and job.begun and job.rule not in _OTHERS:
                lasted[job.rule].append(job.ended - job.begun)
        known = [value for values in lasted.values() for value in values]
        if len(known) < _ENOUGH or now <= self.begun:
            return None
        mean = sum(known) / len(known)
        means = {rule: sum(values) / len(values) for rule, values in lasted.items()}
        running = [(job.rule, now - job.begun) for job in self.jobs.values() if job.state == "running"]
        work = sum(
            max(0, count - len(lasted[rule])) * means.get(rule, mean)
            for rule, count in self.expected.items()
            if rule not in _OTHERS
        )
        work -= sum(min(spent, means.get(rule, mean)) for rule, spent in running)
        busy = sum(known) + sum(spent for _, spent in running)
        return max(0.0, work) / max(1.0, busy / (now - self.begun))


def duration(seconds: float) -> str:
    """Say how long something lasts.

    Examples
    --------
    >>> duration(8.2), duration(200), duration(9000)
    ('8 s', '3 min', '2.5 h')
    """
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_left(run: Run, now: float) -> str:
    """Say how much time is left, "" if that is not known."""
    seconds = run.seconds_left(now)
    if seconds is None:
        return ""
    return "less than 1 min left" if seconds < 60 else f"about {duration(seconds)} left"
