"""Gated nets before a line: blocks are their nodes. What a row runs, and what a block's body takes at a size.

A batch of a gated net stays together; what everybody passes (gates, shortcuts, grouping the rows that a gate lets
through) is what a whole call takes beside its steps. Nobody leaves before the head, so that there is nothing to queue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adaptbench.adaptive import GatedNetwork
from adaptbench.adaptive.writes import apart
from adaptbench.bench.evaluate import as_input
from adaptbench.errors import CapabilityError
from adaptbench.meters.reading import Work
from adaptbench.meters.windows import Arm
from adaptbench.serving.traffic import Way


def refuse_queues(model: object, label: str, modes: Sequence[str], *, budget: bool) -> None:
    """Refuse to serve a gated net in a way that means nothing for it; other nets are let pass.

    Args:
        model, label: the net. modes: of batching. budget: whether a hard budget is asked for.

    Raises:
        CapabilityError: queues or a budget, of a gated net.
    """
    if not isinstance(model, GatedNetwork):
        return
    if "queues" in modes:
        raise CapabilityError(
            f"'{label}' has gates, and queues were asked for.",
            why="All of its rows leave at the head: waiting at blocks would hold answers back and bring none sooner.",
            todo="Serve it in batches: batching: {modes: [batches]}.",
        )
    if budget:
        raise CapabilityError(
            f"'{label}' has gates, and a hard budget was asked for.",
            why="A budget cuts a request short at an exit, and this net answers at its head only.",
            todo="Leave hostile.budget out, or serve nets with exits.",
        )


def costs_of(model: GatedNetwork) -> tuple[int, ...]:
    """V MACs of the nodes; the stem's hold all gates, which every row pays."""
    first, *rest = model.node_macs
    return (first + model.gate_macs, *rest)


def block_ways(model: GatedNetwork, x: Tensor, labels: Tensor, device: str) -> tuple[list[Way], Tensor, Tensor]:
    """Ways, (n, V) bool paths and (n,) int64 MACs of a chunk. x: (n, …) as stored. labels: (n,).

    A way goes over the blocks that the row runs; the answer is the head's, wherever one would look.
    """
    inference = model.infer(as_input(x, device))
    right = (inference.logits.argmax(1).cpu() == labels).tolist()
    path, costs = inference.path.cpu(), costs_of(model)
    ways = []
    for mask, good in zip(path.tolist(), right, strict=True):
        nodes = tuple(v for v, yes in enumerate(mask) if yes)
        spent = torch.tensor([costs[v] for v in nodes]).cumsum(0).tolist()
        ways.append(Way(nodes, tuple(map(float, spent)), (good,) * len(nodes)))
    return ways, path, inference.macs.cpu()


def body_arm(case: str, model: GatedNetwork, x: Tensor, path: Tensor, size: int, v: int) -> Arm:
    """A stem, body or head alone, on what reaches it.

    Args:
        case: its windows. x: (n, …) inputs on the device. path: (n, V) bool of these inputs. size: of the batch.
        v: the node.
    """
    there = path[:, v].nonzero().squeeze(1)
    rows = (there if len(there) else torch.arange(len(x)))[torch.arange(size) % max(len(there) or len(x), 1)]
    force = None if len(there) else torch.ones(len(model.node_names), dtype=torch.bool)  # nobody goes there by himself
    given = x[rows.to(x.device)]
    module: nn.Module = [model.stem, *model.bodies, model.head][v]
    caught: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].clone()))
    model.infer(given, force=force)
    hook.remove()
    h = caught[-1]  # before it stands the batch of one that MACs are counted on
    h = h[torch.arange(size, device=h.device) % len(h)]
    costs = model._counted(given)
    writes = (costs.stem_writes, *costs.body_writes, costs.head_writes)[v]

    def run() -> None:
        module(apart(h) if writes else h)

    return Arm(case, run, Work(costs_of(model)[v] * size, None, size), [run], model.serving)
