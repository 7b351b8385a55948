"""Execution of Dask arrays: in threads, in processes, on a running cluster, or on workers started in Slurm."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask

from cathodeflow.cluster import Dask, chosen
from cathodeflow.errors import InputError
from cathodeflow.parallel import thread_count

log = logging.getLogger("cathodeflow.dask")
# Timeouts [s] for a running scheduler to respond, and for the first worker to start, as jobs wait in a queue.
_ANSWER, _QUEUE = 20, 24 * 3600


@contextmanager
def scheduled() -> Iterator[None]:
    """Use the Dask scheduler of the command line inside the block.

    Each task writes whole files of a store, so the tasks of a lost worker can run again on another. Workers need
    the same file system, and this package; paths in tasks are absolute.

    Raises
    ------
    InputError
        There is no such scheduler, or its packages are not installed.
    """
    options = chosen(Dask)
    if options.scheduler == "threads":
        with dask.config.set(scheduler="threads", num_workers=thread_count()):
            yield
        return
    try:
        import distributed
    except ImportError:
        raise _not_installed(options, "distributed") from None
    with ExitStack() as stack:
        client = stack.enter_context(_client(distributed, options, stack))
        # Shown on the terminal or in the log, for monitoring.
        log.info("Dask: %s, dashboard at %s", client.scheduler.address, client.dashboard_link)
        client.wait_for_workers(1, timeout=_QUEUE)
        yield


def _client(distributed: Any, options: Dask, stack: ExitStack) -> Any:
    if options.scheduler == "processes":
        cluster = distributed.LocalCluster(
            n_workers=options.workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        )
        return distributed.Client(stack.enter_context(cluster))
    if options.scheduler == "slurm":
        return distributed.Client(stack.enter_context(_slurm(options)))
    try:
        return distributed.Client(options.scheduler, timeout=_ANSWER)
    except OSError:
        raise InputError(f"dask.scheduler: {options.scheduler}", "no answer", "a running Dask scheduler") from None


def _slurm(options: Dask) -> Any:
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise _not_installed(options, "dask_jobqueue") from None
    cluster = SLURMCluster(
        cores=options.cores,
        processes=1,
        memory=f"{options.memory} MB",
        walltime=f"{options.runtime // 60}:{options.runtime % 60:02}:00",
        queue=options.partition,
        account=options.account,
        python=sys.executable,
        log_directory=os.path.abspath("results/logs/dask"),
        scheduler_options={"dashboard_address": ":0"},
    )
    cluster.scale(jobs=options.workers)
    return cluster


def _not_installed(options: Dask, package: str) -> InputError:
    expected = "the packages of `pip install cathodeflow[cluster]`"
    return InputError(f"dask.scheduler: {options.scheduler}", f"no package {package}", expected)
