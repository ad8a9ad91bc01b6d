"""A module as its author wrote it: what it answers, and whether a net made of it says the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adaptbench.adapters.answers import Reading, check_alike, reading_of
from adaptbench.adapters.exit_names import expanded, is_list, not_called
from adaptbench.adapters.feeding import Feed
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.model import frozen
from adaptbench.adaptive.pixels import PixelExits
from adaptbench.errors import GraphError

if TYPE_CHECKING:
    from adaptbench.adaptive.graph import DecisionGraph


class Whole:
    """A module that answers at several exits.

    Args:
        module: inputs → answers. feed: how its forward is called.
        exits: sub-modules whose outputs they are, each call one exit; None: what forward returns.
        logits: as given to `wrap`. name: for messages. exit_names: of the exits, where they are not the paths.

    Attributes:
        per_pixel: answers are logits (n, C, H, W); known after `look`.
    """

    def __init__(
        self,
        module: nn.Module,
        feed: Feed,
        *,
        exits: Sequence[str] | None,
        logits: Callable[[Any], Any] | None,
        name: str,
        exit_names: Sequence[str] | None = None,
    ) -> None:
        self.module, self.feed, self.logits_of, self.name = module, feed, logits, name
        self.exits = None if exits is None else expanded(module, exits, name)
        self.reading: Reading | None = None
        self.per_pixel = False
        self.exit_names: list[str] | None = None if exit_names is None else list(exit_names)

    def look(self, xs: Sequence[Tensor]) -> None:
        """Find the logits in what two batches of different sizes bring out.

        Raises:
            GraphError: they are not there, or not (n, C), nor (n, C, H, W) of the pictures' sides, alike.
        """
        sizes = [len(x) for x in xs]
        sides = (xs[0].shape[2], xs[0].shape[3]) if xs[0].ndim == 4 else None
        returned = [self.returned(x) for x in xs]
        if self.exits is None:
            self.reading = reading_of(returned, sizes, self.logits_of, self.name, sides)
            self._note_kind(self.answers(returned[0])[0])
            return
        calls = [name for name, _ in returned[0]]
        if missing := [e for e in self.exits if e not in calls]:
            raise not_called(self.module, missing[0], self.name, self._called(xs[0]))
        self.exit_names = self.exit_names or [
            e if calls.count(e) == 1 else f"{e}:{k + 1}" for e in dict.fromkeys(calls) for k in range(calls.count(e))
        ]
        answers = [self.of_exit(out) for _, out in returned[0]]
        check_alike(answers, self.exit_names, self.name, sizes[0], sides)
        self._note_kind(answers[0])

    def _note_kind(self, answer: Tensor) -> None:
        self.per_pixel = answer.ndim == 4

    def put_in_order(self, own_macs: Sequence[int]) -> list[int]:
        """The order of the exits: as listed, or by cost where they were found in a dictionary or the like."""
        order = list(range(len(own_macs)))
        if self.reading is not None and not self.reading.is_ordered:
            order.sort(key=own_macs.__getitem__)
            self.reading = self.reading.in_order(order)
        return order

    def returned(self, x: Tensor, seed: int = 0) -> Any:
        """What forward returns, or (exit, output) of each exit's calls, in eval mode.

        The random state is left alone.
        """
        outputs: dict[str, list[Any]] = {e: [] for e in self.exits or ()}
        with ExitStack() as held, torch.no_grad():
            held.enter_context(torch.compiler.set_stance("force_eager"))
            held.enter_context(frozen(self.module))
            held.enter_context(torch.random.fork_rng(devices=[x.device] if x.device.type == "cuda" else []))
            for exit_name, calls in outputs.items():
                hook = self.module.get_submodule(exit_name).register_forward_hook(
                    lambda _m, _given, out, calls=calls: calls.append(out)
                )
                held.callback(hook.remove)
            torch.manual_seed(seed)
            with runs(f"{self.name}.forward"):
                returned = self.feed.call(self.module, x.clone())
        return returned if self.exits is None else [(e, out) for e, calls in outputs.items() for out in calls]

    def answers(self, returned: Any) -> list[Any]:
        """Logits (n, C), or (n, C, H, W), of each exit, from what `returned` gives."""
        if self.reading is not None:
            return self.reading.of(returned)
        return [self.of_exit(out) for _, out in returned]

    def of_exit(self, out: Any) -> Any:
        """Logits (n, C), from what an exit's sub-module gives."""
        return out if self.logits_of is None else self.logits_of(out)

    def _called(self, x: Tensor) -> list[str]:
        every = Whole(self.module, self.feed, exits=None, logits=None, name=self.name)
        every.exits = [path for path, m in self.module.named_modules() if path and not is_list(m)]
        return list(dict.fromkeys(e for e, _ in every.returned(x)))

    def logits(self, x: Tensor, seed: int = 0) -> Tensor:
        """(n, K, C) of each exit, or (n, K, C, H, W)."""
        return torch.stack(self.answers(self.returned(x, seed)), 1)

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
                f"{self.name}.forward gives other logits when called again: it draws random numbers in eval mode, "
                "or remembers the last call.",
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

    def compare(self, net: DecisionGraph, x: Tensor) -> list[float]:
        """The adapted net must be the same function, at every exit and with samples leaving at each.

        Returns:
            the largest difference of logits at each exit.

        Raises:
            GraphError: it is not.
        """
        own = self.logits(x)
        leaves = torch.arange(len(x)) % own.shape[1]
        force = torch.arange(own.shape[1]) <= leaves[:, None]
        with frozen(net), torch.no_grad(), runs(f"the net cut from {self.name}.forward"):
            dense = net.answers(x.clone()) if isinstance(net, PixelExits) else net.dense_logits(x.clone())
            hard = net.infer(x, force=force.to(x.device)).logits
        if dense.dtype != own.dtype:
            raise self._another(f"logits are {dense.dtype}, not {own.dtype}")
        gaps = {
            "with every exit run": _gap(own, dense),
            "with samples leaving at each exit": _gap(own[torch.arange(len(x)), leaves], hard),
        }
        for how, gap in gaps.items():
            if not gap <= _rounding(own):
                raise self._another(f"logits differ by {gap:.3g} {how}, in a batch of {len(x)}")
        return [_gap(own[:, k], dense[:, k]) for k in range(own.shape[1])]

    def _another(self, how: str) -> GraphError:
        return GraphError(
            f"the net cut from {self.name}.forward is another function: {how}.",
            why="Tracing does not see everything that a forward does, such as writes into what others read.",
            todo="Name the sub-modules that give the logits, exits=['head1', …], so that forward is run as it stands; "
            "or give the pieces yourself: MultiExit(stages=[…], heads=[…], input_shape=…).",
        )


def _state(module: nn.Module) -> list[tuple[int, int]]:
    return [(id(t), t._version) for t in chain(module.parameters(), module.buffers())]


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def _rounding(logits: Tensor) -> float:
    """How far equal computations may lie apart in another order: 1e-4 of the largest logit in float32."""
    relative: float = 0.3 * float(torch.finfo(logits.dtype).eps) ** 0.5
    return relative * max(1.0, float(logits.double().abs().max()))
