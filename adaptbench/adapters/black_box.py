"""A net of which only the answers come out: a function, a service, a module that nobody can cut."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adapters.examples import domain_of, probes_like
from adaptbench.adaptive import AdaptiveModel, Inference, MacCounter, Relaxation, Split
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.metered import READINGS, CostMeter, MeteredInference, median_and_noise, no_macs
from adaptbench.adaptive.parts import Lap, Mode, no_lap
from adaptbench.errors import CapabilityError, GraphError
from adaptbench.meters.inference import Reader, metering

Returns = Literal["logits, macs", "logits"]
Cost = Literal["macs", "seconds", "joules"]
_PROBES = 8


class BlackBox(AdaptiveModel):
    """Answers and what they cost; nothing is known of exits, paths or gradients.

    It goes where only answers are asked for: clean and attacked figures, attacks that query, transfer from another
    net, meters, the page and the gate. Policies, gradients and a count of what a static net would do are refused.

    Of a box that tells no MACs a meter reads the cost, one inference at a time, the median of some readings. Its
    figures in MACs are null then, and its cost stands in seconds or joules, with the meter's noise.

    Args:
        fn: pictures (n, C, H, W), or token ids (n, L), → logits (n, C), or (logits, macs (n,)).
        example: (n, C, H, W), or ids (n, L): its shape and type.
        macs_full: MACs of a sample that the saving is a share of, as of the net when nothing is left out.
        returns: "logits, macs": fn says what each sample cost; "logits": MACs are counted while fn runs on one sample
            at a time, so fn must be torch in this process, or they are metered.
        cost: "macs"; or "seconds" or "joules" of each inference, which a meter reads.
        reference: pictures → logits of the static net, for timing; None: there is none.
        min_macs, max_macs: what a sample may cost; anything else that comes back is an error.
        max_cost: seconds or joules of the net when nothing is left out, which recovery is a share of; by default what
            the meter reads of `reference`, and unknown where that is not given either.
        readings: of the meter, an input; two at least.
        meter: (model, inputs, k) → (n, k) seconds or joules, by `model.serve`; by default wall time, or joules of the
            first energy meter that measures (`adaptbench.meters.inference`).
        bounds: of the input values, of pictures. domain: of ids, a `TokenDomain`: they do not say their vocabulary.

    Raises:
        GraphError: fn gives something else, draws, mixes the samples of a batch, or nothing can be counted or metered.
        CapabilityError: joules are asked for, and no sensor tells them.

    >>> def skips(x):
    ...     logits = x.flatten(1)[:, :3] * 4
    ...     return logits, torch.where(logits.amax(1) > 2, 10.0, 80.0)
    >>> box = BlackBox(skips, example=torch.zeros(1, 1, 2, 2), macs_full=80)
    >>> box.infer(torch.tensor([[[[0.9, 0.1], [0.1, 0.1]]], [[[0.3, 0.1], [0.1, 0.1]]]])).macs
    tensor([10, 80])
    """

    shape = "black box"

    def __init__(
        self,
        fn: Callable[[Tensor], Any],
        *,
        example: Tensor,
        macs_full: int | None = None,
        returns: Returns = "logits, macs",
        cost: Cost = "macs",
        reference: Callable[[Tensor], Tensor] | None = None,
        min_macs: int = 0,
        max_macs: int | None = None,
        max_cost: float | None = None,
        readings: int = READINGS,
        meter: Reader | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        domain: Domain | None = None,
    ) -> None:
        super().__init__()
        if returns not in ("logits, macs", "logits"):
            raise GraphError(f"returns={returns!r} is none of the two forms.", todo="Write 'logits, macs' or 'logits'.")
        self.fn, self.returns, self.reference = fn, returns, reference
        self.source_sha256 = _source(fn)  # part of what records hang on
        self.domain = domain_of(example, bounds, domain)
        self.node_names = self.exit_names = ("box",)
        self.capabilities = frozenset({"queries"})
        self._unknown: set[str] = set()
        self._plain_cost: float | None = None
        x = probes_like(next(self.parameters(), torch.zeros((), dtype=example.dtype)), self.domain, _PROBES)
        if cost == "macs":
            _nothing_metered(max_cost, meter)
            self._full, self._least, self._most = _declared(macs_full, min_macs, max_macs)
        else:
            _only_metered(cost, returns, (macs_full, max_macs, min_macs or None), max_cost)
            self.meter = CostMeter(cost, meter or metering(cost, str(x.device)), readings)
            self.max_cost = max_cost
        self.n_classes = 0
        with self.serving():
            logits, macs = self._answered(x)
            self.n_classes = int(logits.shape[1])
            self._look(x, logits, macs)
            if self.meter is not None:
                self.meter.readings_of(self, x[:1])  # one that does not answer is refused here

    def _look(self, x: Tensor, logits: Tensor, macs: Tensor | None) -> None:
        """Refuse what is no function of one sample."""
        again = self._answered(x)
        alone = [self._answered(x[i : i + 1]) for i in range(len(x))]
        costs = [m for _, m in alone if m is not None]
        close = 1e-4 * max(1.0, float(logits.abs().max()))
        for what, other in (
            ("when called again", again),
            ("to a picture alone", (torch.cat([z for z, _ in alone]), torch.cat(costs) if costs else None)),
        ):
            differs = macs is not None and other[1] is not None and not torch.equal(other[1], macs)
            if (other[0] - logits).abs().max() > close or differs:
                raise GraphError(
                    f"the black box gives other logits or costs {what}.",
                    why="Figures of a sample must be those of the sample, not of a draw or of its neighbours.",
                    todo="Fix its seed, put it in eval mode, or let fn go through the samples one by one.",
                )
        if self.returns == "logits" and macs is not None and not macs.any():
            raise GraphError(
                "no MACs were counted while the black box ran.",
                why="What runs outside torch or in another process is not seen, and a cost of zero would be a lie.",
                todo="Let fn say what each sample cost: returns='logits, macs'; or meter it: cost='seconds'.",
            )

    def _answered(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(n, C) logits and (n,) int64 MACs; None where these are metered."""
        with runs("the black box"):
            if self.meter is not None:
                logits = self.fn(x)
                self._check_logits(x, logits)
                return logits, None
            if self.returns == "logits, macs":
                given = self.fn(x)
                if not isinstance(given, (tuple, list)) or len(given) != 2:
                    raise GraphError(
                        f"the black box returned a {type(given).__name__}, not (logits, macs).",
                        todo="Return both, or say returns='logits'.",
                    )
                logits, macs = given
            else:
                answers = [self._counted_one(x[i : i + 1]) for i in range(len(x))]
                logits, macs = torch.cat([z for z, _ in answers]), torch.tensor([m for _, m in answers])
        self._check_logits(x, logits)
        self._check_macs(x, macs)
        return logits, torch.as_tensor(macs).to(logits.device, torch.float64).round().to(torch.int64)

    def _counted_one(self, x: Tensor) -> tuple[Tensor, int]:
        with MacCounter() as counter:
            logits = self.fn(x)
        self._unknown |= set(counter.uncounted)
        return logits, counter.macs

    def _check_logits(self, x: Tensor, logits: Any) -> None:
        classes = self.n_classes or (logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else 0)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (len(x), classes) or not classes:
            seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise GraphError(
                f"the black box gave {seen} as logits of {len(x)} pictures, not (n, C).",
                todo="Return one row of class scores a picture.",
            )

    def _check_macs(self, x: Tensor, macs: Any) -> None:
        cost = torch.as_tensor(macs)
        if tuple(cost.shape) != (len(x),):
            raise GraphError(
                f"the black box gave {tuple(cost.shape)} as costs of {len(x)} pictures.", todo="Return one number each."
            )
        low, high = float(cost.min()), float(cost.max())
        if not (low >= self._least and high <= self._most):
            raise GraphError(
                f"the black box spent {low:.6g} to {high:.6g} MACs on a picture; declared are {self._least} to "
                f"{self._most}.",
                why="Shares and bounds are taken of what is declared.",
                todo="Declare min_macs, max_macs and macs_full as they are.",
            )

    # ------------------------------------------------------------------ the protocol

    @property
    def modes(self) -> tuple[Mode, ...]:
        """A meter reads one inference at a time, whatever the mode."""
        return super().modes if self.meter is None else ("compacted",)

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        if force is not None and not bool(force.all()):
            raise CapabilityError("a black box takes no forced path.", todo="Leave force out.")
        n = len(x)
        logits, macs = self._answered(self.entered(x))
        path = torch.ones(n, 1, dtype=torch.bool, device=x.device)
        left, tie = torch.zeros(n, dtype=torch.int64, device=x.device), ~path[:, 0]
        if macs is not None:
            return Inference(logits, macs, left, path, tie)
        assert self.meter is not None
        cost, noise = median_and_noise(self.meter.readings_of(self, x))
        return MeteredInference(logits, left, path, tie, cost=cost, noise=noise, unit=self.meter.unit)

    @property
    def plain_cost(self) -> float | None:
        """Seconds or joules of an input when nothing is left out: as declared, or metered of `reference` once."""
        if self.meter is None or self.max_cost is not None or self.reference is None:
            return self.max_cost if self.meter is not None else None
        if self._plain_cost is None:
            like = next(self.parameters(), torch.zeros((), dtype=torch.float32))
            x = probes_like(like, self.domain, _PROBES)
            self._plain_cost = float(self.meter.readings_of(_Plain(self), x).quantile(0.5))
        return self._plain_cost

    def serve(self, x: Tensor, *, seeds: Tensor | None = None, lap: Lap = no_lap, full: int | None = None) -> Tensor:
        """(n, C) logits, as fn gives them for the whole batch; nothing is counted."""
        if full is not None:
            return super().serve(x, seeds=seeds, lap=lap, full=full)
        given = self.fn(self.entered(self.taken(x)))
        return given[0] if self.returns == "logits, macs" else given  # type: ignore[no-any-return]

    def _relax(self, x: Tensor, *, temperature: float, seeds: Tensor | None) -> Relaxation:
        raise CapabilityError("a black box has no gradients.", todo="Use an attack that only queries.")

    def dense_logits(self, x: Tensor) -> Tensor:
        """(N, 1, C)."""
        return self._answered(self.entered(self.taken(x)))[0][:, None]

    def run_reference(self, x: Tensor) -> Tensor:
        """(N, C) of the static net.

        Raises:
            CapabilityError: none was given.
        """
        if self.reference is None:
            raise CapabilityError(
                "a black box has no static net to be timed beside it.",
                todo="Give one: BlackBox(…, reference=pictures → logits).",
            )
        with torch.no_grad():
            return self.reference(self.taken(x))

    def paths(self) -> list[Tensor]:
        """The one that there is."""
        return [torch.ones(1, dtype=torch.bool)]

    @property
    def dearest_decisions(self) -> Tensor:
        """(0,): no decision is seen."""
        return torch.zeros(0, dtype=torch.bool)

    @property
    def node_macs(self) -> tuple[int, ...]:
        """The dearest that a sample may cost: nothing is known of its parts."""
        self._need_macs()
        return (self._most,)

    @property
    def min_macs(self) -> int:
        """As declared."""
        self._need_macs()
        return self._least

    @property
    def max_macs(self) -> int:
        """As declared."""
        self._need_macs()
        return self._most

    @property
    def macs_full(self) -> int:
        """As declared."""
        self._need_macs()
        return self._full

    def _need_macs(self) -> None:
        if self.meter is not None:
            raise no_macs(self.meter.unit)

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Operators without a formula, where MACs are counted."""
        return tuple(sorted(self._unknown))

    @property
    def policy_name(self) -> str:
        """Nobody knows."""
        return "black box"

    def log(self, split: Split, *, chunk: int = 1000) -> CalibrationLog:
        """Nothing to fit a policy on.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            "a black box has no exits to log.",
            why="Where to leave is decided inside it.",
            todo="Run it as it is; a net with exits goes into ab.wrap.",
        )


