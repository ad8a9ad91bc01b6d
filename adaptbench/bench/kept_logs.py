"""Calibration logs that a run keeps: a policy is fitted on one, and a resumed run would spend minutes on it anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, CalibrationLog, DecisionGraph, Split
from adaptbench.attacks.identity import own_code
from adaptbench.experiment.environment import describe_device
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.results.writer import RunWriter


@dataclass(slots=True)
class KeptLogs:
    """Logs of one plan.

    Args:
        cells: that lie in the run's directory; None where there are none, or they are not wanted.
        device: of the nets. used: key → (N, V, C) logits of this plan, which its run keeps.
    """

    cells: RunWriter | None
    device: str
    used: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def at(cls, place: Path, device: str, *, fresh: bool) -> KeptLogs:
        """Those of a directory, which is only read. fresh: nothing that lies there is taken."""
        return cls(None if fresh else RunWriter.look(place), device)

    def log(self, model: AdaptiveModel, split: Split) -> CalibrationLog:
        """`model.log(split)`, or what an earlier start of the run kept of it on this machine.

        Raises:
            LeakageError: it is no calibration split.
        """
        if not isinstance(model, DecisionGraph) or model.per_pixel:  # whose log is more than logits
            return model.log(split)
        split.require("calibration", purpose="fitting a policy")
        key = self._key(model, split)
        if key not in self.used:
            kept = self.cells.load(key).tensors if self.cells is not None and self.cells.has(key) else None
            self.used[key] = model.log(split).logits if kept is None else torch.from_numpy(kept["logits"])
        return model.logged(self.used[key], split)

    def keep(self, writer: RunWriter) -> None:
        """For the next start."""
        for key, logits in self.used.items():
            if not writer.has(key):
                writer.commit(key, {"rows": len(logits)}, tensors={"logits": logits.numpy()})

    def _key(self, model: DecisionGraph, split: Split) -> str:
        """Of all that logits hang on; sums round differently on another machine, or in other numbers of threads."""
        machine = describe_device(self.device)["fingerprint"]
        return f"log-{digest_of([own_code(), torch.__version__, model_hash(model), split_hash(split), machine])}"
