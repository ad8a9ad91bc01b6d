"""A suite of kind decoding of a few seconds: made-up texts in AG News' format, weights of a moment's training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from adaptbench.decoding.network import Size
from adaptbench.zoo.training.phase import Phase

SMALL = Size(3, 32, 2, 64, 48)
PHASE = Phase(12, 4e-3, 2, optimiser="adamw", schedule="constant")
DECODING = """
title: a small character model
data: ag-news
decoders:
  - greedy
  - calm: {threshold: 0.3}
  - calm: {threshold: 0.3, decay: 4, exits: [1, 2], id: asked twice}
  - self-speculative: {exit: 1, drafts: 3}
prompts: {count: 3, chars: 12, new_chars: 16, stop: "."}
quality: {texts: 2, chars: 12}
attacks: {decoder: calm 0.3, edits: 2, queries: 4, prompts: 2, new_chars: 8}
measure: {blocks: 2, window_s: 0.002, warmup_s: 0, samples: 2, meters: [clock, modelled]}
gate:
  macs_per_token: {increase: 1 %, cases: [decoder]}
  identical: {drop: 1 points, cases: [self-speculative 1 3]}
"""
_WORDS = ("oil", "prices", "fell", "on", "friday", "after", "the", "bank", "said", "shares", "of", "a", "rival")


def write_texts(root: Path, n: int = 160) -> None:
    """train.csv and test.csv under ``root/ag_news_csv``."""
    folder = root / "ag_news_csv"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in (("train.csv", n), ("test.csv", 12)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file, quoting=csv.QUOTE_ALL)
            for i in range(count):
                said = " ".join(rng.choice(_WORDS, size=12))
                out.writerow([i % 4 + 1, f"{said[:20].title()} {i}", f"{said}."])
