"""A module as its author wrote it: what it answers, and whether a net made of it says the same."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptbench.adaptive.model import frozen, runs
from adaptbench.errors import GraphError

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


class Whole:
    """A module that answers at several exits.

    Args:
        module: pictures → answers.
        exits: sub-modules whose outputs they are; None: what forward returns, at `output` where it returns more.
        name: for messages.
    """

    def __init__(self, module: nn.Module, exits: Sequence[str] | None, output: int | str | None, name: str) -> None:
        self.module, self.exits, self.output, self.name = module, exits, output, name

    def logits(self, x: Tensor, seed: int = 0) -> Tensor:
        """(n, K, C) of each exit, in eval mode; the random state is left alone."""
        outputs: dict[str, Tensor] = {}
        with ExitStack() as held, torch.no_grad():
            held.enter_context(frozen(self.module))
            held.enter_context(torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []))
            for exit_name in self.exits or ():
                hook = self.module.get_submodule(exit_name).register_forward_hook(
                    lambda _m, _given, out, exit_name=exit_name: outputs.update({exit_name: out})
                )
                held.callback(hook.remove)
            torch.manual_seed(seed)
            with runs(f"{self.name}.forward"):
                returned = self.module(x.clone())
        given = part_of(returned, self.output, self.name) if self.exits is None else [outputs[e] for e in self.exits]
        return torch.stack(list(given), 1)

    def check(self, x: Tensor) -> None:
        """Refuse forwards whose answers are no function of one sample.

        Raises:
            GraphError: it draws random numbers, mixes the samples of a batch, or writes into its own state.
        """
        before = _state(self.module)
        own = self.logits(x)
        if _state(self.module) != before:
            raise GraphError(
                f"{self.name}.forward writes into its own parameters or buffers in eval mode.",
                why="What a pass changes, the next pass meets: no figure could be repeated.",
                todo="Leave it to train mode: `if self.training: …`.",
            )
        if _gap(own, self.logits(x, seed=1)) > _rounding(own):
            raise GraphError(
                f"{self.name}.forward gives other logits when called again: it draws random numbers in eval mode.",
                why="Exits, cost and every figure would be those of one draw.",
                todo="Take the noise out for inference, or draw it from the picture's own values.",
            )
        alone = torch.cat([self.logits(x[i : i + 1]) for i in range(len(x))])
        if _gap(own, alone) > _rounding(own):
            raise GraphError(
                f"{self.name}.forward gives a picture other logits in a batch than alone: samples touch each other.",
                why="Samples that leave early are taken out of the batch; the others' answers would change with them.",
                todo="Compute statistics over one sample, or keep running ones for eval mode as batch norm does.",
            )

    def compare(self, net: DecisionGraph, x: Tensor) -> None:
        """The adapted net must be the same function, at every exit and with samples leaving at each.

        Raises:
            GraphError: it is not.
        """
        own = self.logits(x)
        leaves = torch.arange(len(x)) % own.shape[1]
        force = torch.arange(own.shape[1]) <= leaves[:, None]
        with frozen(net), torch.no_grad():
            dense = net.dense_logits(x.clone())
        hard = net.infer(x, force=force.to(x.device)).logits
        gaps = {
            "with every exit run": _gap(own, dense),
            "with samples leaving at each exit": _gap(own[torch.arange(len(x)), leaves], hard),
        }
        for how, gap in gaps.items():
            if not gap <= _rounding(own):
                raise GraphError(
                    f"the net cut from {self.name}.forward is another function: logits differ by {gap:.3g} {how}.",
                    why="Tracing does not see everything that a forward does, such as writes into what others read.",
                    todo="Give the pieces yourself: MultiExit(stages=[…], heads=[…], input_shape=…).",
                )


def check_alike(answers: Sequence[Any], exits: Sequence[str] | None, name: str) -> None:
    """Refuse answers that are not logits (n, C) alike.

    Raises:
        GraphError: they are not; the first that is none is named.
    """
    shapes = [tuple(a.shape) if isinstance(a, Tensor) else type(a).__name__ for a in answers]
    n = len(answers[0]) if isinstance(answers[0], Tensor) and answers[0].ndim else 0
    for k, (answer, shape) in enumerate(zip(answers, shapes, strict=True)):
        if not isinstance(answer, Tensor) or answer.ndim != 2 or len(answer) != n or shape != shapes[0]:
            what = f"exit '{exits[k]}'" if exits else f"output {k} of {name}.forward"
            if isinstance(answer, Tensor) and answer.ndim == 1:
                why = "One number a sample may be the cost that the module reports of itself."
                todo = (
                    "Name the sub-modules that give logits: exits=['head1', …]. A module that answers once and tells "
                    "its cost is a black box: subclass AdaptiveModel with capabilities = frozenset({'queries'})."
                )
            else:
                why = "Each exit answers over the same classes."
                todo = "Return logits only, or name the sub-modules that give them: exits=['head1', …]."
            raise GraphError(
                f"{what} has the shape {_shown(answer, n)}, output 0 {_shown(answers[0], n)}: not logits (n, C) alike.",
                why=why,
                todo=todo,
            )


def part_of(returned: Any, output: int | str | None, name: str) -> Any:
    """What a forward returns at an index or key; all of it for None.

    Raises:
        GraphError: there is nothing.
    """
    if output is None:
        return returned
    try:
        return returned[output]
    except (KeyError, IndexError, TypeError) as error:
        raise GraphError(f"{name}.forward returns nothing at {output!r}.", todo=offer(returned)) from error


def offer(returned: Any) -> str:
    """Which parts of what a forward returned could be its logits."""
    parts: list[tuple[Any, Any]] = []
    if isinstance(returned, dict):
        parts = list(returned.items())
    elif isinstance(returned, (list, tuple)):
        parts = list(enumerate(returned))
    lists = [f"output={key!r}, {len(v)} tensors" for key, v in parts if isinstance(v, (list, tuple)) and v]
    if not lists:
        return "Name the sub-modules whose outputs are the exits: exits=['head1', …]."
    return f"Name the list that holds the logits ({'; '.join(lists)}), or the exits: exits=['head1', …]."


def _shown(answer: Any, n: int) -> str:
    if not isinstance(answer, Tensor):
        return type(answer).__name__
    sizes = ["n" if i == 0 and d == n else str(d) for i, d in enumerate(answer.shape)]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _state(module: nn.Module) -> list[tuple[int, int]]:
    return [(id(t), t._version) for t in chain(module.parameters(), module.buffers())]


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def _rounding(logits: Tensor) -> float:
    """How far equal computations may lie apart in another order: 1e-4 of the largest logit in float32."""
    relative: float = 0.3 * float(torch.finfo(logits.dtype).eps) ** 0.5
    return relative * max(1.0, float(logits.double().abs().max()))
