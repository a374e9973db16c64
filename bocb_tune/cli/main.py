"""The command line. Commands are thin, and import what they need when they run: `--help` is quick."""

from __future__ import annotations

import gc
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bocb_tune import __version__
from bocb_tune.cli.busy import busy, warn
from bocb_tune.core.collector import uncollected
from bocb_tune.core.names import plain

if TYPE_CHECKING:
    from bocb_tune.analysis.report.write import Start

app = typer.Typer(
    help="How sensitive is a vision backbone, and its optimizer, to their hyperparameters?",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

SpecPath = Annotated[Path, typer.Argument(metavar="SPEC", help="Experiment file (YAML).")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value instead of text.")]
Only = Annotated[str, typer.Option("--only", metavar="GLOB", help="Cells by BACKBONE/OPTIMIZER, such as '*/sgd'.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Override a field, such as budget.epochs=3.")
]
MOST_SEED = 2**31 - 1
"""Largest seed, as of the trials of a run."""
Listed = Annotated[
    Literal["optimizers", "backbones", "datasets", "recipes", "tasks"], typer.Argument(help="What to list.")
]


def main() -> None:
    """Run the command line. A user's error is a message on stderr and exit code 2, never a traceback."""
    try:
        app(args=[with_home(argument) for argument in sys.argv[1:]])
    except (ValueError, OSError) as error:
        print(plain(str(error)), file=sys.stderr)
        sys.exit(2)
    finally:
        gc.freeze()  # or the interpreter would look through every object once more before it ends, half a second


def with_home(argument: str) -> str:
    """Put the home folder in the place of a tilde that a shell leaves as it is: `--out=~/runs`."""
    name, equals, value = argument.partition("=")
    return f"{name}{equals}{Path(value).expanduser()}" if name.startswith("--") and value[:2] == "~/" else argument


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    del version  # its callback has done it


@app.command()
def check(
    spec: SpecPath,
    images: Annotated[
        bool, typer.Option("--images", help="Also decode every image, and name those that cannot be.")
    ] = False,
) -> None:
    """Find every error of an experiment file, without running anything."""
    from bocb_tune.spec.series import experiments_in

    for file in experiments_in(spec):
        _check_one(file, images=images)


def _check_one(file: str, *, images: bool) -> None:
    loaded = _load_local(file)
    from bocb_tune.spec.environment import contents
    from bocb_tune.spec.grid import plan_grid

    print(f"{file}: fine; {len(plan_grid(loaded).cells)} cells")
    if there := contents(loaded):
        print(plain("\n".join(there.lines())))
    if images:
        from bocb_tune.cli.images import check_images

        check_images(loaded)


@app.command()
def plan(
    spec: SpecPath,
    only: Only = "*",
    overrides: Overrides = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also train each backbone for a few steps here: time, memory, disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an experiment will run: cells, skips, trials and epochs."""
    from bocb_tune.spec.series import experiments_in

    files = experiments_in(spec)
    if as_json and len(files) > 1:
        raise typer.BadParameter(f"--json describes one experiment; give one of {', '.join(files)}")
    for file in files:
        loaded = _load_local(file, overrides or ())
        from bocb_tune.cli.commands import show_plan

        show_plan(loaded, only, as_json=as_json, measured=measure)


@app.command()
def run(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Experiment file (YAML), or the URI of a run to go on.")],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Run folder, or its URI; default: storage/name."),
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster to attach to, such as auto.")] = None,
    only: Only = "*",
    overrides: Overrides = None,
) -> None:
    """Train what the experiment still owes. Running it again resumes or extends it."""
    with busy("loading what a run needs"):
        from bocb_tune.cli.commands import run_experiments

    raise typer.Exit(run_experiments(spec, out, address, only, overrides or ()))


JobServer = Annotated[
    str, typer.Option("--address", metavar="URL", help="Job server of a Ray cluster, such as http://head:8265.")
]


@app.command()
def submit(
    spec: SpecPath,
    address: JobServer,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", help="Run folder as all nodes see it, or its URI.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run there; default: the experiment's.")
    ] = None,
    only: Only = "*",
    overrides: Overrides = None,
    follow: Annotated[bool, typer.Option(help="Show what the run prints until it is over.")] = True,
) -> None:
    """Have a Ray cluster drive the experiment: this package travels with it. Submitted again, it goes on."""
    with busy("loading what a submission needs"):
        from bocb_tune.cli.token import use_token

        use_token()
        from bocb_tune.cli.submitted import submit_experiment

    raise typer.Exit(submit_experiment(spec, address, name, out, only, overrides or (), wait=follow))


@app.command()
def stop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a submitted run.")], address: JobServer
) -> None:
    """Have a submitted run finish the epochs in flight and end."""
    with busy("loading what this needs"):
        from bocb_tune.cli.token import use_token

        use_token()
        from bocb_tune.cli.submitted import stop_submitted

    stop_submitted(name, address)


@app.command()
def trial(
    spec: Annotated[Path | None, typer.Argument(metavar="[SPEC]", help="Experiment file (YAML).")] = None,
    cell: Annotated[str | None, typer.Option("--cell", metavar="BACKBONE/OPTIMIZER", help="Which cell.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate; default: the published one.")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay", help="Default: the published one.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=MOST_SEED, help="Of initialisation, order, augmentation; 0.")
    ] = None,
    overrides: Overrides = None,
    folder: Annotated[str | None, typer.Option("--from", metavar="RUN", help="Repeat a trial of this run.")] = None,
    trial_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="Which trial of the run.")] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", metavar="FILE", help="Trace some steps into FILE (.json).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="With --from: put its checkpoint into the run folder.")] = False,
) -> None:
    """Train one trial in this process, without Ray, and print each epoch: of SPEC, or one that a run has recorded."""
    if folder is not None:
        given = {"SPEC": spec, "--cell": cell, "--lr": lr, "--weight-decay": weight_decay, "--seed": seed}
        if extra := [name for name, value in given.items() if value is not None] + ["--set"] * bool(overrides):
            raise typer.BadParameter(f"--from repeats a trial as it was; leave out {', '.join(extra)}")
        if trial_id is None:
            raise typer.BadParameter("--from needs --id ID: which trial, as report/tables/trials.csv names it")
        with busy("loading what a trial needs"):
            from bocb_tune.cli.commands import repeat_trial

        raise typer.Exit(repeat_trial(folder, trial_id, profile, keep=keep))
    if spec is None or cell is None or trial_id is not None:
        raise typer.BadParameter("give SPEC and --cell BACKBONE/OPTIMIZER, or --from RUN and --id ID")
    if keep:
        raise typer.BadParameter("--keep is for a trial of a run, by --from RUN and --id ID")
    require_hyperparameter("--lr", lr, above_zero=True)
    require_hyperparameter("--weight-decay", weight_decay, above_zero=False)
    with busy("loading what a trial needs"):
        from bocb_tune.cli.commands import run_trial

    raise typer.Exit(run_trial(spec, cell, lr, weight_decay, seed or 0, overrides or (), profile))


def require_hyperparameter(option: str, value: float | None, *, above_zero: bool) -> None:
    """Refuse a value that no optimizer can train with.

    Raises:
        typer.BadParameter: naming the option.
    """
    if value is None or (0 < value < math.inf) or (value == 0 and not above_zero):
        return
    wanted = "a finite number above 0" if above_zero else "a finite number, 0 or above"
    raise typer.BadParameter(f"{option} is {value:g}; it must be {wanted}")


@app.command()
def status(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="Run folder, or its URI.")],
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep it up to date until the run is done.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Job server that RUN, a name, was submitted to.")
    ] = None,
) -> None:
    """Show how far a run is, from its journals."""
    if address is not None:
        with busy("loading what this needs"):
            from bocb_tune.cli.token import use_token

            use_token()
            from bocb_tune.cli.submitted import show_submitted
        folder = show_submitted(folder, address)
    with busy(f"reading {folder}"):
        from bocb_tune.cli.commands import show_status

    show_status(folder, as_json=as_json, watch=watch)


Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Run folder or its URI, CSV, TSV, Parquet table, or paper:NAME.")
]
Space = Annotated[
    list[Path] | None,
    typer.Option("--space", metavar="FILE", help="Search spaces a table was drawn from: files or folders."),
]
Metric = Annotated[str | None, typer.Option("--metric", metavar="COLUMN", help="Column of a table that is the score.")]
Way = Annotated[str | None, typer.Option("--direction", metavar="max|min", help="Which way the metric is better.")]
Tolerance = Annotated[
    str | None,
    typer.Option(
        "--tolerance", metavar="X", help="What may be lost for nothing: in the metric's unit, or 2% of its best."
    ),
]
Chance = Annotated[float | None, typer.Option("--chance", metavar="X", help="What a failed run of a table scores.")]
Form = Annotated[
    Literal["text", "md"], typer.Option("--format", help="The answer as text, or as Markdown on standard output.")
]
Where = Annotated[list[str] | None, typer.Option("--where", metavar="COLUMN=VALUE", help="Rows of a table to keep.")]


@app.command()
def analyze(
    source: Source,
    others: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]", help="Other runs of the same grid, to compare with it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Default: RUN/report or ./report.")
    ] = None,
    space: Space = None,
    metric: Metric = None,
    direction: Way = None,
    tolerance: Tolerance = None,
    chance: Chance = None,
    where: Where = None,
    patterns: Annotated[
        bool, typer.Option("--patterns", help="Also read the kept checkpoints: spectra of the trained weights.")
    ] = False,
    gap: Annotated[
        float | None, typer.Option("--gap", metavar="POINTS", help="Gap of the paper's Eq. 1; default: 3, ImageNet 1.")
    ] = None,
    step: Annotated[
        float | None, typer.Option("--step", metavar="DECADES", help="Step of settings searched continuously: 1/3.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", metavar="P,S,C,T", help="Of performance, settings, coupling, computation."),
    ] = None,
    components: Annotated[
        int | None, typer.Option("--components", metavar="K", help="Principal components whose energy is drawn: 10.")
    ] = None,
    form: Form = "text",
) -> None:
    """Write the report of a run, of a table of trials, or of the published tables; of several runs, what differs."""
    measures = (gap, step, weights, components)
    said = {metric, direction, tolerance, chance, *measures}
    if others and (space or patterns or where or said != {None}):
        raise typer.BadParameter("options other than --out are for one source, and several are given")
    with busy(f"analyzing {source}"):
        from bocb_tune.analysis.core.parallel import warm_up

        warm_up()
        with uncollected():
            from bocb_tune.analysis.answer.sentences import markdown, terminal
            from bocb_tune.analysis.bocb.choices import choose
            from bocb_tune.analysis.report.write import compare_runs, report
            from bocb_tune.analysis.sources.stated import Stated
        kept = tuple(where or ())
        stated = Stated(metric=metric, direction=direction, tolerance=tolerance, chance=chance, where=kept)
        if others:
            written = compare_runs([source, *others], out)
        else:
            start = _starting_weights() if patterns else None
            written = report(source, out, space or (), patterns, stated, choose(*measures), start)
    if form == "md":
        print(markdown((*written.parts, *written.remarks)), end="")
        print(written.page, file=sys.stderr)
        return
    print(plain("\n".join(terminal((*written.parts, *written.remarks)))), file=sys.stderr)
    print(written.page)


def _starting_weights() -> Start:
    """Return what builds the weights that a trial began with; it needs torch, as nothing else here does."""
    from bocb_tune.cli.launch import starting_weights

    return starting_weights


@app.command()
def recommend(
    source: Source,
    backbone: Annotated[
        str | None, typer.Option("--backbone", metavar="NAME", help="One of the grid; default: any like them.")
    ] = None,
    trials: Annotated[int, typer.Option("--trials", metavar="N", help="Trials that can be paid for.")] = 16,
    space: Space = None,
    metric: Metric = None,
    direction: Way = None,
    tolerance: Tolerance = None,
    chance: Chance = None,
    where: Where = None,
    as_json: AsJson = False,
    form: Form = "text",
) -> None:
    """Say which optimizer to use and where to search, how sure that is, and what is as good."""
    with busy(f"looking for a recommendation in {source}"):
        from bocb_tune.analysis.answer.sentences import markdown, terminal
        from bocb_tune.analysis.report.recommend import recommendation
        from bocb_tune.analysis.sources.stated import Stated

        kept = tuple(where or ())
        stated = Stated(metric=metric, direction=direction, tolerance=tolerance, chance=chance, where=kept)
        found = recommendation(source, backbone, trials, space or (), stated)
    if as_json:
        _print_json(found.advice.to_json() | {"cautions": list(found.cautions)})
    elif form == "md":
        print(markdown(found.parts), end="")
    else:
        print(plain("\n".join(terminal(found.parts))))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    to: Annotated[
        Literal["weights", "onnx"],
        typer.Option("--to", help="weights: safetensors, timm's configuration, a card. onnx: these, and an ONNX file."),
    ],
    cells: Annotated[
        list[str] | None, typer.Option("--cell", metavar="BACKBONE/OPTIMIZER", help="Which cells; default: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: RUN/models.")] = None,
) -> None:
    """Write the best kept model of each cell for others to load, a folder each."""
    with busy("loading what an export needs"):
        from bocb_tune.cli.export import export_run

    export_run(folder, cells or (), out, as_onnx=to == "onnx")


@app.command("schema")
def schema_command() -> None:
    """Print the JSON schema of experiment files, for editors."""
    with busy("reading the names there are"):
        from bocb_tune.spec.experiment_file import schema

    _print_json(schema())


@app.command("list")
def list_command(
    kind: Listed,
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help="Only names like this: vit, 'convnext_*'.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what there is to choose from."""
    with busy(f"reading the {kind} there are"):
        from bocb_tune.cli.catalog import catalog

        rows = catalog(kind, pattern)
    if as_json:
        _print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['description']}")
    if kind == "recipes" and pattern is None:
        from bocb_tune.cli.catalog import recipe_keys

        print("\nKeys of a recipe, to be changed as in {base: imagenet, batch_size: 512}, and their defaults:")
        print("\n".join(recipe_keys()))


def _load_local(path: str, overrides: Any = ()) -> Any:
    """Load the experiment, checked against this machine; GPUs and data it lacks are a warning."""
    with busy("checking what is installed and what the data are"):
        from bocb_tune.spec.environment import PLANNED, PLANNED_CAUTIONS
        from bocb_tune.spec.model import load_spec

        return load_spec(path, overrides, PLANNED, PLANNED_CAUTIONS, warn)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
