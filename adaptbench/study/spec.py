"""A study's file: read from YAML and checked before anything runs; whatever it asks for works or is refused here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from adaptbench.errors import SuiteError, UsageError
from adaptbench.experiment.source import Loaded, Source
from adaptbench.located_yaml import Place
from adaptbench.registry import DATA, MODELS, POLICIES, Registry, did_you_mean
from adaptbench.results.gate_rules import OF_STUDIES, parse_gate
from adaptbench.results.identity import COMPILED
from adaptbench.study.schema import (
    COMPARED,
    OF_ALL_POINTS,
    Ours,
    Published,
    Study,
    registry_name,
)
from adaptbench.zoo.factories import is_factory


@dataclass(frozen=True, slots=True)
class LoadedStudy(Loaded):
    """A checked study. study: its contents."""

    kind = "study"

    study: Study


def load_study(name: str, overrides: Sequence[str] = ()) -> LoadedStudy:
    """Read, override and check a study.

    Args:
        name: of a suite, or a path. overrides: ``key=value``, keys dotted, values YAML.

    Raises:
        SuiteError: file, line, field; what is wrong and what would be right.
        UsageError: an override that is no key=value.
    """
    source = Source.read(name, overrides, LoadedStudy.kind)
    study, digest = source.contents(Study)
    _check(study, source)
    return LoadedStudy(source.name, source.located.text, source.overrides, digest, source, study)


def _check(study: Study, source: Source) -> None:
    _check_names(study, source)
    _check_repeats(study, source)
    _check_policies(study, source)
    with source.placed(("gate",)):
        parse_gate(study.gate, OF_STUDIES)
    for i, figure in enumerate(study.published):
        _check_published(study, figure, source, ("published", i))


def _named(study: Study) -> Iterator[tuple[Registry, str, Place]]:
    """Every name of a registry, and where it stands."""
    for key, graph in study.graphs.items():
        yield DATA, graph.data.partition(":")[0], ("graphs", key, "data")
        if not is_factory(graph.model):
            yield MODELS, graph.model, ("graphs", key, "model")
    for i, name in enumerate(study.policies):
        yield POLICIES, registry_name(name), ("policies", i)
    for i, name in enumerate(study.resplits.policies if study.resplits is not None else []):
        yield POLICIES, registry_name(name), ("resplits", "policies", i)
    if study.online is not None:
        yield POLICIES, study.online.base, ("online", "base")


def _check_names(study: Study, source: Source) -> None:
    for registry, name, place in _named(study):
        with source.placed(place):
            registry.load(name) if registry is POLICIES else registry.entry(name)
    places: list[tuple[Place, str]] = [(("paper",), study.paper), (("ours",), study.ours)]
    places += [(("settings", name), name) for name in study.settings]
    places += [(("execute", i), name) for i, name in enumerate(study.execute or [])]
    for place, name in places:
        if name not in study.policies:
            raise SuiteError(
                f"{source.where(place)}: '{name}' is not among the policies of this study.",
                todo=f"{did_you_mean(name, study.policies)}Policies: {', '.join(study.policies)}.",
            )


def _check_repeats(study: Study, source: Source) -> None:
    """A thing asked for twice would be one row or two by chance."""
    lists: list[tuple[Place, Sequence[Any]]] = [
        (("policies",), study.policies),
        (("drops",), study.drops),
        (("budgets",), study.budgets),
        (("gradient_noise",), study.gradient_noise),
        *((("settings", name), values) for name, values in study.settings.items()),
    ]
    if study.resplits is not None:
        lists += [(("resplits", part), getattr(study.resplits, part)) for part in ("policies", "epsilons")]
    if study.online is not None:
        lists += [(("online", "orders"), study.online.orders)]
    if study.measure is not None:
        lists += [(("measure", "batch_sizes"), study.measure.batch_sizes)]
        with source.placed(("measure", "modes")):
            study.measure.check()
            if COMPILED in study.measure.modes:
                raise UsageError(
                    "the points of a study are not timed with compiled parts.",
                    why="Each point would be compiled anew, and its speed-up be one over another plain net.",
                    todo=f"Leave {COMPILED} out; a suite times it.",
                )
    source.each_once(lists)
    if "training_samples" in study.model_fields_set and not study.looks_at_training:
        raise SuiteError(
            f"{source.where(('training_samples',))}: no policy of this study is fitted on training samples.",
            todo="Leave it out, or name a policy with the ending @train.",
        )


def _check_policies(study: Study, source: Source) -> None:
    """What a policy cannot do is known from its class."""
    for i, name in enumerate(study.policies):
        _refuse(source, ("policies", i), name, _no_family(name))
    for name in study.settings:
        _refuse(source, ("settings", name), name, _no_knob(name))
    for i, name in enumerate(study.resplits.policies if study.resplits is not None else []):
        knob = getattr(POLICIES.load(registry_name(name)), "knob", None)
        other = "" if knob == "epsilon" else f"its knob is '{knob}', not ε"
        _refuse(source, ("resplits", "policies", i), name, _no_knob(name) or other)
    if study.online is not None:
        base = study.online.base
        _refuse(source, ("online", "base"), base, _no_family(base) or _no_knob(base))


def _refuse(source: Source, place: Place, name: str, reason: str) -> None:
    if reason:
        raise SuiteError(
            f"{source.where(place)}: '{name}' cannot stand here: {reason}.",
            todo="Leave it out, or name another policy; `adaptbench list policies` shows them.",
        )


def _no_family(name: str) -> str:
    """Why a policy draws no curve; "" where it does."""
    from adaptbench.adaptive import Policy

    kind = POLICIES.load(registry_name(name))
    if not (isinstance(kind, type) and issubclass(kind, Policy)):
        return "it is no class of a policy"
    if kind.needs_labels:
        return "it looks at labels, and stands beside every study as it is"
    if getattr(kind.family, "__qualname__", "") == Policy.family.__qualname__:
        return "it has one operating point only, and no family()"
    return ""


def _no_knob(name: str) -> str:
    """Why a policy cannot be turned to a setting; "" where it can."""
    return "" if getattr(POLICIES.load(registry_name(name)), "knob", None) else "it has no knob"


def _check_published(study: Study, figure: Published, source: Source, place: Place) -> None:
    ours = figure.ours
    if ours is None:
        if figure.target:
            raise SuiteError(f"{source.where(place)}: a target without a counterpart.", todo="Add `ours`.")
        return
    for kind, name, known in (
        ("graph", ours.graph, list(study.graphs)),
        ("policy", ours.policy, study.policies),
        *(("policy", name, study.policies) for name in ours.against),
    ):
        if ours.figure == "broken" and kind == "policy":
            known = study.resplits.policies if study.resplits is not None else []
        if name not in known:
            raise SuiteError(
                f"{source.where(place)}: no {kind} is called '{name}'.",
                todo=f"{did_you_mean(name, known)}There are: {', '.join(known)}.",
            )
    why = _no_counterpart(study, ours)
    if why:
        raise SuiteError(
            f"{source.where((*place, 'ours'))}: {why}.",
            todo="A drop is a point chosen on calibration, non_inferior the one within the margin; a setting is a knob "
            "value listed under settings, or an ε of the re-splits.",
        )
    if figure.points_lost is not None and ours.figure not in ("speedup", "cost_share"):
        raise SuiteError(
            f"{source.where((*place, 'points_lost'))}: belongs to a speedup or a cost_share.", todo="Leave it out."
        )


def _no_counterpart(study: Study, ours: Ours) -> str:
    """Why no figure of the study answers to this; "" where one does."""
    told = [ours.drop is not None, ours.setting is not None, ours.non_inferior]
    if bool(ours.against) != (ours.figure in COMPARED):
        return "`against` belongs to figures that are counted against other policies, and only there"
    if ours.figure in OF_ALL_POINTS:
        return "a figure over all budgets needs neither drop nor setting" if any(told) else ""
    if sum(told) != 1:
        return "our counterpart needs a drop or a setting or non_inferior, and not both"
    if ours.drop is not None and ours.drop not in study.drops:
        return f"no point is chosen for a drop of {ours.drop:g}; drops: {', '.join(f'{d:g}' for d in study.drops)}"
    if ours.figure == "broken":
        known = study.resplits.epsilons if study.resplits is not None else []
    else:
        known = study.settings.get(ours.policy, [])
    if (ours.setting is not None and ours.setting not in known) or (ours.figure == "broken" and ours.setting is None):
        return f"the setting {ours.setting} is not among those of this study"
    return ""
