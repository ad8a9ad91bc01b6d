"""What an attack costs, from two short runs of its own engine; nothing of what it finds is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.base import Crafted
from adaptbench.attacks.composed import RecipeAttack
from adaptbench.attacks.ensemble import EnsembleAttack
from adaptbench.attacks.judging import POOL
from adaptbench.attacks.searches import GradientSearch
from adaptbench.attacks.torchattack import CHUNK, TorchAttack
from adaptbench.bench.evaluate import as_input
from adaptbench.bench.metered import metering_of
from adaptbench.bench.plan import Evaluation
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.estimating import line
from adaptbench.meters.clock import synchroniser

LENGTHS = ("queries", "steps", "n_queries", "nb_iter", "max_iterations")
"""Settings that an attack's time grows with in proportion; the first that it has counts."""
_SHORT, _LONGER = 2, 6
_LEAST, _PASS_S = 8, 0.1  # a slow model is probed on as few inputs as it passes in so long
_DEADLINE_S = 2.0  # of a class of torchattacks that cannot be shortened
_MEMBERS_S = 3.0  # of an attack in several members, which no one setting shortens

Run = Callable[[dict[str, Any]], float]
"""Settings → seconds of a craft."""


@dataclass(frozen=True, slots=True)
class Craft:
    """Seconds of an evaluation. doubt: why they may be far off, or ""."""

    total_s: float
    doubt: str = ""


def probe_craft(
    evaluation: Evaluation,
    device: str,
    surrogate: Callable[[str], AdaptiveModel],
    most: int,
    input_s: float,
    crafting: Split | None = None,
) -> Craft:
    """Time an attack on a few inputs.

    Args:
        evaluation: with an attack. device: where. surrogate: name → model. most: inputs of one craft.
        input_s: a hard pass of one input.
        crafting: pictures for attacks that share one change.

    Returns:
        Seconds of the whole craft; 0 with a doubt where the attack fails.
    """
    attack, condition = evaluation.attack, evaluation.condition
    assert attack is not None
    at_once = CHUNK if isinstance(attack, TorchAttack) else POOL  # more cost in proportion, fewer do not
    n = max(min(most, at_once, max(_LEAST, int(_PASS_S / max(input_s, 1e-9)))), 1)
    split = evaluation.split
    made: Crafted | None = None

    def seconds(settings: dict[str, Any]) -> float:
        nonlocal made
        short = load_attack(condition.ref, {**condition.settings, **settings}) if settings else attack
        x, y = as_input(split.x[:n], device), split.y[:n].to(device)
        began = time.perf_counter()
        made = short.craft(
            evaluation.model,
            x,
            y,
            ids=split.ids[:n],
            seed=evaluation.seed,
            surrogate=surrogate,
            crafting=crafting,
            metering=metering_of(short, device),
        )
        synchroniser(device)()
        return time.perf_counter() - began

    doubt = ""
    try:
        if isinstance(attack, EnsembleAttack):
            total = seconds({"seconds": min(_MEMBERS_S / n, attack.parts.recipe.seconds or math.inf)})
            if total > _MEMBERS_S and made is not None:
                searches = (stage.parts.search for stage in attack.stages_for(evaluation.model).values())
                most_steps = n * sum(search.steps for search in searches if isinstance(search, GradientSearch))
                total *= most_steps / max(made.details["steps_run"], 1)
                doubt = f"at most so long: it did not end within {_MEMBERS_S:g} s on {n} inputs"
        else:
            total = extrapolate(attack.settings, seconds, limited=isinstance(attack, TorchAttack))
    except Exception as error:  # whatever it is, the run says it of the case that it is
        return Craft(0.0, f"its attack cannot be tried: {error}")
    if made is not None and made.details.get("unfinished"):
        doubt = f"it did not end within {_DEADLINE_S:g} s on {n} inputs"
    scaled = total if attack.needs_crafting else total * len(split) / n  # one change takes as long for few as for many
    if (limit := _seconds_of(attack)) is not None:
        scaled = min(scaled, limit * len(split))
    return Craft(scaled, doubt)


def _seconds_of(attack: Attack) -> float | None:
    """What a recipe lets an input take, at most; None where it lets it take as long as it takes."""
    return attack.parts.recipe.seconds if isinstance(attack, RecipeAttack) else None


def extrapolate(settings: dict[str, Any], seconds: Run, *, limited: bool = False) -> float:
    """Seconds at full length from seconds at two small ones.

    Args:
        settings: of the attack. seconds: of a craft with some of them replaced.
        limited: it takes a deadline.
    """
    if "rounds" in settings and "fit_steps" in settings:
        return _rounds(settings, seconds)
    key = next((k for k in LENGTHS if _is_count(settings.get(k))), None)
    if key is not None and settings[key] >= 2 * _LONGER:
        try:
            seconds({key: _SHORT})  # the first call of anything is slow
            return line((_SHORT, seconds({key: _SHORT})), (_LONGER, seconds({key: _LONGER})), settings[key])
        except AdaptBenchError:  # the length has a least value, or is no setting of the user's
            pass
    whole = {"deadline_s": min(_DEADLINE_S, settings["deadline_s"])} if limited else {}
    first = seconds(whole)
    return seconds(whole) if first < _PASS_S else first


def _rounds(settings: dict[str, Any], seconds: Run) -> float:
    """An attack that fits a stand-in each round, and once more at the end: one round, at two lengths of the fits."""
    rounds, fit = int(settings["rounds"]), int(settings["fit_steps"])
    share = {"rounds": 1, "queries": max(settings["queries"] // rounds, settings.get("probes", 0) + 2)}
    short, longer = max(fit // 20, 1), max(fit // 10, 2)
    seconds({**share, "fit_steps": 1})
    few, more = (seconds({**share, "fit_steps": steps}) for steps in (short, longer))
    once = settings.get("fit_on") == "disjoint"  # else one round fits twice
    fits = max((more - few) / (longer - short), 0.0) * fit / (1 if once else 2)
    return (1 if once else rounds + 1) * fits + rounds * line((short, few), (longer, more), 0)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
