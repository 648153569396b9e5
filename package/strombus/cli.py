"""The command line: thin commands over the library, one clear line for each error."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from strombus import errors

__all__ = ["EXIT_CODES", "main"]

# The first class that fits an error decides the exit code.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.NonFiniteError, 5),
    (errors.DataError, 6),
    (errors.ConfigurationError, 2),
    (errors.TaskError, 4),
    (errors.ExecutorError, 3),
    (errors.RunError, 7),
    (KeyboardInterrupt, 130),
    (errors.FitInterrupted, 143),
)

VERBOSE = "strombus.verbose"

_ARRAYS = ("features", "labels", "features_mask", "labels_mask", "weights")
# What errors advise callers of functions to give, and what is a flag here.
_FLAGS = re.compile(r"\b(accept_changes|overwrite)=True")

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "red"}


class _Command(click.Command):
    """Take --verbose after the subcommand too, where people add it when something has failed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.params.append(_verbose_option())


class _Group(click.Group):
    command_class = _Command


class _Commands(_Group):
    """Turn errors into one line and an exit code."""

    group_class = _Group

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (errors.StrombusError, KeyboardInterrupt) as error:
            if ctx.meta.get(VERBOSE):
                click.echo("".join(traceback.format_exception(error)) + _worker_trace(error), err=True)
            message = _FLAGS.sub(lambda found: "--" + found[1].replace("_", "-"), " ".join(str(error).split()))
            if isinstance(error, KeyboardInterrupt):
                message = "interrupted" + "".join(f": {note}" for note in getattr(error, "__notes__", ()))
            click.echo(f"Error: {message}", err=True)
            sys.exit(_exit_code(error))


def _worker_trace(error: BaseException) -> str:
    """Return a worker's traceback, also of a failure that was said again in other words."""
    found: str = getattr(error, "traceback", "") or getattr(error.__cause__, "traceback", "")
    return found


def _exit_code(error: BaseException) -> int:
    """Go by what happened on the worker, where that is known."""
    if isinstance(error, errors.TaskError) and isinstance(error.__cause__, errors.StrombusError):
        error = error.__cause__
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1)


