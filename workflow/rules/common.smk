import gc
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from cathodeflow import config as settings
from cathodeflow.errors import InputError
from cathodeflow.io.runs import join_as_run
from cathodeflow.parallel import graphics_card
from cathodeflow.provenance import code_digest
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
    """Digest of the code that a stage reaches."""
    technique, name = stage.split(".")
    return code_digest(f"cathodeflow.{technique}.cli:{name}")


def names(technique):
    """Pattern of the names of samples. All of them joined would take longer to match with every sample."""
    taken = "|".join(map(re.escape, getattr(CONFIG, technique).folders()))
    return (f"(?!(?:{taken})/)" if taken else "") + SAMPLE_NAME


def gpus(stage):
    """GPUs that a stage asks for: none for `device: cpu`, nor where it runs on this machine and that has none."""
    device = settings.stage_options(CONFIG, stage).device
    # Asked when the job is made, as the executor is not known before.
    return lambda wildcards: int(device == "cuda" or (device != "cpu" and (graphics_card() or not workflow.local_exec)))


# A tracking server gets the curves while a network trains. This is no parameter of a job: it changes no result.
if CONFIG.tracking.uri.startswith("http"):
    os.environ.update(CATHODEFLOW_LIVE=CONFIG.tracking.uri, CATHODEFLOW_EXPERIMENT=CONFIG.tracking.experiment)

# In environments that Snakemake makes, the package itself comes from this checkout.
if workflow.deployment_settings.deployment_method:
    shell.prefix(
        f'export PYTHONPATH={shlex.quote(workflow.basedir)}/src; cathodeflow() {{ python -m cathodeflow "$@"; }}; '
    )
