"""``adaptbench list``: names that suites and commands take."""

from __future__ import annotations

from enum import StrEnum

from adaptbench.commands.voice import Voice, print_document
from adaptbench.errors import UsageError
from adaptbench.terminal import console


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    policies = "policies"
    online = "online"
    defences = "defences"
    attacks = "attacks"
    data = "data"
    meters = "meters"
    engines = "engines"
    suites = "suites"


_SAID_OTHERWISE = {"policy": Kind.policies, "dataset": Kind.data, "datasets": Kind.data, "study": Kind.suites}


def kind_of(word: str) -> Kind:
    """The kind that a word means: its plural, or its singular.

    Raises:
        UsageError: none; the message offers the nearest.
    """
    from adaptbench.registry import did_you_mean

    known = {**{kind.value: kind for kind in Kind}, **{kind.value.removesuffix("s"): kind for kind in Kind}}
    kind = (known | _SAID_OTHERWISE).get(word.lower())
    if kind is None:
        names = [kind.value for kind in Kind]
        raise UsageError(
            f"there is no list of '{word}'.", todo=f"{did_you_mean(word, names)}Lists: {', '.join(names)}."
        )
    return kind


def show(kind: Kind, data: str | None, voice: Voice) -> None:
    """Print the names of a kind; of models, only those with checkpoints for a data set."""
    names, broken = _names(kind)
    if data is not None:
        names = _with_checkpoints(kind, data, names)
    if voice.json:
        entries = [{"name": name, "summary": summary} for name, summary in names]
        print_document("list", {"of": kind.value, "entries": entries, "left_out": broken})
        return
    if voice.quiet:
        for name, _ in names:
            console().print(name, soft_wrap=True)
        return
    _table(names)
    for line in broken:
        console(stderr=True).print(f"left out: {line}", soft_wrap=True)


def _table(names: list[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, summary in names:
        table.add_row(Text(name, style="bold"), summary)
    console().print(table)


def _with_checkpoints(kind: Kind, data: str, names: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The models among names that can be loaded for a data set as they are."""
    from adaptbench import registry
    from adaptbench.zoo.loading import available

    if kind is not Kind.models:
        raise UsageError(f"--data was given to `list {kind.value}`.", todo="It belongs to `adaptbench list models`.")
    registry.DATA.entry(data)
    ready = available(data)
    return [(name, summary) for name, summary in names if name in ready]


def _names(kind: Kind) -> tuple[list[tuple[str, str]], list[str]]:
    """Names with a line each, and what could not be read."""
    from adaptbench import registry

    if kind is Kind.suites:
        from adaptbench.experiment.finding import list_suites

        return list_suites()
    if kind is Kind.attacks:
        from adaptbench.attacks.catalogue import list_attacks

        broken: list[str] = []
        return [(listed.name, listed.title) for listed in list_attacks(broken)], broken
    tables = {
        Kind.models: registry.MODELS,
        Kind.policies: registry.POLICIES,
        Kind.online: registry.ONLINE,
        Kind.defences: registry.DEFENCES,
        Kind.data: registry.DATA,
        Kind.meters: registry.METERS,
        Kind.engines: registry.ENGINES,
    }
    if kind is Kind.models:  # a pair: a net that ships under the policy of its own name
        pairs = set(registry.POLICIES.names())
        return [(e.name, f"{e.summary}{' [net + policy]' if e.name in pairs else ''}") for e in tables[kind]], []
    return [(entry.name, entry.summary) for entry in tables[kind]], []
