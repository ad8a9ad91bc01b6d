"""How long a run of kind decoding will take, for ``--dry-run``: an answer of each decoder is made and multiplied."""

from __future__ import annotations

from functools import partial

from adaptbench.decoding.generation import generate
from adaptbench.decoding.runner import prepared
from adaptbench.decoding.spec import LoadedDecoding
from adaptbench.errors import AdaptBenchError
from adaptbench.experiment.estimating import seconds_of
from adaptbench.experiment.options import Options
from adaptbench.meters.clock import ClockMeter
from adaptbench.results.decoding import DecodingRun

_TRIED = 12
"""Characters of an answer that is made to see how long that takes."""


def estimate(loaded: LoadedDecoding, options: Options) -> list[tuple[str, str, float]]:
    """(stage, how much of it, seconds); nothing is left where the very run lies there.

    Raises:
        AdaptBenchError: as `run_decoding`, before anything is spent.
    """
    plan, spec = prepared(loaded, options), loaded.decoding
    if _is_kept(loaded, plan.limit, options):
        return []
    prompt = next(iter(plan.prompts.values()))
    char_s = {
        way.id: seconds_of(partial(generate, plan.net, plan.costs, way.decoder, prompt, _TRIED), options.device)
        / _TRIED
        for way in spec.decoders
    }
    answer_s = {label: each * spec.prompts.new_chars for label, each in char_s.items()}
    decoders = f"{len(spec.decoders)} decoders"
    found = [("decode", f"{decoders} × {len(plan.prompts)} prompts", len(plan.prompts) * sum(answer_s.values()))]
    if spec.quality is not None:
        read = len(plan.texts) * spec.quality.chars * sum(char_s.values())
        found.append(("read given text", f"{decoders} × {len(plan.texts)} texts", read))
    if spec.measure is not None:
        window_s = max(spec.measure.window_s, ClockMeter().min_window_s)
        each = max(window_s, spec.measure.samples * sum(answer_s.values()) / len(answer_s))
        arms = len(spec.decoders) + 1
        taken = arms * (spec.measure.blocks * each + spec.measure.warmup_s + 2 * each)
        found.append(("time", f"{arms} arms, {spec.measure.blocks} blocks", taken))
    if spec.attacks is not None:
        for objective in spec.attacks.objectives:
            depth = objective == "depth"
            each = char_s[spec.attacks.decoder if depth else spec.labels[0]]
            chars = spec.attacks.new_chars if depth else spec.prompts.new_chars
            prompts = min(spec.attacks.prompts, len(plan.prompts))
            taken = prompts * (2 * spec.attacks.queries + 1) * chars * each
            found.append((f"attack {objective}", f"{prompts} prompts × {2 * spec.attacks.queries} decodings", taken))
    return found


def _is_kept(loaded: LoadedDecoding, limit: int | None, options: Options) -> bool:
    """Whether this very run lies there, whole."""
    if options.fresh:
        return False
    try:
        found = DecodingRun.open(options.place(loaded.name))
    except AdaptBenchError:
        return False
    suite = found.manifest["suite"]
    return bool(suite.get("sha256") == loaded.sha256 and suite.get("limit") == limit and not found.record["failed"])
