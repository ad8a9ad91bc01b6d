"""What a policy itself computes: its MACs at each node, counted without running any net."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.outcome import Signals
from adaptbench.adaptive.policy import Policy
from adaptbench.adaptive.structure import Structure


def policy_costs(policy: Policy, structure: Structure) -> tuple[Tensor, Tensor]:
    """(V,) int64 MACs of deciding at each node, (V,) of answering there; as `DecisionGraph` counts them.

    Args:
        policy: bound or not. structure: of the graph.
    """
    policy.bind(structure)
    size = len(structure.names)
    logits = torch.zeros(1, structure.n_classes)
    decide, predict = [], []
    for v, ways in enumerate(structure.successors):
        visited = (torch.arange(size) <= v)[None]
        signals = Signals(
            logits,
            history=torch.zeros(1, size, structure.n_classes),
            visited=visited,
            seeds=torch.zeros(1, dtype=torch.int64),
        )
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
