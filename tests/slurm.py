"""A real Slurm on this machine for the time of a test: controller, node daemon and munge.

The node says that it has sixteen cores and two GPUs, whatever there is, so that tests see what jobs ask for.

Debian's packages (`SLURM_PACKAGES`) are installed by `.ci/run`; without them, or without the rights of root, `missing`
says why there is none. The configuration has to lie in /etc/slurm, as the executor clears the variables that would name
another place; one that is not of these tests is left alone.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

SLURM_PACKAGES = ("slurm-wlm", "slurmctld", "slurmd", "slurm-client", "munge")
ETC = Path("/etc/slurm")
MARK = "# Written by the tests of Cathodeflow.\n"
# A step that holds more memory than was asked for is ended; how much it holds is looked at every second.
CONF = """\
ClusterName=cathodeflow
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
MinJobAge=3600
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE OverSubscribe=FORCE:8 State=UP
"""
GPUS = "Name=gpu File=/dev/zero\nName=gpu File=/dev/null\n"


def missing() -> str | None:
    """Why no Slurm can be started here, if so."""
    if os.geteuid() != 0:
        return "a Slurm can only be started by root"
    absent = [name for name in ("slurmctld", "slurmd", "sbatch", "munged") if not shutil.which(name, path=_path())]
    if absent:
        return f"no {', '.join(absent)}: apt-get install {' '.join(SLURM_PACKAGES)}"
    conf = ETC / "slurm.conf"
    if conf.exists() and not conf.read_text().startswith(MARK):
        return f"{conf} is another cluster's"
    return None


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Start the daemons, wait until the node is idle, and stop them in the end.

    Where they do not start, as in containers that allow too little, the test is skipped and says why.
    """
    pids = [Path("/run/munge/munged.pid"), folder / "slurmctld.pid", folder / "slurmd.pid"]
    # One at a time: all have their configuration in the same place.
    with FileLock(Path(tempfile.gettempdir(), "cathodeflow-slurm.lock")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(ETC / "slurm.conf"))
        try:
            try:
                _begin(folder)
            except RuntimeError as error:
                pytest.skip(f"Slurm does not start here: {error}")
            yield
        finally:
            _run("scancel", "--user=root", "--signal=KILL", check=False)
            for pid in reversed(pids):
                if pid.exists():
                    _end(int(pid.read_text()))


def _begin(folder: Path) -> None:
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ETC.mkdir(exist_ok=True)
    host = socket.gethostname().split(".")[0]
    (memory,) = re.findall(r"RealMemory=(\d+)", _run("slurmd", "-C"))
    (ETC / "slurm.conf").write_text(MARK + CONF.format(host=host, folder=folder, memory=memory))
    (ETC / "gres.conf").write_text(MARK + GPUS)
    (ETC / "cgroup.conf").write_text(MARK + "CgroupAutomount=no\n")
    Path("/run/munge").mkdir(exist_ok=True)
    shutil.chown("/run/munge", "munge", "munge")
    _run("su", "-s", "/bin/sh", "munge", "-c", "/usr/sbin/munged --force")
    _run("slurmctld", "-c")
    _run("slurmd", "-N", host)
    deadline = time.monotonic() + 60
    while (state := _run("sinfo", "-h", "-o", "%t", check=False).strip()) != "idle":
        if time.monotonic() > deadline:
            log = folder / "slurmctld.log"
            raise RuntimeError(f"the node is {state or 'unknown'}: {log.read_text()[-2000:] if log.exists() else ''}")
        time.sleep(0.5)


def jobs(name: str = "") -> list[dict[str, str]]:
    """Jobs that Slurm knows, finished ones too: id, state, comment (rule and wildcards), memory, cores and name."""
    lines = _run("squeue", "-h", "--states=all", "-o", "%i|%T|%k|%m|%C|%j").splitlines()
    columns = ("id", "state", "comment", "memory", "cores", "name")
    found = [dict(zip(columns, line.split("|"), strict=True)) for line in lines]
    return [job for job in found if name in job["comment"]]


def description(number: str) -> str:
    """All that Slurm knows of a job."""
    return _run("scontrol", "show", "job", number)


def cancel(number: str) -> None:
    """Cancel a job, as a person or an administrator would."""
    _run("scancel", number)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _run(*command: str, check: bool = True) -> str:
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _path()})
    if check and result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def _end(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(20):
            try:
                os.kill(pid, number if _ == 0 else 0)
            except ProcessLookupError:
                return
            time.sleep(0.2)
