"""Checks of what a net of text sees: its tokenizer, where texts are cut, padding, and cheapness on the exact words."""

from __future__ import annotations

import torch

from adaptbench.adaptive import AdaptiveModel, Split, TokenDomain
from adaptbench.attacks import load_attack
from adaptbench.auditing.changed import most_taken_back
from adaptbench.auditing.findings import Check
from adaptbench.bench.evaluate import as_input
from adaptbench.data.wordpiece import FIRST, LAST, PAD, UNKNOWN
from adaptbench.report import words

ODD, FOREIGN = 0.05, 0.5
"""Share of unknown pieces from which the tokenizer is in doubt, and from which it is another's."""
CUT = 0.25
"""Share of texts that fill their row from which what they say further on is missed."""
MOVED, HALF = 0.05, 0.5
"""What one edit that nobody aimed may take back before the saving is in doubt, and before it cannot be trusted."""
CLOSE = 1e-3


def pieces_known(model: AdaptiveModel, split: Split) -> Check:
    """Texts were cut by the net's own tokenizer: what it has no piece for is rare, and pieces have names."""
    name, domain = "tokenizer", _domain(model)
    if missing := sorted({PAD, UNKNOWN, FIRST, LAST} - set(domain.vocabulary)):
        return Check(
            name,
            "doubt",
            f"the domain's vocabulary has no {words.listing(missing)}: words cannot be read off ids, nor edited",
        )
    real = split.x != domain.pad
    unknown = float(((split.x == domain.vocabulary.index(UNKNOWN)) & real).sum() / real.sum())
    seen = f"{words.percent(unknown)} of the pieces of {len(split)} texts are unknown"
    if unknown > ODD:
        told = f"{seen}: they were cut by another tokenizer, it seems"
        return Check(name, "cannot be trusted" if unknown > FOREIGN else "doubt", told)
    return Check(name, "ok", seen)


def not_cut(model: AdaptiveModel, split: Split) -> Check:
    """Few texts fill their row: what stands beyond it nobody reads."""
    full = float((split.x[:, -1] != _domain(model).pad).float().mean())
    seen = f"{words.percent(full)} of the texts fill all {split.x.shape[1]} columns"
    if full > CUT:
        return Check("length of rows", "doubt", f"{seen}: they are cut there, and what they say further on is missed")
    return Check("length of rows", "ok", seen)


def same_when_padded(model: AdaptiveModel, split: Split, device: str) -> Check:
    """What is answered does not hang on the padding beside a text, so not on the longest text of its batch."""
    name, domain = "padding", _domain(model)
    if not domain.trims:
        return Check(name, "ok", f"rows keep all {domain.length} columns, and padding is paid for")
    short = split.x[domain.lengths(split.x).argsort()[:100]]
    wide, narrow = as_input(short, device), as_input(domain.trimmed(short), device)
    if narrow.shape[1] == wide.shape[1]:
        return Check(name, "ok", "no column is padding in all of the shorter texts")
    with torch.no_grad():
        one, two = model.infer(wide), model.infer(narrow)
    apart = (one.logits - two.logits).abs().amax(1) > CLOSE * one.logits.abs().amax().clamp_min(1.0)
    off = int(((apart | (one.exit != two.exit)) & ~(one.tie | two.tie)).sum())
    if off:
        return Check(
            name,
            "cannot be trusted",
            f"{off} of {len(short)} texts are answered otherwise, or elsewhere, with {wide.shape[1] - narrow.shape[1]} "
            "columns of padding less: an answer hangs on the longest text of its batch",
        )
    told = f"{len(short)} texts are answered alike in {narrow.shape[1]} and in {wide.shape[1]} columns"
    return Check(name, "ok", told)


def cheap_by_content(model: AdaptiveModel, split: Split, seed: int, device: str) -> Check:
    """A net that knows the test texts by heart is cheap on them alone: one edit at random takes its saving away."""
    name = "cost after one edit"
    one = load_attack("words-random", {"share": 1e-6, "least": 1, "moves": ["insert", "characters"]})
    if (reason := one.applies_to(model)) is not None:
        return Check(name, "doubt", f"not looked at: {reason}")
    made = one.craft(model, as_input(split.x, device), split.y.to(device), ids=split.ids, seed=seed)
    worst = most_taken_back(model, split, {"one word misspelt or put in": made.x_adv.cpu()}, seed, device)
    if worst is None:
        return Check(name, "ok", "clean texts cost the maximum already")
    back, what = worst
    seen = f"{what}, at random, takes back {words.percent(back.value)} {words.interval(back.ci)} of the saving"
    if back.low > HALF:
        return Check(name, "cannot be trusted", f"{seen}: the net is cheap on exactly these texts only")
    return Check(name, "doubt" if back.low > MOVED else "ok", seen)


def _domain(model: AdaptiveModel) -> TokenDomain:
    assert isinstance(model.domain, TokenDomain)
    return model.domain
