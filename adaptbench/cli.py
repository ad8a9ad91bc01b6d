"""The command line: parses, calls, prints. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptbench.errors import AdaptBenchError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from adaptbench.bench.plan import Plan
    from adaptbench.results.baseline import Baseline
    from adaptbench.results.store import Run

app = typer.Typer(
    name="adaptbench",
    help="Do adaptive neural networks save the energy they promise, and can an attacker take the saving away?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Folder with data sets; also ADAPTBENCH_DATA.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch a missing data set from its publisher.")]
Zoo = Annotated[
    Path | None, typer.Option("--zoo", help="Folder with your own checkpoints, instead of the shipped ones.")
]


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    policies = "policies"
    online = "online"
    attacks = "attacks"
    data = "data"
    meters = "meters"
    suites = "suites"


class Format(StrEnum):
    """How the gate speaks."""

    text = "text"
    json = "json"
    junit = "junit"
    github = "github"


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    # a pipe or a log has no width of its own: 80 columns would only cut the table
    return found if found.is_terminal or "COLUMNS" in os.environ else Console(stderr=stderr, highlight=False, width=120)


def _version(wanted: bool) -> None:
    if wanted:
        from adaptbench import __version__

        typer.echo(f"adaptbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A suite's name (bench, ci, fashion-mnist) or a YAML file.")],
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", metavar="KEY=VALUE", help="Lay a value over the suite.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Run directory (default runs/NAME).")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Test samples at most.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Compute everything anew.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and an estimate of its time.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="HTML file (default reports/NAME.html).")] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave the HTML page out.")] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Compare with it after the run; the exit code is the gate's.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
) -> None:
    """Execute a suite: craft, evaluate, measure, report."""
    from adaptbench.bench.runner import run_suite
    from adaptbench.bench.suite import load_suite
    from adaptbench.console import Bars, headline, result_table, show_notes

    console = _console()
    if baseline is not None and not baseline.exists():
        raise UsageError(
            f"there is no baseline {baseline}.", todo="Name a run directory or a baseline file; nothing was run yet."
        )
    from adaptbench.study.spec import is_study

    if is_study(suite):
        if baseline is not None:
            raise UsageError(
                f"'{suite}' is a study, which has no gate to compare with a baseline.",
                todo="Leave --baseline out; `adaptbench baseline RUN` keeps a study.",
            )
        _study(
            console, suite, override, out, device, limit, fresh, dry_run, report, no_report, data_root, download, zoo
        )
        return
    loaded = load_suite(suite, override or [])
    if dry_run:
        from adaptbench.bench.plan import make_plan

        _show_plan(
            console,
            make_plan(loaded, data_root=data_root, download=download, zoo=zoo, limit=limit, device=device),
            device,
        )
        return
    with Bars(_console(stderr=True)) as bars:
        done = run_suite(
            loaded,
            out=out,
            device=device,
            limit=limit,
            fresh=fresh,
            data_root=data_root,
            download=download,
            zoo=zoo,
            command=shlex.join(["adaptbench", *sys.argv[1:]]),
            progress=bars,
        )
    console.print(headline(done.manifest), highlight=False)
    console.print()
    console.print(result_table(done.cases, done.manifest, width=console.width))
    show_notes(console, done.manifest["notes"])
    console.print()
    _after_run(console, done, loaded.name, None if no_report else report or Path("reports") / f"{loaded.name}.html")
    failed = sum(1 for case in done.cases if case.get("failed"))
    if baseline is not None and failed < len(done.cases):
        _gate(done.path, baseline, Format.text, None)
    if failed:
        raise typer.Exit(2 if all(not case["n"] for case in done.cases) else 3)


def _study(
    console: Console,
    name: str,
    override: list[str] | None,
    out: Path | None,
    device: str,
    limit: int | None,
    fresh: bool,
    dry_run: bool,
    report: Path | None,
    no_report: bool,
    data_root: Path | None,
    download: bool,
    zoo: Path | None,
) -> None:
    from adaptbench.console import Bars, show_notes, study_table
    from adaptbench.results.studies import incomplete, read_study
    from adaptbench.study import load_study, run_study

    if override:
        raise UsageError(
            f"'{name}' is a study, which takes no -o.", todo="Copy its file, change it, and run the copy by its path."
        )
    loaded = load_study(name)
    if dry_run:
        for key, graph in loaded.study.graphs.items():
            console.print(f"{key}: {graph.model} on {graph.data}, {len(loaded.study.policies)} policies")
        return
    with Bars(_console(stderr=True)) as bars:
        done = run_study(
            loaded,
            out=out,
            device=device,
            limit=limit,
            fresh=fresh,
            data_root=data_root,
            download=download,
            zoo=zoo,
            command=shlex.join(["adaptbench", *sys.argv[1:]]),
            progress=bars,
        )
    record = read_study(done.place)
    if done.already:
        console.print("already complete: nothing was changed; --fresh computes it anew")
        console.print()
    for table in study_table(record):
        console.print(table)
        console.print()
    missing = incomplete(record)
    show_notes(console, missing)
    if not no_report:
        from adaptbench.report.study_page import write_study_report

        page = report or Path("reports") / f"{loaded.name}.html"
        console.print(f"report   {write_study_report(done.place, page)}", soft_wrap=True)
    console.print(f"study    {done.place}", soft_wrap=True)
    if missing:
        raise typer.Exit(3)


def _after_run(console: Console, done: Run, name: str, page: Path | None) -> None:
    if page is not None:
        from adaptbench.report.page import write_report

        write_report([done.path], page)
        console.print(f"report   {page}", soft_wrap=True)
    console.print(f"run      {done.path}", soft_wrap=True)
    kept = Path("reports") / "baselines" / f"{name}.json"
    shown = kept if kept.exists() else "BASELINE"
    console.print(f"compare  adaptbench check {done.path} --baseline {shown}", soft_wrap=True)


def _show_plan(console: Console, plan: Plan, device: str) -> None:
    from rich.table import Table

    from adaptbench.bench.estimate import estimate
    from adaptbench.report import words

    guess = estimate(plan, device)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("evaluation", no_wrap=True)
    for title in ("kind", "inputs", "about"):
        table.add_column(title, justify="right")
    for evaluation in plan.evaluations:
        seconds = guess.evaluations[evaluation.id]
        table.add_row(evaluation.id, evaluation.kind, words.count(len(evaluation.split)), words.seconds(seconds))
    console.print(table)
    for model, condition, reason in plan.skipped:
        console.print(f"not run: {condition} on {model}: {reason}", soft_wrap=True)
    total = f"{words.plural(len(plan.evaluations), 'evaluation')}, {len(plan.timed)} of them timed"
    time = f"at most about {words.seconds(guess.total_s)} here, measuring {words.seconds(guess.measuring_s)} of it"
    console.print(f"\n{total}; {time}. Nothing was run.", soft_wrap=True)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or two to see the difference.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file (default reports/NAME.html).")] = None,
) -> None:
    """One HTML file, opens offline."""
    from adaptbench.report.page import write_report
    from adaptbench.results.studies import has_study

    names = "-vs-".join(path.resolve().name.removesuffix(".json") for path in runs)
    place = out or Path("reports") / f"{names}.html"
    if len(runs) == 1 and has_study(runs[0]):
        from adaptbench.report.study_page import write_study_report

        page = write_study_report(runs[0], place)
    else:
        page = write_report(runs, place)
    _console().print(f"report   {page}", soft_wrap=True)


@app.command()
def check(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="The run to judge.")],
    baseline: Annotated[Path | None, typer.Option("--baseline", help="A run directory or a baseline file.")] = None,
    form: Annotated[Format, typer.Option("--format", help="text, json, junit or github.")] = Format.text,
    out: Annotated[Path | None, typer.Option("--out", help="Write the verdict to a file, too.")] = None,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Plant known regressions and show that the gate goes red.")
    ] = False,
) -> None:
    """Compare with a baseline. Exit codes: 0 pass, 1 regression or missing case, 2 input error, 3 no verdict."""
    if selftest:
        _selftest(run_directory)
        return
    if baseline is None:
        raise UsageError("no baseline was named.", todo="Add --baseline RUN or --baseline reports/baselines/NAME.json.")
    _gate(run_directory, baseline, form, out)


def _gate(run_directory: Path, baseline: Path | Baseline, form: Format, out: Path | None) -> None:
    from adaptbench.results.files import write_text
    from adaptbench.results.gate import compare
    from adaptbench.results.gate_format import render

    verdict = compare(run_directory, baseline)
    text = render(verdict, form.value)
    if out is not None:
        write_text(out, f"{text}\n")
    typer.echo(text)
    raise typer.Exit(verdict.exit_code)


def _selftest(run_directory: Path) -> None:
    from adaptbench.results.gate_selftest import selftest as plant

    planted = plant(run_directory)
    said = {True: "held  ", False: "FAILED", None: "none  "}
    for fault in planted:
        typer.echo(f"{said[fault.caught]}  {fault.fault}: {fault.reason}")
    failed = any(fault.caught is False for fault in planted)
    proven = any(fault.caught for fault in planted[1:] if not fault.bent)
    raise typer.Exit(1 if failed else 0 if proven else 3)


@app.command()
def baseline(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file (default reports/baselines/SUITE.json).")] = None,
) -> None:
    """Keep a run's figures as a small file that `check` compares with."""
    from adaptbench.results.baseline import write_baseline
    from adaptbench.results.store import Run
    from adaptbench.results.studies import has_study, keep_study

    if has_study(run_directory):
        _console().print(f"study    {keep_study(run_directory, out)}", soft_wrap=True)
        return
    found = Run.open(run_directory)
    found.verify()
    place = out or Path("reports") / "baselines" / f"{Path(found.manifest['suite']['name']).name}.json"
    _console().print(f"baseline {write_baseline(found, place)}", soft_wrap=True)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A registered model; its whole family of weights is trained.")],
    data: Annotated[
        str, typer.Option("--data", help="Data set with a recipe: digits, fashion-mnist, cifar10, cifar100.")
    ] = "digits",
    out: Annotated[Path, typer.Option("--out", help="Zoo folder; pass it on with --zoo.")] = Path("zoo"),
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Other than the recipe's.")] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="CIFAR: short (hours on two cores) or full (a GPU).")
    ] = "short",
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Train a model's weights and fit its policy by the committed recipe; a killed training resumes exactly."""
    from adaptbench.bench.environment import check_device
    from adaptbench.console import Bars
    from adaptbench.data import load_data
    from adaptbench.registry import MODELS
    from adaptbench.zoo.loading import train_system

    if not data.startswith("cifar"):  # there, parts have names of their own
        MODELS.entry(model)
    loaded = load_data(data, root=data_root, download=download)
    phase = ""
    with Bars(_console(stderr=True)) as bars:

        def on_epoch(name: str, record: object) -> None:
            nonlocal phase
            epoch, epochs, loss = (getattr(record, field) for field in ("epoch", "epochs", "loss"))
            if name != phase:
                bars.begin(f"training  {name}", epochs)
                phase = name
            bars.advance(epoch, f"loss {loss:.3f}")

        files = train_system(
            model, loaded, out, on_epoch=on_epoch, seed=seed, recipe=recipe, device=check_device(device)
        )
    console = _console()
    for file in files:
        console.print(f"wrote    {file}", soft_wrap=True)
    console.print(f"use      adaptbench run SUITE --zoo {out}", soft_wrap=True)


