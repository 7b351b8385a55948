import gc
import json
import logging
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from cathodeflow import cluster
from cathodeflow import config as settings
from cathodeflow import reruns
from cathodeflow import run_status
from cathodeflow.errors import InputError
from cathodeflow.interruption import end_run_on_signals
from cathodeflow.io.known_digests import KnownDigests
from cathodeflow.io.notes import Notes
from cathodeflow.io.runs import join_as_run
from cathodeflow.io.sources import is_remote
from cathodeflow.io.text import read_yaml, restart_in_utf8
from cathodeflow.parallel import graphics_card
from cathodeflow.progress import SHARED_TERMINAL
from cathodeflow.provenance import code_parameter
from cathodeflow.run_jobs import Job
from cathodeflow.samples import SAMPLE_NAME
from snakemake.logging import logger

restart_in_utf8()

# In some modes each job is a separate process that parses the workflow, too.
if workflow.is_main_process:
    end_run_on_signals(workflow)
    join_as_run()

# Not `workflow.basedir`, which is the folder of another workflow where this one is a module of it.
CHECKOUT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]
ENVIRONMENT = str(CHECKOUT / "envs" / "cathodeflow.yaml")
CONFIG_FILES = " + ".join(map(os.path.relpath, workflow.configfiles)) or "--config"

# Jobs and files exist until the end: without this, the garbage collector would scan all of them repeatedly.
gc.freeze()
gc.set_threshold(200_000, 20, 100)

try:
    if workflow.is_main_process:
        cluster.require_profile(sys.argv[1:], str(CHECKOUT))
    for path in workflow.configfiles if workflow.is_main_process else ():
        # Snakemake takes the last of equal keys silently.
        read_yaml(path)
    CONFIG = settings.validate(config, CONFIG_FILES)
    # A job in a separate process, as on a cluster, does not check the raw files of all samples again.
    SAMPLES = settings.samples(CONFIG, checked=workflow.is_main_process)
except InputError as error:
    sys.exit(str(error))

# Every technique adds its targets of `rule all`.
TARGETS = []

# Files of the user are compared by content: see cathodeflow.reruns.
DIGESTS = KnownDigests(Notes(".snakemake/cathodeflow/raw_files"), cache=CONFIG.reruns.cache, tell=logger.info)
DEVICES = reruns.Devices(Notes(".snakemake/cathodeflow/devices"))


onstart:
    # Repeated here, as Snakemake has replaced the handlers of some signals.
    end_run_on_signals(workflow)
    DEVICES.begin()
    if not workflow.local_exec:
        cluster.use_default_account(workflow.executor_settings)
        if text := cluster.limit_warning(workflow.global_resources.get("gpu").value):
            logger.warning(text)
    begin_journal()


onsuccess:
    run_status.note_end("done")


onerror:
    run_status.note_end("failed")


def begin_journal():
    """Keep a journal of this run, which `cathodeflow status` reads."""
    run_status.begin_journal(
        (
            job.jobid,
            Job(job.rule.name, dict(job.wildcards_dict), next(map(str, job.log), ""), str(job.benchmark or "")),
            workflow.dag.needrun(job),
        )
        for job in workflow.dag.jobs
    )
    # Of Snakemake's own logger, which has a handler for each place that it writes to.
    handler = logging.Handler()
    handler.emit = run_status.note_event
    logger.addHandler(handler)


def contents(**given):
    """What Snakemake compares of raw data: a digest of each source, given with its files, wherever they lie."""
    # Not in the separate process of a job, as on a cluster.
    if not workflow.is_main_process:
        return ""
    found = {name: reruns.content(source, files, DIGESTS.of, *base) for name, (source, files, *base) in given.items()}
    return " ".join(f"{name} {digest}" for name, digest in found.items())


def may_have_gpu():
    """Whether a job may find a GPU: on other machines, or on this one if it has one."""
    # Asked when the job is made, as the executor is not known before.
    return not workflow.local_exec or graphics_card()


def compared(options, key):
    """What Snakemake compares of options: files by content, and of the device what `auto` stands for."""
    if not workflow.is_main_process:
        return ""
    options = reruns.with_contents(options, DIGESTS.of)
    if getattr(options, "device", None):
        here = "cuda" if may_have_gpu() else "cpu"
        options = options.model_copy(update={"device": DEVICES.name(key, options.device, here)})
    return settings.to_flags(options)


@cache
def compared_stage(stage):
    """What Snakemake compares of the options of a stage."""
    return compared(settings.stage_options(CONFIG, stage), stage)


def code(stage):
    """Digest of the code that a stage reaches, and the versions of the libraries of `reruns.libraries` among it."""
    return code_parameter(stage, CONFIG.reruns.libraries)


def rule_files(technique):
    """Further files of a technique's rules, beside <technique>.smk and what that includes itself."""
    found = sorted(Path(CHECKOUT, "workflow", "rules").glob(f"{technique}_*.smk"))
    return [str(path) for path in found if path.stem != f"{technique}_common"]


def names(technique):
    """Pattern of the names of samples. All of them joined would take longer to match with every sample."""
    taken = "|".join(map(re.escape, getattr(CONFIG, technique).folders()))
    return (f"(?!(?:{taken})/)" if taken else "") + SAMPLE_NAME


