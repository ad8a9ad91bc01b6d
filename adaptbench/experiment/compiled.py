"""Nets with compiled parts for timed arms: made before any window; a resumed run makes again what its facts name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.adaptive.compilable import has_parts, parts_of
from adaptbench.adaptive.compilers import why_no_compiler
from adaptbench.adaptive.compiling import (
    Batches,
    CompiledPart,
    CompiledPlan,
    compile_again,
    compile_parts,
)
from adaptbench.adaptive.parts import Lap, no_lap
from adaptbench.attacks.identity import own_code
from adaptbench.errors import CapabilityError
from adaptbench.experiment.environment import describe_device
from adaptbench.experiment.keys import digest_of, model_hash
from adaptbench.results.writer import RunWriter

_PART_S = 8.0
"""Of compiling a part, a guess: torch keeps on disk what it made, and then it is a second."""


class Deployed:
    """A net at one batch size, parts of which are compiled.

    Args:
        model: in its own pass. batches: as they are served. facts: of the plan, as `deployed_in` keeps them.
        plan: None where it was made in another process; `prepare` then makes it again.
    """

    def __init__(
        self, model: AdaptiveModel, batches: Batches, facts: dict[str, Any], plan: CompiledPlan | None = None
    ) -> None:
        self.model, self.batches, self.facts = model, batches, facts
        self._plan = plan

    def prepare(self) -> None:
        """Compile, where that is not done yet; nothing is compiled later on.

        Raises:
            CapabilityError: as `compile_again`.
        """
        if self._plan is None:
            self._plan = compile_again(self.model, self.batches, _parts(self.facts["parts"]))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Ready to serve, after `prepare`."""
        with self._made.serving():
            yield

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """(N, C) logits, as `AdaptiveModel.serve` gives them; inside `serving`."""
        return self._made.serve(x, seeds=seeds, lap=lap, full=full)

    def serve_reference(self, x: Tensor) -> Tensor:
        """(N, C) logits of the static reference; inside `serving`."""
        return self._made.serve_reference(x)

    @property
    def _made(self) -> CompiledPlan:
        assert self._plan is not None, "prepare comes first"
        return self._plan

    def require_some(self) -> None:
        """Refuse a net of which nothing stays compiled: it would be timed as it is, under another name.

        Raises:
            CapabilityError: it is such.
        """
        tried = [part for part in self.facts["parts"] if part["calls"]]
        if not any(part["kept"] for part in tried):
            broken = [part["reason"] for part in tried if part["compiled_s"] is None]
            reason = (
                f"not one can be ({broken[0]})" if len(broken) == len(tried) else "the net is no faster for it here"
            )
            raise CapabilityError(
                f"of {len(tried)} parts that run at batch {self.facts['batch_size']} none stays compiled: {reason}.",
                why="It would be the net as it is, timed twice.",
                todo="What the mode compacted says is what it takes.",
            )


def deployed_in(cells: RunWriter, model: AdaptiveModel, batches: Batches, device: str) -> Deployed:
    """The net with the parts that a run has found to be faster compiled; found now, where it has not, and kept.

    Args:
        cells: of the run. batches: of the windows' own size; all of one size.

    Raises:
        CapabilityError: as `compile_parts`.
    """
    key = _key(model, batches, device)
    if cells.has(key):
        return Deployed(model, batches, cells.record(key))
    began = time.perf_counter()
    plan = compile_parts(model, batches)
    facts = {
        "batch_size": len(batches[0][0]),
        "made_s": time.perf_counter() - began,
        "agreement": plan.agreement,
        "net_s": plan.whole,
        "reference_s": plan.reference,
        "parts": [asdict(part) for part in plan.parts],
    }
    cells.commit(key, facts)
    return Deployed(model, batches, cells.record(key), plan)


def _key(model: AdaptiveModel, batches: Batches, device: str) -> str:
    """Of all that a plan hangs on; the machine is one of it."""
    given = hashlib.sha256()
    for x, seeds in batches:
        given.update(x.cpu().numpy().tobytes())
        given.update(b"" if seeds is None else seeds.cpu().numpy().tobytes())
    content = [own_code(), torch.__version__, model_hash(model), given.hexdigest(), [len(x) for x, _ in batches]]
    return f"compiled-{digest_of([*content, describe_device(device)['fingerprint']])}"


def compiling_s(model: AdaptiveModel) -> float:
    """Seconds that `deployed_in` may take, guessed; nothing is compiled for it."""
    weights = next(model.parameters(), torch.zeros(()))
    possible = has_parts(model) and why_no_compiler(weights.device) is None
    return _PART_S * len(parts_of(model)) if possible else 0.0


def _parts(told: Sequence[dict[str, Any]]) -> list[CompiledPart]:
    return [CompiledPart(**part | {"calls": {int(n): k for n, k in part["calls"].items()}}) for part in told]
