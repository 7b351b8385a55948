import gc
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from cathodeflow import cluster
from cathodeflow import config as settings
from cathodeflow.errors import InputError
from cathodeflow.io.runs import join_as_run
from cathodeflow.io.sources import is_remote
from cathodeflow.parallel import graphics_card
from cathodeflow.provenance import code_parameter
from cathodeflow.samples import SAMPLE_NAME

# Jobs are processes of their own in some modes, and parse the workflow too.
if workflow.is_main_process:
    join_as_run()

ENVIRONMENT = str(Path(workflow.basedir, "envs", "cathodeflow.yaml"))
CONFIG_FILES = " + ".join(map(os.path.relpath, workflow.configfiles)) or "--config"

# Jobs and files live until the end: the collector need not look at all of them again and again while they become more.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

try:
    CONFIG = settings.validate(config, CONFIG_FILES)
    # A job that runs on its own, as on a cluster, need not look for the raw files of all samples again.
    SAMPLES = settings.samples(CONFIG, look=workflow.is_main_process)
except InputError as error:
    sys.exit(str(error))

# Every technique adds what `rule all` asks for.
TARGETS = []


def options(stage):
    """Options of a stage as one string, which Snakemake compares as a whole."""
    return settings.stage_flags(CONFIG, stage)


def code(stage):
    """Digest of the code that a stage reaches, and the versions of the libraries of `reruns.libraries` among it."""
    return code_parameter(stage, CONFIG.reruns.libraries)


def names(technique):
    """Pattern of the names of samples. All of them joined would take longer to match with every sample."""
    taken = "|".join(map(re.escape, getattr(CONFIG, technique).folders()))
    return (f"(?!(?:{taken})/)" if taken else "") + SAMPLE_NAME


def gpus(stage):
    """GPUs that a stage asks for."""
    # Asked when the job is made, as the executor is not known before.
    return lambda wildcards: gpus_of(settings.stage_options(CONFIG, stage))


def gpus_of(options):
    """GPUs that a job with these options asks for; a training in several processes wants one for each.

    None for `device: cpu`, nor where the job runs on this machine and that has none.
    """
    if options.device == "cpu" or (options.device != "cuda" and workflow.local_exec and not graphics_card()):
        return 0
    return PROCESSES if "epochs" in type(options).model_fields else 1


def stored(files):
    """Files as inputs of a job; those at addresses are fetched before it."""
    return [storage(file) if is_remote(file) else file for file in files]


def fetched(text):
    """Sources as a stage takes them: for an address the place that it is fetched to."""
    address = r"(?:https?://[\w.-]+(?::\d+)?|s3://[\w.-]+)/[\w.~/%+,=-]+"
    return text and re.sub(address, lambda found: str(storage(found.group())), text)


def memory(stage, megabytes):
    """Memory of a stage's jobs, more with every attempt."""
    asked = CONFIG.cluster.memory.get(stage, megabytes)
    return lambda wildcards, attempt: asked * attempt


def minutes(stage, runtime):
    """Time limit of a stage's jobs."""
    return CONFIG.cluster.runtime.get(stage, runtime)


# Where array stages and trainings compute is no parameter of a job: it changes no result.
os.environ.update(cluster.environment(CONFIG))
PROCESSES = CONFIG.processes.devices * CONFIG.processes.num_nodes
# What a training in several processes asks of Slurm, which starts them itself; elsewhere they start each other.
PARALLEL = dict(mpi="srun", nodes=CONFIG.processes.num_nodes, tasks=PROCESSES, tasks_per_gpu=1) if PROCESSES > 1 else {}
os.environ.update(CATHODEFLOW_LAUNCHER=cluster.launcher(CONFIG.processes))

# A tracking server gets the curves while a network trains. This is no parameter of a job: it changes no result.
if CONFIG.tracking.uri.startswith("http"):
    os.environ.update(CATHODEFLOW_LIVE=CONFIG.tracking.uri, CATHODEFLOW_EXPERIMENT=CONFIG.tracking.experiment)

# Likewise the name of the run, which the records keep.
if CONFIG.run_name:
    os.environ.update(CATHODEFLOW_RUN=CONFIG.run_name)

# In environments that Snakemake makes, the package itself comes from this checkout.
if workflow.deployment_settings.deployment_method:
    shell.prefix(
        f'export PYTHONPATH={shlex.quote(workflow.basedir)}/src; cathodeflow() {{ python -m cathodeflow "$@"; }}; '
    )
