"""The command line: parses and calls. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from adaptbench import terminal
from adaptbench.commands.attacking import Format as Pictures
from adaptbench.commands.judging import Format
from adaptbench.commands.options import Audited, DataRoot, Defended, Download, Json, Quiet, Share, Size, Verbose, Zoo
from adaptbench.commands.ranking import leaderboard
from adaptbench.commands.trending import history
from adaptbench.commands.voice import Voice

app = typer.Typer(
    name="adaptbench",
    cls=terminal.Commands,
    help="Do adaptive neural networks save the energy they promise, and can an attacker take the saving away?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from adaptbench.version import __version__

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
    allow_imports: Annotated[
        bool, typer.Option("--allow-imports", help="Run the files of factories that are named; read them first.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and an estimate of its time.")] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="HTML file (default reports/NAME.html; with --out, report.html in it)."),
    ] = None,
    no_report: Annotated[bool, typer.Option("--no-report", help="Leave the HTML page out.")] = False,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="Compare with it after the run; the exit code is the gate's.")
    ] = None,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
    engine: Annotated[
        str, typer.Option("--engine", help="Who crafts, evaluates and logs: local, or ray (extra 'ray').")
    ] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="Of a Ray cluster: auto, or HOST:PORT; without it, this machine.")
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Execute a suite: craft, evaluate, measure, report.

    Exit codes: 0 done, 1 regression, 2 input error or nothing could run, 3 some cases failed or no verdict.
    """
    from adaptbench.commands.running import Wishes
    from adaptbench.commands.running import run as execute
    from adaptbench.experiment.options import Options

    options = Options(
        overrides=override or (),
        out=out,
        device=device,
        limit=limit,
        fresh=fresh,
        allow_imports=allow_imports,
        data_root=data_root,
        download=download,
        zoo=zoo,
        command=shlex.join(["adaptbench", *sys.argv[1:]]),
        engine=engine,
        address=address,
    )
    raise typer.Exit(
        execute(Wishes(suite, options, dry_run, report, no_report, baseline, Voice(verbose, quiet, as_json)))
    )


@app.command()
def attack(
    model: Annotated[
        str, typer.Argument(help="A registered model, package.module:factory, or ./file.py:factory.", metavar="MODEL")
    ],
    data: Annotated[str, typer.Option("--data", help="Data set; its test pictures are attacked.")],
    recipe: Annotated[str, typer.Option("--recipe", help="An attack by name, or a recipe file.")],
    out: Annotated[Path, typer.Option("--out", help="New directory for pictures and crafted.json.")],
    setting: Annotated[
        list[str] | None, typer.Option("-o", "--set", metavar="KEY=VALUE", help="Laid over the recipe: eps=8/255.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option("--policy", help="Puts the net under it: NAME, or 'NAME: {setting: value}'.")
    ] = None,
    defence: Defended = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Test samples at most.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of policy and attack.")] = 0,
    form: Annotated[Pictures, typer.Option("--format", help="png or safetensors.")] = Pictures.png,
    allow_imports: Annotated[
        bool, typer.Option("--allow-imports", help="Run the file of a factory; read it first.")
    ] = False,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    fresh: Annotated[bool, typer.Option("--fresh", help="Replace what an earlier attack left in --out.")] = False,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
) -> None:
    """Craft dear inputs for one model, and write them as 8-bit pictures with what they cost."""
    from adaptbench.commands.attacking import attack as carry_out
    from adaptbench.experiment.options import Options

    options = Options(
        out=out,
        device=device,
        limit=limit,
        fresh=fresh,
        allow_imports=allow_imports,
        data_root=data_root,
        download=download,
        zoo=zoo,
        command=shlex.join(["adaptbench", *sys.argv[1:]]),
    )
    carry_out(model, data, recipe, setting or [], policy, defence, seed, form, options)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="One run directory, or two to see the difference.")],
    out: Annotated[Path | None, typer.Option("--out", help="HTML file (default reports/NAME.html).")] = None,
) -> None:
    """One HTML file, opens offline."""
    from adaptbench.report.page import page_of, write_report

    say = partial(terminal.console().print, markup=False, soft_wrap=True)
    page = write_report(runs, out or page_of(runs), say)
    terminal.console().print(f"report   {page}", soft_wrap=True)


