"""Every gate that an attack left closed, attacked by itself: is the net the limit, or that gates pull apart?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptbench.adaptive import GatedNetwork
from adaptbench.attacks.base import OnProgress, Task
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.engine import Optimiser, Start
from adaptbench.attacks.gates import OneGate
from adaptbench.attacks.judging import Best, GateJudge, gated_columns
from adaptbench.attacks.momentum import MomentumDescent
from adaptbench.attacks.purity import untouched
from adaptbench.attacks.searches import AdamTanh, GradientSearch
from adaptbench.attacks.slopes import closed_clamp
from adaptbench.errors import CapabilityError

SEARCHES: tuple[tuple[str, GradientSearch, Start], ...] = (
    ("momentum", MomentumDescent(100), "as-set"),
    ("momentum from the dear picture", MomentumDescent(100), "best"),
    ("adam-tanh", AdamTanh(0.1, 150), "as-set"),
    ("momentum from noise", MomentumDescent(100), "noise"),
)
"""In turn, each on what the others left closed: 450 steps for one gate of one picture at most."""


@dataclass(frozen=True, slots=True)
class Alone:
    """Which gates open, (n, D) bool each; a gate is counted along D from the input.

    Args:
        clean: open on the clean picture. dear: open on the picture of the attack.
        alone: closed on both, and opened by a search for it alone.
        macs: (D,) int64, what the block of each gate costs.
        by: of those opened alone, how many by each search. steps: in all.
    """

    clean: Tensor
    dear: Tensor
    alone: Tensor
    macs: Tensor
    by: dict[str, int]
    steps: int

    @property
    def ever(self) -> Tensor:
        """(n, D) bool: open on the clean or the dear picture, or opened alone."""
        return self.clean | self.dear | self.alone

    def bound(self, least: int) -> Tensor:
        """(n,) int64 MACs, were every gate open that opened at all. least: what runs whatever gates say."""
        return least + (self.ever * self.macs).sum(1)


def each_alone(
    model: GatedNetwork,
    x: Tensor,
    y: Tensor,
    dear: Tensor,
    constraint: Constraint,
    *,
    ids: Tensor | None = None,
    seed: int = 0,
    searches: tuple[tuple[str, GradientSearch, Start], ...] = SEARCHES,
    on_progress: OnProgress | None = None,
) -> Alone:
    """Attack each gate of each picture that is closed on the clean and on the dear one, with all steps for that gate.

    What stays closed is closed to these searches: strong evidence, no proof. What opens alone need not open together,
    so `Alone.bound` is no cost that any one picture was seen to have.

    Args:
        x: (N, C, H, W) float, clean. y: (N,) labels. dear: (N, C, H, W) uint8, from another attack in the same ball.
        constraint: the ball. ids: (N,) as of `Attack.craft`. seed: of the starts from noise.
        searches: name, search and start of each.
        on_progress: told (gates done, D).

    Raises:
        CapabilityError: no gated net.
    """
    if not isinstance(model, GatedNetwork):
        raise CapabilityError(f"a {model.shape} model has no gates to open.", todo="Give a gated network.")
    device = x.device
    ids = torch.arange(len(x), device=device) if ids is None else ids.to(device)
    columns, n = gated_columns(model), len(x)
    with untouched(model), torch.inference_mode(False), torch.enable_grad(), closed_clamp(), model.steady():
        clean_on, dear_on = (model.infer(p).path[:, columns] for p in (x, dear.to(device).float() / 255.0))
        alone = torch.zeros_like(clean_on)
        by, steps = dict.fromkeys((name for name, *_ in searches), 0), 0
        for d in range(len(columns)):
            rows = (~(clean_on[:, d] | dear_on[:, d])).nonzero().flatten()
            if len(rows):
                task = Task(model, x[rows], y[rows], ids[rows], seed, None, lambda done, n: None)
                opened, ran = _open(model, task, dear[rows.cpu()].to(device), d + 1, constraint, searches, by)
                alone[rows, d] = opened
                steps += ran
            if on_progress is not None:
                on_progress(d + 1, len(columns))
    macs = torch.tensor([model.node_macs[c] for c in columns], device=device)
    assert alone.shape == (n, len(columns))
    return Alone(clean_on.cpu(), dear_on.cpu(), alone.cpu(), macs.cpu(), by, steps)


def _open(
    model: GatedNetwork,
    task: Task,
    dear: Tensor,
    gate: int,
    constraint: Constraint,
    searches: tuple[tuple[str, GradientSearch, Start], ...],
    by: dict[str, int],
) -> tuple[Tensor, int]:
    """(n,) bool whether the gate opened, and the steps that it took."""
    best = Best(GateJudge(model, task.x, task.y, gate=gate), "first")
    best.pictures, steps = dear.clone(), 0  # where "best" begins; a picture that opens the gate takes its place
    for name, search, start in searches:
        before = int(best.score.sum())
        loop = Optimiser(task, model, OneGate(gate), constraint, search, "first", best=best, start=start)
        steps += int(loop.run().details["steps_run"])
        by[name] += int(best.score.sum()) - before
    return best.score > 0, steps
