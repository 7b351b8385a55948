"""What a person reads while the workflow runs, from Snakemake's own events; and `cathodeflow status` from elsewhere."""

import json
import logging
import os
import re
import subprocess
import sys
from logging import LogRecord
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from cathodeflow import run_status
from cathodeflow.run_jobs import Job, Run, time_left
from cathodeflow.run_messages import Messages
from cathodeflow.run_status import begin_journal, note_end, note_event, status_lines

ROOT = Path(__file__).parents[2]


def record(event: LogEvent | None = None, text: str = "", level: int = logging.INFO, **more: Any) -> LogRecord:
    made = LogRecord("snakemake.logging", level, "", 0, text, (), None)
    made.__dict__.update(more, **({"event": event} if event else {}))
    return made


def begins(number: int, rule: str = "bragg_fit", sample: str = "a", **more: Any) -> LogRecord:
    log = [f"results/logs/{rule}/{sample}.log"]
    return record(
        LogEvent.JOB_INFO, jobid=number, rule_name=rule, wildcards={"scan": sample}, log=log,
        rule_msg=f"Fitting the peaks of scan {sample}", reason="Missing output files: x", **more,
    )  # fmt: skip


def ends(number: int) -> LogRecord:
    return record(LogEvent.JOB_FINISHED, job_id=number)


def fails(number: int, rule: str, **more: Any) -> LogRecord:
    inputs = [f"results/raw/sem/cathodes/{index:06d}_with_a_long_name.jpg" for index in range(854)]
    given = {"rule_msg": None, "input": inputs, "output": ["x"], "log": [], "shellcmd": "cathodeflow sem train", **more}
    return record(LogEvent.JOB_ERROR, "Error in rule", logging.ERROR, jobid=number, rule_name=rule, **given)


def test_a_run_is_a_line_for_each_job_with_progress_and_time_left() -> None:
    now = [1000.0]
    messages = Messages(clock=lambda: now[0])
    assert messages.lines(record(LogEvent.RUN_INFO, "Job stats:\n", stats={"bragg_fit": 10, "all": 1, "total": 11}))
    printed = []
    for number in range(5):
        printed += messages.lines(begins(number, sample=f"charge_{number}"))
        now[0] += 60
        printed += messages.lines(ends(number))
        printed += messages.lines(record(LogEvent.PROGRESS, done=number, total=11))
    assert len(printed) == 10
    assert re.fullmatch(r"\d\d:\d\d:\d\d +bragg fit charge_0: Fitting the peaks of scan charge_0", printed[0])
    # Five of ten jobs of a minute each, one at a time.
    assert printed[-1].endswith("50%  bragg fit charge_4: done in 1 min; 5 of 10 jobs, about 5 min left")
    messages.lines(begins(7, sample="charge_7"))
    assert re.search(r"^5 of 10 jobs, about \d min left \| running: bragg fit charge_7 \(since ", messages.status())


def test_jobs_of_other_kinds_and_beside_each_other_enter_the_time_left() -> None:
    run = Run(1000.0)
    run.expect({"sem_train": 2, "bragg_fit": 8})
    for number in range(4):
        run.begin(number, 1000.0, Job("bragg_fit"))
        run.end(number, 1010.0)
    run.begin(9, 1000.0, Job("sem_train"))
    run.end(9, 1100.0)
    # 140 s of work in 100 s; left are 4 of 10 s, and one of 100 s.
    assert run.seconds_left(1100.0) == pytest.approx(140 / 1.4) and time_left(run, 1100.0) == "about 2 min left"
    assert time_left(Run(0.0), 100.0) == ""


