"""What a policy itself computes: its MACs at each node, counted without running any net."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.outcome import signals_at
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.structure import Structure


def policy_costs(policy: Policy, structure: Structure) -> tuple[Tensor, Tensor]:
    """(V,) int64 MACs of deciding at each node, (V,) of answering there; as `DecisionGraph` counts them.

    Args:
        policy: any. structure: of the graph.
    """
    policy.bind(structure)
    logits = torch.zeros(1, len(structure.names), structure.n_classes)
    decide, predict = [], []
    for v, ways in enumerate(structure.successors):
        signals = signals_at(logits, v, ways=ways, seeds=torch.zeros(1, dtype=torch.int64))
        macs = 0
        if ways and not policy.needs_labels:
            with counting() as counter:
                policy.scores(v, signals)
            macs = counter.macs
        decide.append(macs)
        with counting() as counter:
            policy.predict(v, signals)
        predict.append(counter.macs)
    return torch.tensor(decide), torch.tensor(predict)