@app.command()
def check(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="The run to judge.")],
    baseline: Annotated[Path | None, typer.Option("--baseline", help="A run directory or a baseline file.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="text (default), json, junit or github.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the verdict to a file, too.")] = None,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Plant known regressions and show that the gate goes red.")
    ] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare with a baseline. Exit codes: 0 pass, 1 regression or missing case, 2 input error, 3 no verdict."""
    from adaptbench.commands.judging import check as carry_out

    raise typer.Exit(carry_out(run_directory, baseline, form, out, selftest, Voice(verbose, quiet, as_json)))


app.command()(history)
app.command()(leaderboard)


@app.command()
def audit(
    model: Annotated[
        str, typer.Argument(help="A registered model, package.module:factory, or ./file.py:factory.", metavar="MODEL")
    ],
    data: Annotated[str, typer.Option("--data", help="Data set whose test inputs are attacked.")],
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Puts the net under it: NAME, or 'NAME: {setting: value}'."),
    ] = None,
    defence: Defended = None,
    attacks: Audited = None,
    eps: Size = None,
    share: Share = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Test inputs at most.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of everything that is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="The bundle (default runs/audit-MODEL-DATA).")] = None,
    max_recovery: Annotated[
        float | None, typer.Option("--max-recovery", help="What the worst attack may take back: 0.5.")
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option("--min-accuracy", help="On clean pictures: 0.9.")] = None,
    max_macs: Annotated[
        float | None, typer.Option("--max-macs", help="Mean MACs of a picture, under whatever attack: 4e6.")
    ] = None,
    allow_imports: Annotated[
        bool, typer.Option("--allow-imports", help="Run the file of a factory; read it first.")
    ] = False,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1.")] = None,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
) -> None:
    """Can a net's figures be trusted, and how much of its saving can be taken back? Leaves a bundle to verify.

    Exit codes: 0 limits kept, 1 a limit is broken (by the end of the interval that speaks against the net), 2 input
    error, 3 a check says that the figures cannot be trusted, or some are missing.
    """
    from adaptbench.commands.auditing import audit as carry_out

    code = carry_out(
        model,
        data,
        out=out,
        max_recovery=max_recovery,
        min_accuracy=min_accuracy,
        max_macs=max_macs,
        policy=policy,
        defence=defence,
        attacks=attacks,
        eps=eps,
        share=share,
        limit=limit,
        seed=seed,
        allow_imports=allow_imports,
        device=device,
        data_root=data_root,
        download=download,
        zoo=zoo,
        command=shlex.join(["adaptbench", *sys.argv[1:]]),
    )
    raise typer.Exit(code)


@app.command()
def budget(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run with an attack in it.")],
    headroom: Annotated[
        float, typer.Option("--headroom", help="What each input adds, as a multiple of the mean clean input.")
    ] = 1.2,
    burst: Annotated[float, typer.Option("--burst", help="What the bucket holds, in refills.")] = 50.0,
    shares: Annotated[
        str | None, typer.Option("--shares", help="Of the traffic, the attacker's: 0,0.01,0.05,0.1,0.25,0.5.")
    ] = None,
    orders: Annotated[int, typer.Option("--orders", min=2, help="Shuffles of the stream.")] = 10,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for the figures.")] = None,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
) -> None:
    """A budget of work shared by honest inputs and a run's crafted ones: what either gets, by the attacker's share."""
    from adaptbench.commands.budgeting import budget as carry_out
    from adaptbench.experiment.options import Options

    options = Options(data_root=data_root, download=download, zoo=zoo)
    carry_out(run_directory, headroom=headroom, burst=burst, shares=shares, orders=orders, out=out, options=options)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="What `adaptbench audit` left behind.")],
    model: Annotated[
        str | None,
        typer.Option("--model", help="The audited net: a name, package.module:factory, or ./file.py:factory."),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Where its pictures are, other than the bundle says.")
    ] = None,
    allow_imports: Annotated[
        bool, typer.Option("--allow-imports", help="Run the file of a factory; read it first.")
    ] = False,
    data_root: DataRoot = None,
    download: Download = False,
    zoo: Zoo = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Fit the policy once more, in place of the bundle's own.")
    ] = False,
) -> None:
    """Say what of an audit holds: files by their hashes, figures by their rows, rows by the net. Nothing is crafted.

    Exit codes: 0 all holds, 1 something does not, 2 input error, 3 something could not be told.
    """
    from adaptbench.commands.auditing import verify as carry_out

    raise typer.Exit(
        carry_out(
            bundle,
            model,
            data=data,
            allow_imports=allow_imports,
            data_root=data_root,
            download=download,
            zoo=zoo,
            refit=refit,
        )
    )


@app.command()
def baseline(
    run_directory: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file (default reports/baselines/SUITE.json).")] = None,
) -> None:
    """Keep a run's figures as a small file that `check` compares with."""
    from adaptbench.commands.judging import keep

    keep(run_directory, out)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A registered model, or one part of its weights.")],
    data: Annotated[
        str, typer.Option("--data", help="Data set with a recipe: digits, fashion-mnist, cifar10, cifar100.")
    ] = "digits",
    out: Annotated[Path, typer.Option("--out", help="Zoo folder; pass it on with --zoo.")] = Path("zoo"),
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=2**32 - 1, help="Other than the recipe's.")] = None,
    recipe: Annotated[
        str, typer.Option("--recipe", help="CIFAR: short (hours on two cores) or full (a GPU).")
    ] = "short",
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="How exits trained with their net are weighed, in place of the recipe's way: uniform, linear, "
            "weighted, sdn, adaloss, dynexit, boosted, distilled; or backtrack. Of heads on a frozen net: teacher.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--strategy-option", metavar="NAME=VALUE", help="Of the strategy; repeatable.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1.")] = "cpu",
    data_root: DataRoot = None,
    download: Download = False,
) -> None:
    """Train a model's weights and fit its policy by the committed recipe; a killed training resumes exactly."""
    from adaptbench.commands.training import train as carry_out

    carry_out(
        model,
        data,
        out,
        seed=seed,
        recipe=recipe,
        strategy=strategy,
        options=option or [],
        device=device,
        data_root=data_root,
        download=download,
    )


@app.command(name="list")
def list_names(
    kind: Annotated[str, typer.Argument(help="models, policies, online, defences, attacks, data, meters or suites.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Of the models, those with checkpoints for this data set.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Names alone.")] = False,
    as_json: Json = False,
) -> None:
    """Names that suites and commands take."""
    from adaptbench.commands import listing

    listing.show(listing.kind_of(kind), data, Voice(quiet=quiet, json=as_json))


@app.command()
def doctor(data_root: DataRoot = None, quiet: Quiet = False, as_json: Json = False) -> None:
    """Sensors, permissions, versions, data: found or not, why, and the one command that helps."""
    from adaptbench.commands.examining import examine

    examine(data_root, Voice(quiet=quiet, json=as_json))


def main() -> None:
    """Entry point: every end has its words and its exit code (`adaptbench.terminal`)."""
    sys.exit(terminal.run(app))
