import os
import re
import shlex
import sys
from pathlib import Path

from cathodeflow import config as settings
from cathodeflow.errors import InputError
from cathodeflow.io.runs import join_as_run
from cathodeflow.provenance import code_digest

# Jobs are processes of their own in some modes, and parse the workflow too.
if workflow.is_main_process:
    join_as_run()

ENVIRONMENT = str(Path(workflow.basedir, "envs", "cathodeflow.yaml"))
CONFIG_FILES = " + ".join(map(os.path.relpath, workflow.configfiles)) or "--config"

try:
    CONFIG = settings.validate(config, CONFIG_FILES)
    SAMPLES = settings.samples(CONFIG)
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


CARD_HERE = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))


def gpus(stage):
    """GPUs that a stage asks for: none for `device: cpu`, nor where it runs on this machine and that has none."""
    device = settings.stage_options(CONFIG, stage).device
    # Asked when the job is made, as the executor is not known before.
    return lambda wildcards: int(device == "cuda" or (device != "cpu" and (CARD_HERE or not workflow.local_exec)))


# A tracking server gets the curves while a network trains. This is no parameter of a job: it changes no result.
if CONFIG.tracking.uri.startswith("http"):
    os.environ.update(CATHODEFLOW_LIVE=CONFIG.tracking.uri, CATHODEFLOW_EXPERIMENT=CONFIG.tracking.experiment)

# In environments that Snakemake makes, the package itself comes from this checkout.
if workflow.deployment_settings.deployment_method:
    shell.prefix(
        f'export PYTHONPATH={shlex.quote(workflow.basedir)}/src; cathodeflow() {{ python -m cathodeflow "$@"; }}; '
    )
