"""The stages of a plan with a guess of their seconds, for the words about a whole run; nothing is tried for it.

`adaptbench.bench.estimate` times a little of everything, which takes a tenth of the run: here sizes and settings are
all there is, and what the run itself takes corrects them.
"""

from __future__ import annotations

from adaptbench.bench.neighbours import mixed_cases
from adaptbench.bench.plan import Evaluation, Plan
from adaptbench.bench.probing import LENGTHS
from adaptbench.experiment.ahead import Stage
from adaptbench.experiment.compiled import compiling_s
from adaptbench.results.identity import COMPILED

SUMMARY = "summarising"
_MAC_S, _PASS_S = 2e-10, 5e-5  # of an input, on a core of our days
_CALL_S = 1e-3  # of a batch of one
_STEPS, _BACKWARD = 40, 3  # of an attack that names no length; a step goes back through the net, too
_WINDOW_S = 0.02  # beside a window: garbage is collected, rows are kept
_RECORD_S = 0.05


def stages_of(plan: Plan) -> list[Stage]:
    """Evaluations in order, then a session a batch size, then the records."""
    found = [_evaluation(evaluation) for evaluation in plan.evaluations]
    spec = plan.suite.suite.measure
    if spec is not None and plan.timed:
        statics = {e.entry.net: e for e in plan.timed}
        for size in spec.batch_sizes:
            plain = [*statics.values()] * (1 + (COMPILED in spec.modes))
            arms = [*plan.timed * len(spec.modes), *plain, *mixed_cases(plan, size).values()]
            windows = sum(_WINDOW_S + max(spec.window_s, _call_s(e, size, spec.samples)) for e in arms)
            guess_s = (spec.blocks + 1) * windows + len(arms) * spec.warmup_s  # once more, until it is warm
            guess_s += plan_compiling_s(plan)
            found.append(Stage(session_name(size), spec.blocks, guess_s, ("session",)))
    return [*found, Stage(SUMMARY, 0, _RECORD_S * len(plan.evaluations), (SUMMARY,))]


def plan_compiling_s(plan: Plan) -> float:
    """Seconds that compiling for one batch size may take, each net once; a guess."""
    spec = plan.suite.suite.measure
    if spec is None or COMPILED not in spec.modes:
        return 0.0
    return sum(compiling_s(e.model) for e in {e.loaded.name: e for e in plan.timed}.values())


def session_name(size: int) -> str:
    """Of the stage that times one batch size."""
    return f"batch {size}"


def _evaluation(evaluation: Evaluation) -> Stage:
    passes, kinds = 1.0, ["clean", "pass"]
    if evaluation.attack is not None and evaluation.source is None:
        settings = evaluation.attack.settings
        length = next((settings[k] for k in LENGTHS if isinstance(settings.get(k), int)), _STEPS)
        passes += _BACKWARD * max(length, 1)
        kinds = [f"craft {evaluation.condition.id}", "craft", "pass"]
    return Stage(evaluation.id, 1, len(evaluation.split) * passes * _input_s(evaluation), tuple(kinds))


def _input_s(evaluation: Evaluation) -> float:
    meter = evaluation.model.meter
    return _PASS_S + _MAC_S * evaluation.model.max_macs if meter is None else _CALL_S * (1 + meter.readings)


def _call_s(evaluation: Evaluation, size: int, samples: int) -> float:
    """Seconds of all inputs of a window, in batches."""
    n = min(samples, len(evaluation.split))
    return -(-n // size) * _CALL_S + n * _input_s(evaluation)