class _Plain:
    """The static net of a box, as a meter takes it."""

    def __init__(self, box: BlackBox) -> None:
        self.serve, self.serving = box.run_reference, box.serving


def _declared(full: int | None, least: int, most: int | None) -> tuple[int, int, int]:
    """(macs_full, min_macs, max_macs)."""
    if full is None:
        raise GraphError(
            "macs_full is not given.",
            why="A saving is a share of what the net costs when nothing is left out.",
            todo="Give macs_full=…; of a box whose MACs nobody knows, meter it: returns='logits', cost='seconds'.",
        )
    most = full if most is None else most
    if not 0 <= least <= most or full <= 0:
        raise GraphError(
            f"min_macs={least}, max_macs={most}, macs_full={full} do not fit together.",
            todo="Give 0 ≤ min_macs ≤ max_macs, and macs_full > 0: savings are shares of it.",
        )
    return int(full), int(least), int(most)


def _nothing_metered(max_cost: float | None, meter: Reader | None) -> None:
    if max_cost is not None or meter is not None:
        raise GraphError(
            "max_cost or meter was given, and the cost is told or counted in MACs.",
            todo="Say cost='seconds' or cost='joules', or leave them out.",
        )


def _only_metered(cost: str, returns: str, macs: tuple[int | None, ...], max_cost: float | None) -> None:
    if cost not in ("seconds", "joules"):
        raise GraphError(f"cost={cost!r} is none of the three.", todo="Write 'macs', 'seconds' or 'joules'.")
    if returns != "logits" or any(given is not None for given in macs):
        raise GraphError(
            f"the cost is metered in {cost}, and MACs are told or declared beside it.",
            why="One box has one cost: measured and counted ones are never mixed.",
            todo="Write returns='logits' and leave min_macs, max_macs and macs_full out, or leave cost out.",
        )
    if max_cost is not None and not (math.isfinite(max_cost) and max_cost > 0):
        raise GraphError(f"max_cost={max_cost!r} is no cost.", todo=f"Give {cost} of one input, above zero.")


def _source(fn: Callable[..., Any]) -> str:
    """SHA-256 of a function's text; of its name where there is none."""
    try:
        text = inspect.getsource(fn if inspect.isfunction(fn) or inspect.ismethod(fn) else type(fn))
    except (OSError, TypeError):
        text = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
    return hashlib.sha256(text.encode()).hexdigest()
