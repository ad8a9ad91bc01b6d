"""How everything was counted, attacked and measured, and what the words mean."""

from __future__ import annotations

from collections.abc import Iterator

from adaptbench.report import words
from adaptbench.report.reproduce import made_by
from adaptbench.report.view import View
from adaptbench.results.identity import COMPILED

GLOSSARY = (
    ("adaptive net", "a net that spends less on inputs it finds easy, by leaving early, choosing a net or skipping."),
    (
        "plain net",
        "the same task without the adaptive machinery: every stage and the last classifier, for every input.",
    ),
    ("MAC", "one multiplication and addition; the unit in which operations are counted. A FLOP count is twice it."),
    ("exit", "a place where an input may leave with its answer."),
    ("policy", "what decides whether an input leaves or goes on."),
    ("path", "the parts of a net that an input ran through; the dearest path is all that it can be made to run."),
    ("head-room", "what lies between the clean cost and the dearest path: all that an attacker can add."),
    ("taken back", "the share of the head-room that a condition adds: 0 % leaves the cost, 100 % is the dearest path."),
    ("undone", "at least nine tenths of the saving are gone; the saving holds where less than a tenth is."),
    ("noise control", "random changes of the attack’s size: what chance alone takes back."),
    ("white box, black box", "the attacker sees weights and decisions; or only asks, and is told the cost."),
    ("static, oracle", "a net run whole for every input; a choice that looks at the label, which no policy can."),
    ("measured, modelled", "read off a clock or a sensor; or computed by a formula. They never share a column."),
    ("cannot tell", "the 95 % interval spans zero: the data fit a gain and a loss."),
)


def method(view: View) -> Iterator[tuple[str, str]]:
    """Paragraphs on what was done, as (heading, text)."""
    yield (
        "Counting",
        (
            "MACs are counted where they are executed, sample by sample: the nodes on the sample’s path, their heads "
            "and the policy. FLOPs are twice the MACs. A model’s own plain net does the same task without "
            "adaptive machinery. " + _uncounted(view)
        ),
    )
    yield (
        "Attackers",
        (
            "The share taken back is (attacked − clean) ÷ (dearest path − clean), of means over the attacked inputs "
            "and their clean runs; increase is attacked ÷ clean − 1. Crafted inputs are rounded to 8 bits "
            "and then run hard, as deployed; norms are audited after rounding. A saving is undone where at least 90 % "
            "of it is gone, and holds where less than 10 % is. " + _ties(view)
        ),
    )
    yield (
        "Intervals",
        (
            "Brackets and bars are 95 % confidence intervals. Accuracies have Wilson’s; mean MACs, shares taken back "
            "and the other ratios are bootstrapped over inputs (BCa), paired with the clean run of the same inputs. "
            "Seconds and joules are Hodges–Lehmann centres of the measuring blocks on the log scale, savings the same "
            "over paired blocks. Tables leave some out for room; summary.json has them all. One that is missing there "
            "too did not vary, or has too few blocks."
        ),
    )
    yield "Measuring", _measuring(view)
    if others := [name for name in view.manifest.get("engines") or {} if name != "local"]:
        yield (
            "Computing",
            (
                f"Crafting and counting ran on {words.listing(others)}: {made_by(view.manifest['engines'])}. Chunks "
                "have fixed borders and content keys, so that who computes one changes nothing; what was timed was "
                "timed by the run’s own process."
            ),
        )
    yield (
        "In words",
        (
            "Faster or slower is said where the 95 % interval of the time saving leaves zero out; else the clock "
            "cannot tell. The worst attack is the one under which the most MACs ran, as a share of the plain net’s."
        ),
    )


def _uncounted(view: View) -> str:
    ops = dict.fromkeys(
        str(op) for model in (view.manifest.get("models") or {}).values() for op in model.get("uncounted") or []
    )
    ops |= dict.fromkeys(str(op) for record in view.records for op in record.get("uncounted") or [])
    if not ops and any(model.get("uncounted") is None for model in (view.manifest.get("models") or {}).values()):
        return "Whether something ran uncounted is not recorded."
    if not ops:
        return "No operation that torch was seen to run is without a formula."
    return f"Operations that ran and that no formula covers: {words.listing(ops)}."


def _ties(view: View) -> str:
    counts = {record["evaluation"]: record["ties"] for record in view.records if words.exists(record.get("ties"))}
    ties = sum(counts.values())
    if not counts:
        return "Ties are not recorded."
    if not ties:
        return "No decision was a tie."
    return (
        f"In {words.plural(int(ties), 'pass', 'passes')} of a sample, over all conditions, a decision fell within 10⁻⁵ "
        "of its threshold, where sums in another order may decide otherwise; they are counted as they fell."
    )


def _measuring(view: View) -> str:
    meters = view.manifest.get("meters") or {}
    answered = [name for name, meter in meters.items() if meter.get("found")]
    silent = [
        f"{name} ({meter.get('reason') or 'no reason given'})"
        for name, meter in meters.items()
        if not meter.get("found")
    ]
    windows = view.windows
    windows = windows[~windows["case"].isin(("idle", "suite"))]
    if windows.empty:
        return "Nothing was timed in this run."
    blocks = int(windows["block"].nunique())
    parts = [
        f"Conditions were interleaved in random order within each of {words.plural(blocks, 'block')}, after warm-up.",
        f"Meters that answered: {words.listing(answered) or 'none'}.",
    ]
    if COMPILED in view.modes:
        parts.append(
            "In the mode compiled, parts that torch made faster here ran compiled, and a plain net’s that was compiled "
            "by the same rule is what it is held against; all was compiled before the first window."
        )
    if silent:
        parts.append(f"Silent: {'; '.join(silent)}.")
    return " ".join(parts)
