"""A net of which only the answers come out: a function, a service, a module that nobody can cut."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from adaptbench.adapters.examples import domain_of, probes_like
from adaptbench.adaptive import AdaptiveModel, Inference, MacCounter, Relaxation, Split
from adaptbench.adaptive.domain import Domain
from adaptbench.adaptive.foreign import runs
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.parts import Lap, no_lap
from adaptbench.errors import CapabilityError, GraphError

Returns = Literal["logits, macs", "logits"]
_PROBES = 8


class BlackBox(AdaptiveModel):
    """Answers and what they cost; nothing is known of exits, paths or gradients.

    It goes where only answers are asked for: clean and attacked figures, attacks that query, transfer from another
    net, meters, the page and the gate. Policies, gradients and a count of what a static net would do are refused.

    Args:
        fn: pictures (n, C, H, W), or token ids (n, L), → logits (n, C), or (logits, macs (n,)).
        example: (n, C, H, W), or ids (n, L): its shape and type.
        macs_full: MACs of a sample that the saving is a share of, as of the net when nothing is left out.
        returns: "logits, macs": fn says what each sample cost; "logits": MACs are counted while fn runs on one sample
            at a time, so fn must be torch in this process.
        reference: pictures → logits of the static net, for timing; None: there is none.
        min_macs, max_macs: what a sample may cost; anything else that comes back is an error.
        bounds: of the input values, of pictures. domain: of ids, a `TokenDomain`: they do not say their vocabulary.

    Raises:
        GraphError: fn gives something else, draws, mixes the samples of a batch, or nothing can be counted.

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
        macs_full: int,
        returns: Returns = "logits, macs",
        reference: Callable[[Tensor], Tensor] | None = None,
        min_macs: int = 0,
        max_macs: int | None = None,
        bounds: tuple[float, float] = (0.0, 1.0),
        domain: Domain | None = None,
    ) -> None:
        super().__init__()
        if returns not in ("logits, macs", "logits"):
            raise GraphError(f"returns={returns!r} is none of the two forms.", todo="Write 'logits, macs' or 'logits'.")
        most = macs_full if max_macs is None else max_macs
        if not 0 <= min_macs <= most or macs_full <= 0:
            raise GraphError(
                f"min_macs={min_macs}, max_macs={most}, macs_full={macs_full} do not fit together.",
                todo="Give 0 ≤ min_macs ≤ max_macs, and macs_full > 0: savings are shares of it.",
            )
        self.fn, self.returns, self.reference = fn, returns, reference
        self.source_sha256 = _source(fn)  # part of what records hang on
        self.domain = domain_of(example, bounds, domain)
        self.node_names = self.exit_names = ("box",)
        self.capabilities = frozenset({"queries"})
        self._full, self._least, self._most = int(macs_full), int(min_macs), int(most)
        self._unknown: set[str] = set()
        x = probes_like(next(self.parameters(), torch.zeros((), dtype=example.dtype)), self.domain, _PROBES)
        self.n_classes = 0
        with self.serving():
            logits, macs = self._answered(x)
            self.n_classes = int(logits.shape[1])
            self._look(x, logits, macs)

    def _look(self, x: Tensor, logits: Tensor, macs: Tensor) -> None:
        """Refuse what is no function of one sample."""
        again = self._answered(x)
        alone = [self._answered(x[i : i + 1]) for i in range(len(x))]
        close = 1e-4 * max(1.0, float(logits.abs().max()))
        for what, other in (
            ("when called again", again),
            ("to a picture alone", (torch.cat([z for z, _ in alone]), torch.cat([m for _, m in alone]))),
        ):
            if (other[0] - logits).abs().max() > close or not torch.equal(other[1], macs):
                raise GraphError(
                    f"the black box gives other logits or costs {what}.",
                    why="Figures of a sample must be those of the sample, not of a draw or of its neighbours.",
                    todo="Fix its seed, put it in eval mode, or let fn go through the samples one by one.",
                )
        if self.returns == "logits" and not macs.any():
            raise GraphError(
                "no MACs were counted while the black box ran.",
                why="What runs outside torch or in another process is not seen, and a cost of zero would be a lie.",
                todo="Let fn say what each sample cost: returns='logits, macs'.",
            )

    def _answered(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, C) logits and (n,) int64 MACs."""
        with runs("the black box"):
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
        self._check(x, logits, macs)
        return logits, torch.as_tensor(macs).to(logits.device, torch.float64).round().to(torch.int64)

    def _counted_one(self, x: Tensor) -> tuple[Tensor, int]:
        with MacCounter() as counter:
            logits = self.fn(x)
        self._unknown |= set(counter.uncounted)
        return logits, counter.macs

    def _check(self, x: Tensor, logits: Any, macs: Any) -> None:
        classes = self.n_classes or (logits.shape[1] if isinstance(logits, Tensor) and logits.ndim == 2 else 0)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (len(x), classes) or not classes:
            seen = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise GraphError(
                f"the black box gave {seen} as logits of {len(x)} pictures, not (n, C).",
                todo="Return one row of class scores a picture.",
            )
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

    def _run(self, x: Tensor, *, seeds: Tensor | None, labels: Tensor | None, force: Tensor | None) -> Inference:
        if force is not None and not bool(force.all()):
            raise CapabilityError("a black box takes no forced path.", todo="Leave force out.")
        n = len(x)
        logits, macs = self._answered(self.entered(x))
        path = torch.ones(n, 1, dtype=torch.bool, device=x.device)
        return Inference(logits, macs, torch.zeros(n, dtype=torch.int64, device=x.device), path, ~path[:, 0])

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
        return (self._most,)

    @property
    def min_macs(self) -> int:
        """As declared."""
        return self._least

    @property
    def max_macs(self) -> int:
        """As declared."""
        return self._most

    @property
    def macs_full(self) -> int:
        """As declared."""
        return self._full

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


def _source(fn: Callable[..., Any]) -> str:
    """SHA-256 of a function's text; of its name where there is none."""
    try:
        text = inspect.getsource(fn if inspect.isfunction(fn) or inspect.ismethod(fn) else type(fn))
    except (OSError, TypeError):
        text = f"{getattr(fn, '__module__', '')}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"
    return hashlib.sha256(text.encode()).hexdigest()