def test_a_failure_is_its_cause_and_not_the_names_of_its_inputs(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(
        "12:00:01 854 images\n12:00:02 raw/a.jpg: found text, expected JPEG\nraw/b.jpg: found text, expected JPEG\n"
    )
    messages = Messages()
    messages.lines(begins(1, "sem_train", "model"))
    lines = messages.lines(fails(1, "sem_train", log=[str(log)]))
    assert lines[0].endswith("FAILED  sem train model after 0 s: raw/a.jpg: found text, expected JPEG")
    assert lines[1:] == [
        "    raw/b.jpg: found text, expected JPEG", f"    log: {log}", "    command: cathodeflow sem train"
    ]  # fmt: skip
    # What a cluster says of a job that could say nothing itself; long entries are cut.
    said = "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'."
    lines = messages.lines(fails(1, "sem_train", log=["no.log"], rule_msg=said))
    assert "it wrote no log" in lines[0] and f"    {said}" in lines
    log.write_text("12:00:02 bad\n" + "line\n" * 100)
    assert len(messages.lines(fails(1, "sem_train", log=[str(log)]))) < 20
    repeated = "CalledProcessError in file common.smk, line 3:\nCommand 'set -euo pipefail; ...' returned"
    assert messages.lines(record(LogEvent.ERROR, repeated, logging.ERROR)) == []
    assert messages.lines(record(LogEvent.ERROR, "InputError in x.smk", logging.ERROR)) == ["InputError in x.smk"]
    assert messages.lines(record(None, "disk nearly full", logging.WARNING)) == ["disk nearly full"]


def test_a_killed_command_and_missing_outputs_are_told_though_the_log_ends_well(folder: Path) -> None:
    """As when the memory is exhausted: the log ends with the progress, and only Snakemake's error names the signal."""
    (folder / "logs/1.log").write_text("12:00:00 epoch 5 of 14\n")
    (folder / "logs/2.log").write_text("12:00:00 60 peaks\n")
    messages = Messages()
    command = "cathodeflow sem train a"
    died = f"RuleException:\nCalledProcessError in file x.smk, line 3:\nCommand 'set -euo pipefail;  {command}'"
    late = "Job 2  completed successfully, but some output files are missing. Missing files after 5 seconds:\n"
    late = f"MissingOutputException in rule bragg_fit:\n{late}a/peaks.h5 (missing locally)\nb.tsv (missing locally)"
    printed = []
    for event in (
        begins(1),
        begins(2, sample="b"),
        record(LogEvent.ERROR, f"{died} died with <Signals.SIGKILL: 9>.", logging.ERROR),
        record(LogEvent.ERROR, late, logging.ERROR),
        fails(1, "bragg_fit", log=["logs/1.log"], shellcmd=command),
    ):
        note_event(event)
        printed.append(messages.lines(event))
    assert printed[2] == []
    assert len(printed[3]) == 2 and re.search(r"FAILED  bragg fit b: .*did not write a/peaks.h5, b.tsv;", printed[3][0])
    assert printed[4][1] == "    killed by SIGKILL, as if the memory was exhausted"
    (folder / "logs/2.tsv").write_text("s\n1\n")
    text = "\n".join(status_lines(str(folder)))
    assert "1 of 5 jobs done, 2 failed" in text and "    killed by SIGKILL, as if" in text
    assert "did not write a/peaks.h5, b.tsv" in text
    # An exit status of a shell that did not find the command; that of an ordinary error says nothing.
    for status, said in (("127", True), ("137", True), ("1", False)):
        messages.lines(record(LogEvent.ERROR, f"{died} returned non-zero exit status {status}.", logging.ERROR))
        lines = messages.lines(fails(1, "bragg_fit", log=["logs/1.log"], shellcmd=command))
        assert any("exit status 127" in line or "SIGKILL" in line for line in lines) == said


def test_errors_that_a_full_disk_keeps_out_of_the_log_are_printed(tmp_path: Path) -> None:
    """By a job of the workflow, which otherwise writes to its log alone."""
    line = [
        sys.executable,
        "-m",
        "cathodeflow",
        "--log",
        "/dev/full",
        "bragg",
        "find-peaks",
        "no.h5",
        "--out",
        "x.parquet",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CATHODEFLOW_SHARED_TERMINAL": "1"}
    full = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert full.returncode == 1 and "no.h5" in full.stderr
    line[4] = "log.txt"
    other = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert other.returncode == 1 and other.stderr == "" and "no.h5" in (tmp_path / "log.txt").read_text()


def test_a_dry_run_is_the_jobs_with_short_reasons_and_one_table() -> None:
    messages = Messages(dry_run=True)
    table = record(LogEvent.RUN_INFO, "Job stats:\n", stats={"bragg_fit": 1, "total": 1})
    assert messages.lines(table) == []
    reason = "Missing output files: " + ", ".join(f"results/{index}.h5" for index in range(900)) + "; Code has changed"
    (first, second) = messages.lines(
        record(LogEvent.JOB_INFO, jobid=1, rule_name="bragg_fit", wildcards={}, reason=reason)
    )
    assert (
        first == "bragg fit" and second.strip() == "Missing output files: results/0.h5 and 899 more; Code has changed"
    )
    assert messages.lines(table) == ["Job stats:\n"] and messages.rest() == []
    # With --quiet no jobs are listed, and the table comes once.
    quiet = Messages(dry_run=True)
    quiet.lines(table)
    assert quiet.rest() == ["Job stats:\n"] and quiet.rest() == []


TOY = """
rule bad:
    output: "never"
    log: "bad.log"
    shell: "echo '12:00:00 no peak found' > {log}; false"
"""


def test_a_quiet_run_says_what_failed_and_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(TOY)
    line = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--logger", "cathodeflow"]
    given = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT / "src")}, "text": True}
    done = subprocess.run([*line, "--quiet"], capture_output=True, **given)
    assert done.returncode == 1 and re.search(r"FAILED  bad: no peak found", done.stderr), done.stderr
    # As `snakemake -n | head -0`.
    read, write = os.pipe()
    os.close(read)
    closed = subprocess.run([*line, "-n"], stdout=write, stderr=subprocess.PIPE, **given)
    os.close(write)
    assert closed.stderr == ""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    jobs = {
        1: Job("bragg_fit", {"scan": "a"}, "logs/1.log", "logs/1.tsv"),
        2: Job("bragg_fit", {"scan": "b"}, "logs/2.log", "logs/2.tsv"),
        3: Job("sem_train", {"version": "model"}, "logs/3.log", "logs/3.tsv"),
        4: Job("sem_test", {"version": "model"}, "logs/4.log", "logs/4.tsv"),
        5: Job("bragg_frames", {"scan": "a"}, "logs/5.log", "logs/5.tsv"),
        6: Job("all"),
    }
    begin_journal((number, job, number != 5) for number, job in jobs.items())
    return tmp_path


