"""The command line: `cathodeflow <technique> <stage>`, and the commands for the whole workflow."""

import importlib
import os
import shlex
import sys
from typing import Any

import click

import cathodeflow
from cathodeflow import cluster
from cathodeflow.commands import Technique, start
from cathodeflow.commands import main as run
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import is_first_process
from cathodeflow.io.text import restart_in_utf8
from cathodeflow.low_memory import under_memory_limit
from cathodeflow.stage import technique_names, with_own_data


class Techniques(click.Group):
    """Commands of the techniques' packages, imported only when they are called."""

    def list_commands(self, context: click.Context) -> list[str]:
        """List the general commands and the techniques."""
        return sorted({*super().list_commands(context), *technique_names()})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """Make the group of a technique."""
        return Technique(f"cathodeflow.{name}") if name in technique_names() else super().get_command(context, name)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing the techniques' stages."""
        rows = [
            (name, (importlib.import_module(f"cathodeflow.{name}").__doc__ or "").strip()) for name in technique_names()
        ]
        rows += [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(cls=Techniques, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(cathodeflow.__version__)
@click.option("--log", "log_file", metavar="FILE", help="Log file. With it, only errors are printed on the terminal.")
@click.option("--threads", type=click.IntRange(min=1), help="Number of threads. Default: all cores.")
@cluster.flags
def cli(log_file: str | None, threads: int | None, **where: Any) -> None:
    """Image data of battery electrodes, from raw files to measurements."""
    cluster.choose(where)
    start(log_file if is_first_process() else None, threads)


@cli.command()
@click.argument("config", default="config/config.yaml")
def check(config: str) -> None:
    """Check a configuration, its sample sheets and raw files.

    CONFIG is the configuration file (default: config/config.yaml). Errors and warnings are listed together. Headers
    of all raw files are read; some images of each sample are, and a few steps of each network are trained, to estimate
    how long both take.
    """
    from cathodeflow.checking import check_config
    from cathodeflow.config import load, samples
    from cathodeflow.reading_time import time_lines
    from cathodeflow.training_time import training_lines

    for line in check_config(config):
        click.echo(line)
    settings = load(config)
    sheets = samples(settings, checked=False)
    for line in [*time_lines(sheets), *training_lines(settings, sheets)]:
        click.echo(f"{config}: {line}")


@cli.command()
@click.argument("folder")
@click.option("--technique", type=click.Choice(with_own_data()), help="Technique. Default: recognised from the files.")
@click.option("--out", default=".", metavar="FOLDER", help="Folder for config.yaml and the sample sheets.")
def init(folder: str, technique: str | None, out: str) -> None:
    """Write a first configuration for your raw data.

    Looks at the raw data in FOLDER and its subfolders, and writes config.yaml and a sample sheet per technique. Only
    names and headers are read, and the values of a few label images. Existing files are not replaced. Lists what the
    files do not say; then checks the configuration, as `cathodeflow check` does.
    """
    from cathodeflow.checking import check_config
    from cathodeflow.init.writing import initialise

    written = initialise(folder, out, technique)
    for line in written.lines:
        click.echo(line)
    click.echo(f"wrote {', '.join(written.files)}")
    try:
        check_config(written.config)
        click.echo(
            f"{written.config}: no problem found; next: cathodeflow check, then snakemake, as its first lines show"
        )
    except InputError as error:
        for one in error.errors:
            click.echo(f"to fill in: {one}")


@cli.command()
def schema() -> None:
    """Print the JSON schema of the configuration file."""
    import json

    from cathodeflow.config import config_class

    click.echo(json.dumps(config_class().model_json_schema(), indent=2))


@cli.command()
def reference() -> None:
    """Print the reference of all settings (config/README.md)."""
    from cathodeflow.reference import markdown

    click.echo(markdown(), nl=False)


@cli.command()
@click.argument("results", default="results")
@click.option("--out", metavar="FILE", help="HTML file to write. Default: index.html in RESULTS.")
@click.option(
    "--captions",
    metavar="FOLDER",
    help="Folder with the captions of the figures. Default: that of the checkout of this command.",
)
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    help="Maximum size of the images inside the page, in MB. Further figures are linked.",
)
def report(results: str, out: str | None, captions: str | None, max_mb: float) -> None:
    """Write all results of a run as one HTML page.

    The page has numbers with intervals, figures, checks, warnings and versions of all techniques under RESULTS
    (default: results). It needs no other file and no network. Stages that did not run are left out.
    """
    from cathodeflow.report.page import CAPTIONS, write_report

    target = out or f"{results.rstrip('/')}/index.html"
    written = write_report(results, target, captions=captions or CAPTIONS, max_mb=max_mb)
    click.echo(f"{target}: {', '.join(section.content.title for section in written.sections)}")


@cli.command()
@click.argument("configs", nargs=-1, metavar="[CONFIG]...")
@click.option("--results", default="results", show_default=True, metavar="FOLDER", help="Folder of the results.")
@click.option("--out", required=True, metavar="NAME", help="Folder to write, or ZIP file if it ends with .zip.")
@click.option("--raw", is_flag=True, help="Also copy the raw data in the working folder. Default: only its digests.")
@click.option(
    "--workflow", metavar="FOLDER", help="Checkout with the Snakefile of the run. Default: that of this command."
)
def export(configs: tuple[str, ...], results: str, out: str, raw: bool, workflow: str | None) -> None:
    """Pack a run as an RO-Crate, for a repository or a colleague.

    CONFIG... are the configuration files of the run (default: config/config.yaml). The crate holds results,
    configuration, sample sheets, the code of the workflow, versions of all packages, and the inputs, outputs, options
    and times of each job. Results are checked first, as `cathodeflow verify` does. Call it in the working folder of
    the run.
    """
    from cathodeflow.run_crate import export_run

    done = export_run(configs or ["config/config.yaml"], results, out, raw=raw, checkout=workflow)
    click.echo(f"{out}: {done.jobs} jobs, {done.files} files of results")
    if done.referenced:
        first = ", ".join(done.referenced[:3]) + (", ..." if len(done.referenced) > 3 else "")
        click.echo(f"raw data that is described but not copied: {first}" + ("" if raw else "; --raw copies it"))


@cli.command()
@click.argument("folder", default=".")
def status(folder: str) -> None:
    """Show which jobs are done, running, waiting or failed.

    Shows the last run of the workflow in FOLDER (default: the current one), also while it goes on, by technique and
    sample; with the last line of the log of each running job, and the cause of each failure.
    """
    from cathodeflow.run_status import status_lines

    for line in status_lines(folder):
        click.echo(line)


@cli.command()
@click.option("--uri", default="sqlite:///results/mlflow.db", show_default=True, help="MLflow tracking address.")
@click.option("--port", default=5000, show_default=True, help="Port of the pages on this machine.")
def ui(uri: str, port: int) -> None:
    """Show the recorded runs in a browser (MLflow).

    Prints the address of a view of the current runs, and serves the pages until Ctrl-C.
    """
    from cathodeflow.tracking import view_addresses

    for address in view_addresses(uri, f"http://127.0.0.1:{port}"):
        click.echo(f"Open {address} (stop with Ctrl-C)")
    sys.stdout.flush()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--host", "127.0.0.1"]
    os.execv(sys.executable, [*command, "--port", str(port), "--workers", "1"])


@cli.command()
@click.argument("results", default="results")
@click.option(
    "--repair",
    is_flag=True,
    help="Remove damaged files, so that Snakemake makes just these again. Files without a digest are never removed.",
)
def verify(results: str, repair: bool) -> None:
    """Check every result against its recorded digest.

    RESULTS is the results folder (default: results). Prints the command that rebuilds damaged or missing files. Also
    lists the results that were made with other versions of Python or of libraries than are installed.
    """
    from cathodeflow.verify import rebuild_command, remove_damaged
    from cathodeflow.verify import verify as compare

    found = compare(results)
    for line in found.versions:
        click.echo(line)
    for error in found.errors:
        click.echo(str(error), err=True)
    what = f"{found.records} records, {found.files} files, {found.stores} stores"
    rest = f"; {len(found.unknown)} files have no digest" if found.unknown else ""
    if not found.errors:
        click.echo(f"{results}: {what}, all unchanged{rest}")
        return
    click.echo(f"{results}: {what}: {len(found.errors)} damaged or missing{rest}", err=True)
    if repair:
        remove_damaged(found)
        for path in found.damaged:
            click.echo(f"{path}: removed", err=True)
    elif found.damaged:
        click.echo(f"To remove what is damaged: cathodeflow verify {shlex.quote(results)} --repair", err=True)
    for path in found.left:
        click.echo(f"{path}: not removed by --repair, as it may hold more than results: see above", err=True)
    if found.remake:
        click.echo("To rebuild it, with the options of the run, such as --configfile:", err=True)
        click.echo(f"    {rebuild_command(found.remake)}", err=True)
    sys.exit(0 if repair and not found.left else 1)


@cli.command()
@click.argument("results")
@click.option(
    "--sheet", "sheets", multiple=True, required=True, metavar="TECHNIQUE=FILE", help="Sample sheet of a technique."
)
@click.option(
    "--folder",
    "folders",
    multiple=True,
    metavar="TECHNIQUE=NAME",
    help="Results folder that belongs to several samples, such as that of a model.",
)
@click.option("--uri", required=True, help="MLflow tracking address: a database file or a server.")
@click.option("--experiment", required=True, help="MLflow experiment.")
@click.option("--out", required=True, help="JSON file to write with the list of imported runs.")
@click.option("--attempt", default=0, help="Number of earlier attempts, written to the list.")
def track(
    results: str,
    sheets: tuple[str, ...],
    folders: tuple[str, ...],
    uri: str,
    experiment: str,
    out: str,
    attempt: int,
) -> None:
    """Import the records of a run into MLflow, each once.

    RESULTS is the results folder. If the server does not answer, the records wait for the next start of the workflow.
    """
    from cathodeflow.options import from_flags
    from cathodeflow.tracking import list_records, record_runs

    from_flags(cluster.Tracking, {"uri": uri, "experiment": experiment})
    shared: dict[str, list[str]] = {}
    for technique, name in (folder.split("=", 1) for folder in folders):
        shared.setdefault(technique, []).append(name)
    records = list_records(results, dict(sheet.split("=", 1) for sheet in sheets), shared)
    waiting = record_runs(records, results=results, uri=uri, experiment=experiment, out=out, attempt=attempt)
    if waiting:
        click.echo(f"{uri}: {waiting}; the runs will be sent at the next start of snakemake", err=True)


def main() -> None:
    """Entry point of the `cathodeflow` command."""
    restart_in_utf8()
    under_memory_limit(lambda: run(cli))
