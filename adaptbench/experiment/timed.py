"""Arms for the interleaved protocol: each timed case, and each model's static reference, at each batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, GatedNetwork, TokenNetwork
from adaptbench.adaptive.outcome import Inference
from adaptbench.adaptive.parts import NODES, Mode, TimedMode
from adaptbench.errors import CapabilityError
from adaptbench.experiment.compiled import Deployed
from adaptbench.meters.reading import Work
from adaptbench.meters.stopwatch import stopwatch
from adaptbench.meters.windows import Arm
from adaptbench.results.identity import COMPACTED, COMPILED

WARM_PATHS = 8
"""Ways through a model that are run before the first window, at most; the cheapest and the dearest are among them."""


@dataclass(frozen=True, slots=True)
class TimedInputs:
    """What an arm runs.

    Args:
        macs: (n,) int64 executed for each input that is timed.
        macs_mean: a sample of the windows; inputs repeated to fill a batch count as often as they run.
    """

    macs: np.ndarray
    macs_mean: float


def check_modes(model: AdaptiveModel, modes: Sequence[TimedMode], name: str) -> None:
    """Refuse ways of executing a batch that a net does not have.

    Args:
        model: the net. modes: as of `Calls`. name: what the suite calls it.

    Raises:
        CapabilityError: it lacks one of them.
    """
    if lacking := [mode for mode in modes if mode not in model.modes]:
        raise CapabilityError(
            f"'{name}' cannot be run in {' or '.join(lacking)}: a {model.shape} net of this kind has "
            f"{', '.join(model.modes)}.",
            why="Its rows never wait for those of another batch.",
            todo="Time it in those, or in a suite of its own.",
        )


def make_arm(
    case: str,
    model: AdaptiveModel,
    x: Tensor,
    seeds: Tensor,
    batch_size: int,
    mode: TimedMode = COMPACTED,
    deployed: Deployed | None = None,
    ways: bool = True,
) -> tuple[Arm, TimedInputs]:
    """A case as an arm: one call goes through all inputs, batch by batch; in queues they wait for each other.

    What is timed is `serve`: checks and records, which no service makes, are made here, once.

    Args:
        case: its id.
        model: under its own policy.
        x: (n, C, H, W) on the device.
        seeds: (n,) for policies that draw.
        batch_size: inputs handed over at once, of queues those that a node runs on at once; inputs are repeated where
            there are fewer.
        mode: how a batch is executed. deployed: of the mode compiled, the net with its compiled parts.
        ways: every path is run beforehand; once a net, batch size and mode is enough.

    Returns:
        The arm, and the inputs it runs: the first that fill whole batches, all where they fill none.
    """
    if deployed is None:
        check_modes(model, [mode], case)
    batches = _handed_over(x, seeds, batch_size, mode)
    full = batch_size if mode == "queues" else None
    inner: Mode = COMPACTED if full is None else "queues"
    inferences = [model.infer(part, seeds=seed, mode=inner, full=batch_size) for part, seed in batches]
    macs = torch.cat([inference.macs for inference in inferences]).cpu().numpy()
    traffic = sum(
        _traffic(model, inference, part, full or len(part))
        for inference, (part, _) in zip(inferences, batches, strict=True)
    )
    watch = stopwatch(str(x.device))
    given = _served(model, batches)
    server = model if deployed is None else deployed

    pooled = {} if full is None else {"full": full}  # other people's kinds of model may know of no queues

    def run() -> None:
        for part, seed in given:
            server.serve(part, seeds=seed, lap=watch.lap, **pooled)

    first = batches[0][0][:batch_size]
    paths = model.paths()[:WARM_PATHS] if ways and deployed is None else []  # compiled: no calls but those of `run`
    warm = [_forced(model, first, way) for way in paths]
    arm = Arm(case, run, Work(int(macs.sum()), traffic, len(macs)), [*warm, run], server.serving, watch, mode)
    if deployed is not None:
        arm = replace(arm, prepare=deployed.prepare)
    return arm, TimedInputs(macs[: min(len(x), len(macs))], float(macs.mean()))


def make_static_arm(
    case: str, model: AdaptiveModel, x: Tensor, batch_size: int, deployed: Deployed | None = None
) -> Arm:
    """The model's static reference on the same inputs; with compiled parts, where it is `deployed` so."""
    batches = [part for part, _ in _batches(x, torch.zeros(len(x), dtype=torch.int64), batch_size)]
    samples = sum(len(part) for part in batches)
    weights = _reference_bytes(model)
    traffic = weights * len(batches) + sum(_bytes(part) for part in batches)
    watch = stopwatch(str(x.device))
    server = model if deployed is None else deployed

    def run() -> None:
        for part in batches:
            server.serve_reference(part)
            watch.lap(NODES)

    arm = Arm(case, run, Work(model.macs_full * samples, traffic, samples), [run], server.serving, watch)
    return arm if deployed is None else replace(arm, mode=COMPILED, prepare=deployed.prepare)