def table(lines: list[str]) -> dict[tuple[str, str], list[str]]:
    rows = [line.split() for line in lines]
    return {(row[0], row[1]): row[2:] for row in rows if row and row[0] in ("bragg", "sem")}


def test_status_shows_what_runs_waits_and_failed_with_the_last_line_of_its_log(folder: Path) -> None:
    assert "1 of 5 jobs done, 4 waiting" in status_lines(str(folder))[0]
    for number in (1, 2, 3):
        note_event(begins(number))
    (folder / "logs/1.tsv").write_text("s\n1\n")
    note_event(ends(1))
    (folder / "logs/2.log").write_text("12:00:00 12 frames\n12:00:01 scan b: found no peak, expected some\n")
    note_event(fails(2, "bragg_fit"))
    (folder / "logs/3.log").write_text("12:00:00 command: cathodeflow sem train\n")
    assert re.search(r"^  sem train model, \d+ s$", "\n".join(status_lines(str(folder))), re.MULTILINE)
    (folder / "logs/3.log").write_text("12:00:00 model: epoch 5 of 14: train_loss 0.4\n")
    lines = status_lines(str(folder))
    assert re.search(r"running for \d+ s: 2 of 5 jobs done, 1 running, 1 failed, 1 waiting", lines[0])
    assert table(lines[:8]) == {
        ("bragg", "a"): ["2", "-", "-", "-"],
        ("bragg", "b"): ["-", "-", "1", "-"],
        ("sem", "model"): ["-", "1", "-", "1"],
    }
    text = "\n".join(lines)
    assert re.search(r"running:\n  sem train model, \d+ s: model: epoch 5 of 14: train_loss 0.4", text)
    assert re.search(
        r"failed:\n  bragg fit b, at \d\d:\d\d:\d\d: scan b: found no peak, expected some\n    log: logs/2.log", text
    )
    # Tried again, and well.
    note_event(begins(2))
    (folder / "logs/2.tsv").write_text("s\n1\n")
    note_event(ends(2))
    note_end("failed")
    lines = status_lines(str(folder))
    assert "ended with failures" in lines[0] and "failed:" not in lines and "running:" not in lines


