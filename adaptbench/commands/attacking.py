"""``adaptbench attack``: one recipe on one model, its pictures on the disk and what they cost on one screen."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptbench.errors import UsageError
from adaptbench.terminal import console

if TYPE_CHECKING:
    from rich.table import Table

    from adaptbench.bench.entries import Entry
    from adaptbench.bench.one_attack import Job, Outcome
    from adaptbench.experiment.options import Options


class Format(StrEnum):
    """How pictures are written."""

    png = "png"
    safetensors = "safetensors"


def attack(
    model: str,
    data: str,
    recipe: str,
    settings: list[str],
    policy: str | None,
    defence: str | None,
    seed: int,
    form: Format,
    asked: Options,
) -> None:
    """Craft, write and show.

    Args:
        model: registry name, or a factory's. policy: name, or ``{name: {setting: value}}`` as a suite has it.
        defence: the same of a defence. settings: ``KEY=VALUE`` laid over the recipe.
        asked: its `out` is where pictures go.
    """
    entry, laid = _entry(model, policy, defence), dict(map(_setting, settings))
    from adaptbench.bench.crafted_files import require_form, require_room, write
    from adaptbench.bench.one_attack import Wish, craft, forget_parts, prepare
    from adaptbench.results.lock import DirectoryLock
    from adaptbench.watching import watcher

    place = asked.place("crafted")
    require_room(place, asked.fresh)
    job = prepare(Wish(entry, data, recipe, laid, seed), asked)
    require_form(form.value, job.split)
    new = not place.exists()
    try:
        with DirectoryLock(place, asked.command), watcher(console(stderr=True)) as progress:
            if asked.fresh:
                forget_parts(place)
            outcome = craft(job, replace(asked, progress=progress), place)
            document = write(place, job, outcome, form.value, asked.command)
            forget_parts(place)
    except BaseException:
        if new and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
        raise
    _show(job, outcome, f"{place}, anew" if asked.fresh else str(place), document)


def _entry(model: str, policy: str | None, defence: str | None) -> Entry:
    from adaptbench.bench.entries import Entry, put_under

    asked = put_under(policy, defence)
    return Entry.of(model if asked is None else {model: asked})


def _setting(text: str) -> tuple[str, Any]:
    from adaptbench.located_yaml import parse

    key, given, value = text.partition("=")
    if not given or not key.strip():
        raise UsageError(f"the setting '{text}' is not key=value.", todo="Write -o eps=8/255, or -o steps=100.")
    return key.strip(), parse(value, f"-o {key.strip()}").value


def _show(job: Job, outcome: Outcome, place: str, document: Path) -> None:
    from adaptbench.console import show_notes
    from adaptbench.report import words

    shown = console()
    told = [f"{job.attack.name} on {job.loaded.name}", f"{job.split.name}, {words.count(len(job.split))} test images"]
    shown.print(" · ".join([*told, job.attack.access, f"seed {job.wish.seed}"]), soft_wrap=True)
    shown.print()
    shown.print(_table(outcome))
    shown.print()
    shown.print(_costs(job, outcome))
    skipped = [f"does not apply to this model: {title}" for title in outcome.details.get("members_skipped") or []]
    show_notes(shown, [*(outcome.details.get("notes") or []), *skipped])
    shown.print()
    shown.print(f"pictures {place}", soft_wrap=True)
    shown.print(f"figures  {document}", soft_wrap=True)


def _table(outcome: Outcome) -> Table:
    from rich.table import Table

    from adaptbench.report import words
    from adaptbench.report.tables import scaled_interval
    from adaptbench.results.quality import WORDS, metric_of

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", "clean", "attacked", "95 %"):
        table.add_column(title, justify="right" if title else "left", no_wrap=True)
    before, after, macs = outcome.before, outcome.figures, words.macs
    ci = words.interval
    spread = scaled_interval(after.get("macs_mean_ci"), macs)
    table.add_row("MACs a sample", macs(before["macs_mean"]), macs(after["macs_mean"]), spread)
    table.add_row("MACs, 99th of 100", macs(before["macs_p99"]), macs(after["macs_p99"]), "")
    table.add_row("MACs, mean of the dearest 5 %", macs(before["macs_cvar"]), macs(after["macs_cvar"]), "")
    table.add_row("MACs, dearest path", "", macs(after["macs_max"]), "")
    share = words.percent
    judged = metric_of(after)
    table.add_row(WORDS[judged], share(before[judged]), share(after[judged]), ci(after.get(f"{judged}_ci")))
    table.add_row("head-room taken back", "", share(after["recovery"]), ci(after.get("recovery_ci")))
    seen = share(after["recovery_seen"])
    table.add_row("  up to the dearest seen", "", seen, ci(after.get("recovery_seen_ci")))
    table.add_row("answers kept", "", share(after["label_kept"]), ci(after.get("label_kept_ci")))
    return table


def _costs(job: Job, outcome: Outcome) -> str:
    from adaptbench.report import words

    after, n = outcome.figures, len(outcome.x_adv)
    size = words.size_of(job.attack.settings, after["linf_max"])
    parts = [f"changed by at most {size} (L∞), {words.number(after['l2_mean'], 3)} on average (L2)"]
    if after["queries_mean"] is not None:
        parts.append(f"{words.number(after['queries_mean'], 0)} queries an input")
    parts.append(f"crafted in {words.seconds(outcome.seconds)}, {words.seconds(outcome.seconds / n)} an input")
    return "; ".join(parts)