def served_batches(model: AdaptiveModel, x: Tensor, seeds: Tensor, size: int) -> list[tuple[Tensor, Tensor | None]]:
    """What the calls of a compacted arm are given: batches, with seeds where the net may draw. As of `make_arm`."""
    return _served(model, _batches(x, seeds, size))


def _served(model: AdaptiveModel, batches: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor | None]]:
    draws = isinstance(model, DecisionGraph) and model.policy.draws
    own = not isinstance(model, DecisionGraph | GatedNetwork | TokenNetwork)  # a kind of model of its own may draw
    return [(part, seed if draws or own else None) for part, seed in batches]


def _handed_over(x: Tensor, seeds: Tensor, size: int, mode: TimedMode) -> list[tuple[Tensor, Tensor]]:
    """What one call each is given: batches, single inputs, or, of queues, everything that will come."""
    batches = _batches(x, seeds, size)
    if mode in (COMPACTED, COMPILED):
        return batches
    everything, drawn = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return [(everything, drawn)] if mode == "queues" else _batches(everything, drawn, 1)


def _batches(x: Tensor, seeds: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    if len(x) < size:
        rows = torch.arange(size, device=x.device) % len(x)
        x, seeds = x[rows], seeds[rows.to(seeds.device)]
    whole = len(x) // size * size
    seeds = seeds.to(x.device)
    return [(x[i : i + size].contiguous(), seeds[i : i + size]) for i in range(0, whole, size)]


def _forced(model: AdaptiveModel, x: Tensor, way: Tensor) -> Callable[[], Any]:
    return lambda: model.infer(x, force=way)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _weight_bytes(*modules: nn.Module) -> int:
    return sum(_bytes(t) for m in modules for t in [*m.parameters(), *m.buffers()])


def _traffic(model: AdaptiveModel, inference: Inference, x: Tensor, full: int) -> int:
    """Bytes that one call must move at least: its inputs, and the weights of each node once for `full` samples on it.

    Activations are taken to stay in cache: a lower bound, which the modelled meter's provenance says.
    """
    loads = [-(-int(count) // full) for count in inference.path.sum(0)]
    calls = -(-len(x) // full)
    total = _bytes(x) + calls * (0 if model.front is None else _weight_bytes(model.front))
    if isinstance(model, DecisionGraph):
        total += sum(n * _weight_bytes(model.stages[v], model.heads[v]) for v, n in enumerate(loads) if n)
        return total + calls * _weight_bytes(model.policy)
    if isinstance(model, GatedNetwork):
        bodies = sum(n * _weight_bytes(body) for body, n in zip(model.bodies, loads[1:-1], strict=True) if n)
        rest = _weight_bytes(model.stem, model.shortcuts, model.afters, model.head, model.gates)
        return total + bodies + calls * rest
    return total + calls * _weight_bytes(model)


def _reference_bytes(model: AdaptiveModel) -> int:
    if isinstance(model, DecisionGraph):
        return _weight_bytes(*(model.stages[v] for v in model.reference), model.heads[model.reference[-1]])
    if isinstance(model, GatedNetwork):
        return _weight_bytes(model.stem, model.shortcuts, model.afters, model.head, model.bodies)
    if isinstance(model, TokenNetwork):
        return _weight_bytes(model.stem, model.blocks, model.head)
    return _weight_bytes(model)