def _verbose_option() -> click.Option:
    return click.Option(
        ["--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_note_verbose,
        help="Show the traceback of an error, the worker's too.",
    )


def _note_verbose(context: click.Context, _option: click.Parameter, value: bool) -> None:
    """Note in what all commands of a call share, so that the option counts wherever it stands."""
    context.meta[VERBOSE] = value or context.meta.get(VERBOSE, False)


@click.group(cls=_Commands, params=[_verbose_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="strombus")
def main() -> None:
    """Train PyTorch networks on Dask or Spark.

    \b
    Exit codes: 0 done, 2 wrong usage or configuration, 3 the cluster cannot do what is asked,
    4 a worker failed, 5 the loss is no longer finite, 6 the data cannot be used, 7 the run is in use
    or was begun with other settings, 130 interrupted, 143 ended by SIGTERM.
    """


@main.command()
@click.option("--backend", default="dask", show_default=True, help="local, dask, spark or a scheduler's address.")
@click.option("--epochs", default=10, show_default=True, type=click.IntRange(1))
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def demo(backend: str, epochs: int, workers: int) -> None:
    """Train a network on handwritten digits and evaluate it."""
    from strombus.demo import run_demo

    run_demo(backend, epochs, workers, say=click.echo)


@main.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--backend", help="Use another backend than the configuration names.")
@click.option("--epochs", type=click.IntRange(1), help="Train for another number of epochs.")
@click.option("--fast-dev-run", is_flag=True, help="Try two minibatches on every worker, and leave no trace.")
@click.option("--accept-changes", is_flag=True, help="Go on with a run that was begun with other settings.")
def train(config: str, backend: str | None, epochs: int | None, fast_dev_run: bool, accept_changes: bool) -> None:
    """Train the network that CONFIG, a YAML file, describes."""
    from strombus.jobs import read_job
    from strombus.runs import read_result
    from strombus.trainer import Trainer

    job = read_job(config)
    paths = (job.data.train, job.data.validation, job.data.test)
    data, validation, test = (None if path is None else job.data.open(path) for path in paths)
    network = job.make_network()
    job.check_output(network)
    metrics = None if test is None else job.make_metrics(network)
    with Trainer(network, job.make_master(), backend=backend or job.backend) as trainer:
        network.normalizer = job.make_normalizer(network, data, trainer.executor)
        ended = None if job.name is None else read_result(job.name, job.storage_path)
        options = {**job.run_options(), "fast_dev_run": fast_dev_run, "progress": not fast_dev_run}
        options |= {"epochs": epochs or job.epochs, "accept_changes": accept_changes}
        result = trainer.fit(data, validation=validation, **options)
        if result.tried is not None:
            click.echo(result.tried)
            return
        if ended is not None:
            where = errors.hide_credentials(ended.path)
            click.echo(f"nothing was trained: the run in {where} has ended before, and this is its result")
        click.echo(f"trained on {result.examples:,} examples in {result.seconds:.1f} s, score {result.score:.4f}")
        if job.output:
            job.save(network)
            click.echo(f"saved {job.output}")
        if metrics is not None:
            click.echo(_texts(trainer.do_evaluation(test, metrics)))


@main.command()
@click.argument("config", type=click.Path(dir_okay=False), required=False)
@click.option("--backend", help="local, dask, spark or a scheduler's address; by default what CONFIG says, or auto.")
@click.option("--workers", type=click.IntRange(1), help="Workers to try; by default as many as would train.")
def doctor(config: str | None, backend: str | None, workers: int | None) -> None:
    """Examine this machine and a cluster, and say what to change.

    With CONFIG, a training's YAML file, its workers take some steps: is it computing or communicating that takes
    the time? Nothing is trained or written. Exits with 3 where the training could not run.
    """
    from strombus.doctor import examine
    from strombus.jobs import read_job

    job = None if config is None else read_job(config)
    if job is None:
        found = examine(backend or "auto", workers=workers)
    else:
        data = job.data.open(job.data.train)
        network = job.make_network()
        network.normalizer = job.make_normalizer(network, data, backend or job.backend)
        found = examine(backend or job.backend, job.make_master(), network, data, workers)
    problems = 0
    for finding in found:
        problems += finding.level == "problem"
        level = click.style(f"{finding.level:<8}", fg=_COLOURS[finding.level])
        click.echo(f"{level} {finding.topic:<10} {finding.text}")
        if finding.advice:
            click.echo(f"{'':<19} -> {finding.advice}")
    if problems:
        sys.exit(3)


@main.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option(
    "--model",
    type=click.Path(dir_okay=False),
    help="The trained network, a network file or a model zip of DL4J's; by default the file's output.",
)
@click.option("--html", type=click.Path(dir_okay=False), help="Write figures and charts as a page, too.")
@click.option("--backend", help="Use another backend than the configuration names.")
def evaluate(config: str, model: str | None, html: str | None, backend: str | None) -> None:
    """Evaluate a trained network of CONFIG, a YAML file, on its test data, or else its validation data."""
    from strombus.evaluation import export_evaluation_html
    from strombus.jobs import read_job
    from strombus.trainer import Trainer

    job = read_job(config)
    path, trained = job.data.test or job.data.validation, model or job.output
    if path is None or trained is None:
        missing = "data.test in the file" if path is None else "--model, or output in the file"
        raise errors.ConfigurationError(f"{config} does not say what to evaluate: give {missing}")
    network = job.load_trained(trained)
    metrics = job.make_metrics(network, charts=html is not None)
    with Trainer(network, backend=backend or job.backend) as trainer:
        answer = trainer.do_evaluation(job.data.open(path), metrics)
    click.echo(_texts(answer))
    if html is not None:
        export_evaluation_html([metric for row in answer.values() for metric in row], html, f"{trained} on {path}")
        click.echo(f"wrote {html}")


def _texts(answer: dict[int, list[Any]]) -> str:
    """Join the figures of all outputs, each named where there are several."""
    several = len(answer) > 1
    return "\n\n".join(
        (f"output {number}\n" if several else "") + metric.stats() for number, row in answer.items() for metric in row
    )


@main.command()
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--output", type=click.Path(dir_okay=False), help="The page to write; by default RUN/report.html.")
def report(run: str, output: str | None) -> None:
    """Draw the training statistics that lie in the folder RUN as one page to open in a browser."""
    from strombus.stats import TrainingStats

    page = TrainingStats.load(run).to_html(output or Path(run) / "report.html")
    click.echo(f"wrote {page}")


@main.group()
def data() -> None:
    """Write, look at and check datasets."""


@data.command("export")
@click.argument("source")
@click.argument("target")
@click.option("--features", help="Columns of Parquet files, with commas between them; by default features.")
@click.option("--label", help="Column of the labels, or several with commas; by default label, if there is one.")
@click.option("--weight", help="Column of the rows' weights.")
@click.option("--key", help="Column of the rows' keys.")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Rows of a minibatch.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset that is there already.")
def export_command(source: str, target: str, batch_size: int, overwrite: bool, **columns: str | None) -> None:
    """Write SOURCE as the dataset TARGET.

    SOURCE is a Parquet file, a directory of them, a URI of either, or an .npz file of `features`, and of `labels`,
    `features_mask`, `labels_mask`, `weights` if there are any.
    """
    from strombus.data import export
    from strombus.documents import counted

    named = {name: value for name, value in columns.items() if value is not None}
    if not source.endswith(".npz"):
        rows = _open_table(source, named)
    elif named:
        raise errors.ConfigurationError(f"--{next(iter(named))} is for Parquet files, {source} is an .npz file")
    else:
        rows = _read_npz(source)
    manifest = export(rows, target, batch_size=batch_size, overwrite=overwrite)
    examples, parts = counted(manifest.examples, "example"), counted(len(manifest.parts), "part")
    click.echo(f"wrote {examples} in {parts} to {target}")


def _open_table(source: str, named: dict[str, str]) -> Any:
    from strombus.data import open_dataset, table

    if not named:
        return open_dataset(source)
    features, label = named.get("features", "features").split(","), named.get("label")
    labels = label.split(",") if label is not None and "," in label else label
    return table(source, features, labels, named.get("weight"), named.get("key"))


def _read_npz(source: str) -> Any:
    from strombus.data import DataSet
    from strombus.data.npz import read_npz

    try:
        arrays = read_npz(source, source)
    except OSError as error:
        raise errors.DataError(f"{source} cannot be read: {error}") from error
    if "features" not in arrays or not arrays.keys() <= set(_ARRAYS):
        has = ", ".join(arrays) or "no array"
        raise errors.DataError(f"{source} has {has}; wanted features and, if there are any, {', '.join(_ARRAYS[1:])}")
    return DataSet(**arrays)


@data.command("import-dl4j")
@click.argument("source")
@click.argument("target")
@click.option("--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Rows of a minibatch.")
@click.option(
    "--bad-files",
    default="stop",
    show_default=True,
    type=click.Choice(["stop", "list"]),
    help="Whether a damaged file ends the import, or is left out and listed.",
)
@click.option("--backend", default="local", show_default=True, help="local, dask, spark or a scheduler's address.")
@click.option("--overwrite", is_flag=True, help="Replace a dataset that is there already.")
def import_dl4j_command(
    source: str, target: str, batch_size: int, bad_files: str, backend: str, overwrite: bool
) -> None:
    """Write SOURCE, a directory to which DL4J exported DataSets, as the dataset TARGET.

    An import that was cut off goes on where it ended when the same command runs again.
    """
    from strombus.data import import_dl4j

    found = import_dl4j(
        source, target, batch_size=batch_size, bad_files=bad_files, backend=backend, overwrite=overwrite
    )
    click.echo(str(found))


@data.command()
@click.argument("path")
def inspect(path: str) -> None:
    """Show what the dataset at PATH, or the directory of DL4J's files, holds."""
    from strombus.data import open_dataset
    from strombus.documents import counted

    source = open_dataset(path)
    click.echo(f"{source.kind} of {counted(source.rows, 'example')} in {source.stored}")
    for name, column in source.columns.items():
        click.echo(f"  {name:<16} {column.dtype!s:<10} {column.shape}")


@data.command()
@click.argument("path")
@click.option("--quarantine", is_flag=True, help="Move bad parts or files aside, so that the rest can be used.")
def validate(path: str, quarantine: bool) -> None:
    """Read every part of the dataset, or every file of DL4J's, at PATH and report what is wrong."""
    from strombus.data import validate as validate_dataset

    report = validate_dataset(path, quarantine=quarantine)
    click.echo(str(report))
    if not report.ok:
        sys.exit(6)


@main.group()
def model() -> None:
    """Bring trained networks along, and back."""


@model.command("import-dl4j")
@click.argument("source")
@click.argument("target", type=click.Path(dir_okay=False))
@click.option("--predict-only", is_flag=True, help="Pass over options that matter in training alone.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")
def import_dl4j(source: str, target: str, predict_only: bool, overwrite: bool) -> None:
    """Write SOURCE, a model zip of Deeplearning4j, as the network file TARGET, which strombus.load_dl4j reads."""
    from strombus.importing import load_dl4j

    _check_new(target, overwrite)
    network = load_dl4j(source, training=not predict_only)
    network.save(target)
    click.echo(network.summary())
    _say_written(network, target)


@model.command("export-dl4j")
@click.argument("source")
@click.argument("target", type=click.Path(dir_okay=False))
@click.option("--no-updater", is_flag=True, help="Leave out the updaters' states: DL4J then starts them afresh.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")
def export_dl4j(source: str, target: str, no_updater: bool, overwrite: bool) -> None:
    """Write SOURCE, a network file that came from Deeplearning4j, as the model zip TARGET, which a JVM restores."""
    from strombus.importing import load_dl4j
    from strombus.networks.dl4j import save_dl4j

    _check_new(target, overwrite)
    network = load_dl4j(source)
    save_dl4j(network, target, updater=not no_updater)
    _say_written(network, target)
    if network.optimizer is None and not no_updater:
        click.echo("without updaters' states: it was imported with --predict-only, which leaves them out")


def _check_new(target: str, overwrite: bool) -> None:
    if Path(target).exists() and not overwrite:
        raise errors.ConfigurationError(f"{target} is there already; take another path, or give --overwrite")


def _say_written(network: Any, target: str) -> None:
    from strombus.documents import counted

    done = f"{counted(network.iteration, 'iteration')} and {counted(network.epoch, 'epoch')}"
    click.echo(f"wrote {type(network).__name__} after {done} to {target}")
