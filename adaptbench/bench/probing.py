"""What an attack costs, from two short runs of its own engine; nothing of what it finds is kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adaptbench.adaptive import AdaptiveModel, Split
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.base import Crafted, Learned
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
LESSONS = ("candidates",)
"""The same of what is learned beforehand, where that hangs on no length of the attack."""
_SHORT, _LONGER = 2, 6
_LEAST, _PASS_S = 8, 0.1  # a slow model is probed on as few inputs as it passes in so long
_DEADLINE_S = 2.0  # of a class of torchattacks that cannot be shortened
_MOST_S = 3.0  # of an attack that no one setting shortens

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
    attack = evaluation.attack
    assert attack is not None
    at_once = CHUNK if isinstance(attack, TorchAttack) else POOL  # more cost in proportion, fewer do not
    n = max(min(most, at_once, max(_LEAST, int(_PASS_S / max(input_s, 1e-9)))), 1)
    probe = _Probe(evaluation, attack, device, surrogate, crafting, n)
    try:
        return probe.told()
    except Exception as error:  # whatever it is, the run says it of the case that it is
        return Craft(0.0, f"its attack cannot be tried: {error}")


@dataclass(slots=True)
class _Probe:
    """Short crafts of one attack on n inputs, and what the last of them said."""

    evaluation: Evaluation
    attack: Attack
    device: str
    surrogate: Callable[[str], AdaptiveModel]
    crafting: Split | None
    n: int
    made: Crafted | None = None
    lesson: Learned | None = None

    def told(self) -> Craft:
        """Seconds of the whole craft, lesson included."""
        lesson_s = self._lesson_s()
        crafted = self._crafted()
        doubt, total_s = crafted.doubt, crafted.total_s
        if self.made is not None and self.made.details.get("unfinished"):
            doubt = f"it did not end within {_DEADLINE_S:g} s on {self.n} inputs"
        limit = self.attack.parts.recipe.seconds if isinstance(self.attack, RecipeAttack) else None
        if limit is not None:  # seconds an input that its recipe allows
            total_s = min(total_s, limit * len(self.evaluation.split))
        return Craft(lesson_s + total_s, doubt)

    def _crafted(self) -> Craft:
        n, inputs, limited = self.n, len(self.evaluation.split), isinstance(self.attack, TorchAttack)
        if isinstance(self.attack, EnsembleAttack):
            return self._in_members(self.attack)
        if not limited and length_of(self.attack.settings) is None and n * (one := self._seconds({}, 1)) > _MOST_S:
            return Craft(one * inputs, "it was tried on one input, where it takes long")

        def whole(on: int) -> float:
            return extrapolate(self.attack.settings, lambda settings: self._seconds(settings, on), limited=limited)

        if self.attack.needs_crafting and n > 1:  # what is shared takes as long for few as for many
            return Craft(line((1, whole(1)), (n, whole(n)), inputs))
        return Craft(whole(n) * inputs / n)

    def _in_members(self, attack: EnsembleAttack) -> Craft:
        n = self.n
        total = self._seconds({"seconds": min(_MOST_S / n, attack.parts.recipe.seconds or math.inf)}, n)
        doubt = ""
        if total > _MOST_S and self.made is not None:
            searches = (stage.parts.search for stage in attack.stages_for(self.evaluation.model).values())
            most_steps = n * sum(search.steps for search in searches if isinstance(search, GradientSearch))
            total *= most_steps / max(self.made.details["steps_run"], 1)
            doubt = f"at most so long: it did not end within {_MOST_S:g} s on {n} inputs"
        return Craft(total * len(self.evaluation.split) / n, doubt)

    def _lesson_s(self) -> float:
        """Of what is learned once, where no length of the attack shortens it; the short lesson serves the crafts."""
        key = length_of(self.attack.settings, LESSONS) if self.attack.learns else None
        if key is None or self.crafting is None:
            return 0.0
        return extrapolate({key: self.attack.settings[key]}, self._learned, keys=LESSONS)

    def _learned(self, settings: dict[str, Any]) -> float:
        assert self.crafting is not None
        began = time.perf_counter()
        short = self._shortened(settings)
        self.lesson = short.learn(self.evaluation.model, self.crafting, seed=self.evaluation.seed)
        return time.perf_counter() - began

    def _shortened(self, settings: dict[str, Any]) -> Attack:
        condition = self.evaluation.condition
        return load_attack(condition.ref, {**condition.settings, **settings}) if settings else self.attack

    def _seconds(self, settings: dict[str, Any], on: int) -> float:
        short, of = self._shortened(settings), self.evaluation
        x, y = as_input(of.split.x[:on], self.device), of.split.y[:on].to(self.device)
        began = time.perf_counter()
        self.made = short.craft(
            of.model,
            x,
            y,
            ids=of.split.ids[:on],
            seed=of.seed,
            surrogate=self.surrogate,
            crafting=self.crafting,
            metering=metering_of(short, self.device),
            learned=self.lesson,
        )
        synchroniser(self.device)()
        return time.perf_counter() - began


def length_of(settings: dict[str, Any], keys: Sequence[str] = LENGTHS) -> str | None:
    """The setting that an attack is shortened by; None where there is none, or it is short as it is."""
    key = next((k for k in keys if _is_count(settings.get(k))), None)
    return key if key is not None and settings[key] >= 2 * _LONGER else None


def extrapolate(
    settings: dict[str, Any], seconds: Run, *, limited: bool = False, keys: Sequence[str] = LENGTHS
) -> float:
    """Seconds at full length from seconds at two small ones.

    Args:
        settings: of the attack. seconds: of a craft with some of them replaced.
        limited: it takes a deadline. keys: that it may be shortened by.
    """
    if "rounds" in settings and "fit_steps" in settings:
        return _rounds(settings, seconds)
    if (key := length_of(settings, keys)) is not None:
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
