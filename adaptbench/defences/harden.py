"""Thresholds that give way sooner: every input leaves earlier, attacked or not, for a stated loss of accuracy."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel, CalibrationLog, DecisionGraph, NeverStop, Policy, Signals, Structure
from adaptbench.adaptive.log import require_calibration
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.policy import edge_margins
from adaptbench.adaptive.replay import replay
from adaptbench.defences.base import Defence, Model
from adaptbench.errors import CalibrationError, CapabilityError, UsageError
from adaptbench.registry import POLICIES

_TRIED = 200


class Hardened(Policy):
    """Another policy with its worth of stopping raised by a fixed amount at every node.

    Args:
        policy: whose decisions they are; a copy is kept.
        shift: ≥ 0, in the unit of that policy's scores (of confidence thresholds: how much less confidence is enough).
    """

    knob = "shift"

    def __init__(self, policy: Policy, shift: float = 0.0) -> None:
        super().__init__()
        if isinstance(shift, bool) or not 0 <= shift < math.inf:
            raise UsageError(f"a shift of {shift!r} hardens nothing.", todo="Give a number from 0 on.")
        self.policy, self.shift = copy.deepcopy(policy), float(shift)
        self.uses_history = policy.uses_history
        self.name = f"hardened {policy.name}"  # type: ignore[misc]
        self.draws = policy.draws  # type: ignore[misc]
        self.needs_labels = policy.needs_labels  # type: ignore[misc]

    def bind(self, structure: Structure) -> None:
        """Graphs that its policy takes."""
        self.policy.bind(structure)

    def scores(self, node: int, signals: Signals) -> Tensor:
        """The policy's, stopping worth more by the shift."""
        scores = self.policy.scores(node, signals)
        return torch.cat([scores[:, :1] + self.shift, scores[:, 1:]], 1)

    def predict(self, node: int, signals: Signals) -> Tensor:
        """The policy's own answer."""
        return self.policy.predict(node, signals)

    def recosted(self, log: CalibrationLog) -> Self:
        """Its policy with costs estimated anew."""
        return type(self)(self.policy.recosted(log), self.shift)

    def check_costs(self, node_macs: tuple[int, ...]) -> None:
        """As its policy does."""
        self.policy.check_costs(node_macs)

    def describe(self) -> dict[str, Any]:
        """The shift, and the policy's name and settings."""
        return {"shift": self.shift, "policy": self.policy.name, "settings": self.policy.describe()}

    @classmethod
    def from_state(cls, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Self:
        """Rebuild; the policy within is looked up by its name."""
        own = {name.removeprefix("policy."): tensor for name, tensor in tensors.items()}
        return cls(POLICIES.load(settings["policy"]).from_state(settings["settings"], own), settings["shift"])


class Harden(Defence):
    """Shifts every threshold of the deployed policy as far as calibration allows.

    The largest shift whose accuracy on calibration stays within `allowance` of the policy's own. With one shift for all
    nodes no attacked calibration pictures are needed: a larger shift never makes an input of a chain dearer, clean or
    attacked, so that they could not change the choice. It makes inputs cheaper and no net more robust: what an attacker
    can still win shows beside the clean saving only.

    Args:
        allowance: accuracy that may be lost on calibration, a fraction.

    Raises:
        UsageError: an allowance outside [0, 1).
    """

    name: ClassVar[str] = "harden"
    needs_log: ClassVar[bool] = True

    def __init__(self, *, allowance: float = 0.01) -> None:
        if isinstance(allowance, bool) or not isinstance(allowance, int | float) or not 0 <= allowance < 1:
            raise UsageError(
                f"an allowance of {allowance!r} is no accuracy fraction.",
                todo="Give a number in [0, 1); 0.01 is a point.",
            )
        self.allowance = float(allowance)

    def suits(self, model: AdaptiveModel) -> bool:
        """Graphs that decide by a policy which can stop and reads no labels."""
        return (
            isinstance(model, DecisionGraph)
            and bool(model.structure.deciders)
            and not model.needs_labels
            and not isinstance(model.policy, NeverStop)
        )

    def applied(self, model: Model, *, log: CalibrationLog | None = None, seed: int = 0) -> Model:
        """The net under the shifted policy."""
        if not self.suits(model) or not isinstance(model, DecisionGraph):
            raise CapabilityError(
                f"'harden' shifts thresholds, and a net under '{model.policy_name}' has none.",
                why="Gates are weights, an oracle looks at labels, and what never stops has nothing to shift.",
                todo="Put the net under a policy first, or take a defence in front of it: quantise, smooth.",
            )
        require_calibration(log, "harden")
        if not isinstance(log, CalibrationLog) or log.structure != model.structure:
            seen = "none" if log is None else "another net's"
            raise CalibrationError(
                f"'harden' is fitted on a calibration log of its net, and {seen} was given.",
                todo="Give log=net.log(calibration split).",
            )
        return model.under(Hardened(model.policy, fitted_shift(model.policy, log, self.allowance)))


@torch.no_grad()
def fitted_shift(policy: Policy, log: CalibrationLog, allowance: float) -> float:
    """The largest of some 200 shifts whose accuracy on the log is within the allowance of no shift; 0 where none is."""
    seeds = torch.arange(len(log))
    gaps = []
    for v in [v for v, ways in enumerate(log.structure.successors) if ways]:
        signals = signals_at(log.logits, v, ways=log.structure.successors[v], seeds=seeds)
        gaps.append(edge_margins(policy.scores(v, signals)).amax(1))
    going = torch.cat(gaps).double()
    distinct = torch.unique(going[going > 0])
    if not len(distinct):
        return 0.0
    picked = distinct[torch.linspace(0, len(distinct) - 1, min(_TRIED, len(distinct))).round().long()]
    tried = [
        *((picked[1:] + picked[:-1]) / 2).tolist(),
        2 * float(picked[-1]),
    ]  # between margins: no sample on the edge

    def accuracy(shift: float) -> float:
        way = replay(Hardened(policy, shift), log.structure, log.logits, seeds=seeds)
        return float(way.correct(log.labels, log.top).double().mean())

    floor = accuracy(0.0) - allowance - 1e-9
    return max((shift for shift in tried if accuracy(shift) >= floor), default=0.0)