def test_on_a_cluster_jobs_in_the_queue_wait_and_those_of_a_group_end_one_by_one(folder: Path) -> None:
    for number in (1, 2, 3):
        (folder / f"logs/{number}.log").write_text("12:00:00 of a run before\n")
        os.utime(folder / f"logs/{number}.log", (1e9, 1e9))
        note_event(begins(number))
    assert table(status_lines(str(folder))[:8])["bragg", "b"] == ["-", "-", "-", "1"]
    (folder / "logs/1.log").write_text("12:00:00 fitted\n")
    (folder / "logs/1.tsv").write_text("s\n1\n")
    (folder / "logs/2.log").write_text("12:00:00 began\n")
    assert table(status_lines(str(folder))[:8]) == {
        ("bragg", "a"): ["2", "-", "-", "-"],
        ("bragg", "b"): ["-", "1", "-", "-"],
        ("sem", "model"): ["-", "-", "-", "2"],
    }
    # The group fails, for which Snakemake names all of its jobs.
    for number in (1, 2, 3):
        note_event(fails(number, "x", rule_msg=None))
    found = table(status_lines(str(folder))[:8])
    assert (
        found["bragg", "a"][2] == "-"
        and found["bragg", "b"][2] == "1"
        and found["sem", "model"] == ["-", "-", "-", "2"]
    )
    # Cancelled in the queue.
    note_event(begins(3))
    note_event(fails(3, "x", rule_msg="SLURM status is: 'CANCELLED'"))
    os.remove(folder / "logs/3.log")
    assert "it wrote no log" not in "\n".join(status_lines(str(folder)))
    assert "SLURM status is: 'CANCELLED'" in "\n".join(status_lines(str(folder)))


def test_a_killed_run_is_said_to_have_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note_event(begins(3))
    (folder / "logs/3.log").write_text("12:00:00 x\n")
    monkeypatch.setattr(run_status, "_is_alive", lambda plan: False)
    lines = status_lines(str(folder))
    assert "stopped before its end" in lines[0] and "running:" not in lines
    # The journal of a killed run may end in half a line.
    with open(folder / ".snakemake/cathodeflow/run.jsonl", "a") as file:
        file.write('{"event": "job_fin')
    assert status_lines(str(folder)) == lines
    assert "no run of the workflow" in status_lines(str(folder / "logs"))[0]


def test_a_real_run_and_a_real_failure_are_short_from_any_environment_and_folder(tmp_path: Path) -> None:
    """Snakemake as cron starts it: without the environment in PATH, with -s, --directory and a profile elsewhere."""
    work, profile = tmp_path / "work", tmp_path / "profile"
    work.mkdir()
    profile.mkdir()
    (profile / "config.yaml").write_text("cores: 1\nmax-checksum-file-size: 1000000\nlogger: cathodeflow\n")
    (work / "bad").mkdir()
    for number in range(2):
        (work / f"bad/frame_{number}.edf").write_text("no image")
    (work / "scans.tsv").write_text(
        "sample\trole\tframes\tstate_of_charge\none\tfit\tsimulated\t0.1\nbad\tfit\tbad/frame_*.edf\t0.2\n"
    )
    (work / "own.yaml").write_text(
        "bragg:\n  samples: scans.tsv\n  one_pass: false\n  simulate: {n_frames: 2, rows: 64, cols: 64, n_peaks: 5}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PATH", "VIRTUAL_ENV")}
    environment |= {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    program = str(Path(sys.executable).parent / "snakemake")
    line = [program, "-s", str(ROOT / "Snakefile"), "--directory", str(work), "--profile", str(profile),
            "--workflow-profile", "none", "--configfile", str(work / "own.yaml"), "--keep-going", "--",
            "results/raw/bragg/one/dark.tif", "results/bragg/bad/frames.h5"]  # fmt: skip
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "command not found" not in done.stderr, done.stderr
    assert re.search(
        r"^\d\d:\d\d:\d\d +50%  bragg simulate one: done in \d+ s; 1 of 2 jobs$", done.stderr, re.MULTILINE
    )
    (failure,) = re.findall(r"^\d\d:\d\d:\d\d FAILED  bragg frames bad after \d+ s: (.*)$", done.stderr, re.MULTILINE)
    assert "frame_0.edf" in failure and len(done.stderr) < 3000, done.stderr
    # Once, not by the job itself as well.
    assert done.stderr.count(failure) == 1
    log = (work / "results/logs/bragg/one/simulate.log").read_text()
    assert re.match(
        r"\d\d:\d\d:\d\d command: cathodeflow --log results/logs/bragg/one/simulate.log --threads 1 bragg simulate ",
        log,
    )
    status = status_lines(str(work))
    assert "ended with failures" in status[0] and "  bragg frames bad, at " in "\n".join(status)
    assert any(failure in text for text in status)
    assert table(status[:6]) == {("bragg", "one"): ["1", "-", "-", "-"], ("bragg", "bad"): ["-", "-", "1", "-"]}
    journal = (work / ".snakemake/cathodeflow/run.jsonl").read_text().splitlines()
    assert json.loads(journal[-1])["result"] == "failed"
