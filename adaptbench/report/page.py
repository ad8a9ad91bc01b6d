"""One run, or the difference of two, as one HTML file that opens offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptbench.errors import UsageError
from adaptbench.report import cards, cases, html, limits, method, reproduce, sections, verdict, words
from adaptbench.report.difference import Difference
from adaptbench.report.figures import curves, energy, exits, queries, recovery, regimes, savings, sizes, steps
from adaptbench.report.gallery import gallery
from adaptbench.report.metered import metered_table
from adaptbench.report.neighbours import neighbour_table
from adaptbench.report.tails import tail_table
from adaptbench.report.transfers import transfer_tables
from adaptbench.report.view import RunLike, View

SECTIONS = {
    "verdict": "Verdict",
    "saves": "Does it save?",
    "clock": "Does the clock see it?",
    "attacked": "Can it be taken back?",
    "exits": "Where inputs leave",
    "examples": "Examples",
    "energy": "Energy",
    "cases": "Every case",
    "attacks": "The attacks, in words",
    "method": "Method and glossary",
    "reproduce": "Reproduce it",
}


def write_report(runs: Sequence[Path], out: Path, say: Callable[[str], None] | None = None) -> Path:
    """Write the report of one run or study, or the difference page of two runs.

    Args:
        runs: one directory (of a study, the file that was kept of it will do), or two runs: A, then B.
        out: the HTML file; folders above it are made.
        say: told what differs between two runs, a sentence at a time.

    Returns:
        ``out``.

    Raises:
        UsageError: neither one run nor two.
        RunError: a directory is not a complete run, or damaged.
        OutputError: ``out`` cannot be written.
    """
    from adaptbench.results.store import Run
    from adaptbench.results.studies import kind_of

    if len(runs) not in (1, 2):
        raise UsageError(
            f"{words.plural(len(runs), 'run')} given to the report.",
            why="A page shows one run, or how two differ.",
            todo="Name one run directory, or two.",
        )
    if len(runs) == 1 and kind_of(Path(runs[0])) == "serving":
        from adaptbench.report.serving_page import write_serving_report

        return write_serving_report(Path(runs[0]), Path(out))
    if len(runs) == 1 and kind_of(Path(runs[0])) == "decoding":
        from adaptbench.report.decoding_page import write_decoding_report

        return write_decoding_report(Path(runs[0]), Path(out))
    if len(runs) == 1 and kind_of(Path(runs[0])) == "study":
        from adaptbench.report.study_page import write_study_report

        return write_study_report(Path(runs[0]), Path(out))
    opened = [Run.open(Path(path)) for path in runs]
    for run in opened:
        run.verify()
    if len(opened) == 1:
        return html.write(run_page(opened[0]), Path(out))
    difference = Difference.of(opened[0], opened[1])
    if say is not None:
        for sentence in difference.lead():
            say(sentence)
    return html.write(difference.page(), Path(out))


def page_of(runs: Sequence[Path]) -> Path:
    """Where the page of some runs stands by default, so that no run's page lies over another's.

    Args:
        runs: directories, or files of studies.

    Returns:
        ``reports/x.html`` of ``runs/x`` and of ``reports/…/x.json``; of other places their way, ``reports/a--x.html``.
    """
    return Path("reports") / f"{'-vs-'.join(map(_called, runs))}.html"


def _called(run: Path) -> str:
    place, here = run.resolve(), Path.cwd()
    if place.parent == here / "runs" or place.is_relative_to(here / "reports"):
        return place.name.removesuffix(".json")
    return "--".join(place.relative_to(here if place.is_relative_to(here) else place.anchor).parts) or "here"


def run_page(run: RunLike) -> str:
    """The page of one run as text; the same run gives the same bytes."""
    view = View(run)
    manifest = view.manifest
    suite: Mapping[str, Any] = manifest.get("suite") or {}
    name = str(suite.get("name") or run.path.name)
    judged = verdict.judge(view)
    return html.render(
        "report.html.j2",
        title=_title(view, name),
        kicker=_kicker(view, name),
        contents=list(SECTIONS.items()),
        names=SECTIONS,
        sources=f"the run “{name}”",
        sentences=verdict.sentences(view, judged),
        measured=verdict.measured(view),
        chips=verdict.chips(view),
        verdict=verdict.table(view, judged) if judged else None,
        limits=limits.limits(view),
        notes=[limits.readable(view, str(note)) for note in manifest.get("notes") or []],
        run_path=name,
        curves=curves.figure(view),
        paces=regimes.chart(view),
        regimes=regimes.regime_map(view),
        energy_regimes=regimes.energy_map(view),
        worth=regimes.worth(view),
        savings=savings.table(view),
        neighbours=neighbour_table(view),
        metered=metered_table(view),
        taken_back=recovery.chart(view),
        recovery=recovery.table(view),
        queries=queries.figure(view),
        sizes=sizes.figure(view),
        steps_taken=steps.figure(view),
        tails=tail_table(view),
        transfers=transfer_tables(view),
        stacks=exits.stacks(view),
        exits=exits.table(view),
        gallery=gallery(view),
        sensors=verdict.sensors(view),
        energy=energy.figure(view),
        modelled=energy.modelled_table(view),
        idle=energy.idle_table(view),
        whole=energy.suite_table(view),
        cases=cases.case_table(view),
        origins=cases.origin_table(view),
        rest=cases.rest_table(view),
        audit=sections.attack_audit(view) if any(view.attacks(subject) for subject in view.subjects) else None,
        cards=cards.cards(view),
        method=list(method.method(view)),
        glossary=method.GLOSSARY,
        models=sections.model_table(view),
        model_details=_models(view),
        steps=reproduce.steps(view),
        facts=reproduce.run_facts(view),
        meters=sections.meter_table(view),
        suite_text=str(suite.get("text") or ""),
        versions=html.facts(manifest.get("versions") or {}),
        hashes=reproduce.hashes(view),
    )


def _title(view: View, name: str) -> str:
    data = words.listing(dict.fromkeys(subject.data for subject in view.subjects))
    return f"{name}: adaptive nets on {data}" if data else name


def _kicker(view: View, name: str) -> list[str]:
    started = str(view.manifest.get("started") or "")[:10]
    device = view.manifest.get("device") or {}
    threads = f", {words.plural(device['threads'], 'thread')}" if device.get("threads") else ""
    where = f"{device['kind']}{threads}" if device.get("kind") else ""
    return [fact for fact in (f"suite {name}", where, started) if fact]


def _models(view: View) -> list[dict[str, Any]]:
    return [
        {
            "title": view.model_title(name),
            "nodes": sections.path_table(view, name, place),
            "card": sections.card_lines(model.get("card") or {}),
        }
        for place, (name, model) in enumerate((view.manifest.get("models") or {}).items())
    ]