def only(samples):
    """Pattern of the names of some samples; it matches nothing where there are none."""
    return "|".join(map(re.escape, samples)) or "(?!)"


def gpus(stage):
    """GPUs that a stage asks for."""
    return lambda wildcards: gpus_of(settings.stage_options(CONFIG, stage))


def gpus_of(options):
    """GPUs that a job with these options asks for; a training in several processes wants one for each.

    None for `device: cpu`, nor where the job runs on this machine and that has none.
    """
    if options.device == "cpu" or (options.device != "cuda" and not may_have_gpu()):
        return 0
    return PROCESSES if "epochs" in type(options).model_fields else 1


def stored(files):
    """Files that Snakemake follows, as inputs of a job; those at addresses are fetched before it."""
    return [storage(file) if is_remote(file) else file for file in reruns.followed(files)]


def fetched(text):
    """Sources as a stage takes them: for an address the place that it is fetched to."""
    address = r"(?:https?://[\w.-]+(?::\d+)?|s3://[\w.-]+)/[\w.~/%+,=-]+"
    return text and re.sub(address, lambda found: str(storage(found.group())), text)


def not_compared(give):
    """Parameter of a command, of the wildcards, that does not make a job run again when it changes."""
    # Snakemake does not compare what is derived from the inputs.
    return lambda wildcards, input: give(wildcards)


def stage_params(stage):
    """Parameters of a stage's rule: its options as flags, what is compared of them, and the digest of its code."""
    return dict(
        options=not_compared(lambda wildcards: settings.stage_flags(CONFIG, stage)),
        compared=lambda wildcards: compared_stage(stage),
        code=code(stage),
    )


def logs(stage, folder):
    """Log of a stage, in the folder of the sample or model."""
    technique, name = stage.split(".")
    return f"results/logs/{technique}/{folder}/{name}.log"


def benchmarks(stage, folder):
    """Run time and memory of a stage, in the folder of the sample or model."""
    technique, name = stage.split(".")
    return f"results/benchmarks/{technique}/{folder}/{name}.tsv"


def resources(stage, *, mem_mb, runtime):
    """Memory [MB] and time limit [min] of a stage's jobs, unless `cluster` sets others; more memory each attempt."""
    asked = CONFIG.cluster.memory.get(stage, mem_mb)
    return dict(mem_mb=lambda wildcards, attempt: asked * attempt, runtime=CONFIG.cluster.runtime.get(stage, runtime))


def shared(most, jobs):
    """Threads of each of several like jobs: on this machine they run beside each other rather than one after another.

    Results do not depend on them.
    """
    # Asked when the job is made, as the executor is not known before.
    cores = lambda: workflow.resource_settings.cores if workflow.local_exec else None
    return lambda wildcards: max(1, min(most, (cores() or most * len(jobs)) // len(jobs)))


def command(words, sample=None):
    """Shell command of a stage; with a `sample` it writes its record to the output `record`."""
    record = f" --sample {sample} --record {{output.record}}" if sample else ""
    return f"cathodeflow --log {{log}} --threads {{threads}} {words}{record} {{params.options}}"


def training_command(words, sample, checkpoint):
    """Shell command of a training, which may be several processes and is resumed from its checkpoint."""
    return (
        f"$CATHODEFLOW_LAUNCHER cathodeflow --log {{log}} {words} --sample {sample} --record {{output.record}}"
        f" --checkpoint results/checkpoints/{checkpoint}.ckpt {{params.options}}"
    )


# The machines of array stages and trainings, and live logging, are no parameters of a job: they change no result.
os.environ.update(cluster.environment(CONFIG))
PROCESSES = CONFIG.processes.devices * CONFIG.processes.num_nodes
# Resources of a training with several processes: Slurm starts them itself; elsewhere the first one starts the others.
PARALLEL = dict(mpi="srun", nodes=CONFIG.processes.num_nodes, tasks=PROCESSES, tasks_per_gpu=1) if PROCESSES > 1 else {}
os.environ.update(CATHODEFLOW_LAUNCHER=cluster.launcher(CONFIG.processes))

# Records have what else the sample sheets say of a sample, which is no parameter of a job either.
os.environ.update(CATHODEFLOW_SHEETS=json.dumps({name: getattr(CONFIG, name).samples for name in SAMPLES}))

# Jobs share the terminal with this process, which says on it what goes on; their progress is in their logs.
os.environ[SHARED_TERMINAL] = "1"

# The name of the run is stored in the records, and is no parameter of a job either.
if CONFIG.run_name:
    os.environ.update(CATHODEFLOW_RUN=CONFIG.run_name)

# In environments that Snakemake creates, the package itself comes from this checkout.
if workflow.deployment_settings.deployment_method:
    shell.prefix(
        # Snakemake formats the text, so its braces are doubled, in an f-string four times.
        f'export PYTHONPATH={shlex.quote(str(CHECKOUT))}/src; cathodeflow() {{{{ python -m cathodeflow "$@"; }}}}; '
    )
else:
    # Jobs run in the environment of Snakemake, also where that was not activated, as in a cron job or an IDE.
    cluster.prefer_this_environment()