@app.command(name="list")
def list_names(
    kind: Annotated[Kind, typer.Argument(help="models, policies, online, attacks, data, meters or suites.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Of the models, those with checkpoints for this data set.")
    ] = None,
) -> None:
    """Names that suites and commands take."""
    from rich.table import Table

    names = _names(kind)
    if data is not None:
        names = _with_checkpoints(kind, data, names)

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, summary in names:
        table.add_row(name, summary)
    _console().print(table)


def _with_checkpoints(kind: Kind, data: str, names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The models among names that can be loaded for a data set as they are."""
    from adaptbench import registry
    from adaptbench.errors import UsageError
    from adaptbench.zoo.loading import available

    if kind is not Kind.models:
        raise UsageError(f"--data was given to `list {kind.value}`.", todo="It belongs to `adaptbench list models`.")
    registry.DATA.entry(data)
    ready = available(data)
    return [(name, summary) for name, summary in names if name in ready]


def _names(kind: Kind) -> list[tuple[str, str]]:
    from adaptbench import registry

    if kind is Kind.suites:
        from adaptbench.bench.suite import suite_names, suite_title

        return [(name, suite_title(name)) for name in suite_names()]
    if kind is Kind.attacks:
        from adaptbench.attacks.catalogue import list_attacks

        return [(listed.name, listed.title) for listed in list_attacks()]
    tables = {
        Kind.models: registry.MODELS,
        Kind.policies: registry.POLICIES,
        Kind.online: registry.ONLINE,
        Kind.data: registry.DATA,
        Kind.meters: registry.METERS,
    }
    return [(entry.name, entry.summary) for entry in tables[kind]]


@app.command()
def doctor(data_root: DataRoot = None) -> None:
    """Sensors, permissions, versions, data: found or not, why, and the one command that helps."""
    from adaptbench.diagnosis import lines

    console = _console()
    for line in lines(data_root):
        console.print(line, soft_wrap=True, markup=False)


def main() -> None:
    """Entry point: our own mistakes without a traceback, exit code 2."""
    try:
        app()
    except AdaptBenchError as error:
        from adaptbench.console import show_error

        show_error(_console(stderr=True), error)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped; what was computed is kept, the same command goes on from there", err=True)
        sys.exit(130)
