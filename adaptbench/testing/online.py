"""What every policy with state across samples must hold to.

Subclass in a test file and say how yours is made::

    class TestMyBandit(OnlineConformance):
        def make(self, log):
            return MyBandit(mu=0.2)

pytest collects the checks; they run on a small graph with planted classes.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import torch

from adaptbench.adaptive.constructors import NetworkDag
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.online import (
    OnlinePolicy,
    OnlineRecord,
    over_orders,
    run_online,
    run_online_on_model,
    shuffled,
)
from adaptbench.adaptive.outcome import seeds_from_content
from adaptbench.adaptive.policy import Policy
from adaptbench.testing.planted import Graph, planted_graph, planted_split

_WINDOW = 16


class OnlineConformance:
    """The contract of a policy with state, one check each.

    Attributes:
        graph: "chain", or "dag" for a policy that chooses between several ways on.
        looks: the policy runs nodes beyond the exit on this stream, and pays.
    """

    graph: ClassVar[Graph] = "chain"
    looks: ClassVar[bool] = False

    @abstractmethod
    def make(self, log: CalibrationLog) -> OnlinePolicy:
        """A fresh one, its settings from the log; called for every run."""

    def _given(self) -> tuple[NetworkDag, CalibrationLog]:
        kept: tuple[NetworkDag, CalibrationLog] | None = type(self).__dict__.get("_kept")
        if kept is None:
            net = planted_graph(self.graph)
            kept = (net, net.log(planted_split()))
            type(self)._kept = kept  # type: ignore[attr-defined]
        return kept

    def _run(self, online: OnlinePolicy | None = None, window: int = _WINDOW, **settings: Any) -> OnlineRecord:
        log = self._given()[1]
        online = self.make(log) if online is None else online
        return run_online(online, log, window=window, **{"order": shuffled(len(log), 7), **settings})

    # ------------------------------------------------------------------ the checks

    def test_it_describes_itself(self) -> None:
        """Settings and memory go into records: plain JSON, before and after a stream."""
        log = self._given()[1]
        online = self.make(log)
        assert isinstance(online, OnlinePolicy), "make() returns an OnlinePolicy"
        assert online.name not in ("", "online"), "give the class a name of its own: it stands in every record"
        settings = json.dumps(online.describe(), allow_nan=False)
        record = self._run(online)
        assert json.loads(json.dumps(record.state, allow_nan=False)) == record.state, (
            "the memory changes on its way through JSON: keep numbers, strings, lists and dicts in it"
        )
        assert json.dumps(online.describe()) == settings, "describe() changed with the stream: that belongs in memory"
        assert (online.knob is None) == (online.knob_value is None), "knob and knob_value go together"

    def test_asking_changes_nothing(self) -> None:
        """policy(), looking() and knob_value only read the memory."""
        online = self.make(self._given()[1])
        self._run(online)
        before = online.state()
        first, again = online.policy(), online.policy()
        assert isinstance(first, Policy), "policy() returns a Policy"
        assert first.describe() == again.describe(), "two calls of policy() differ"
        a, b = online.looking(9), online.looking(9)
        assert (a is None) == (b is None), "two calls of looking() differ"
        assert a is None or b is None or torch.equal(a, b), "two calls of looking() differ"
        assert online.state() == before, "asking for the policy in force changed the memory"

    def test_reset_gives_the_same_run(self) -> None:
        """Twice the same stream: twice the same record, on one object, a new one, or under other random state."""
        online = self.make(self._given()[1])
        first = self._run(online)
        same(first, self._run(online), "a second run after reset")
        with torch.random.fork_rng():
            torch.manual_seed(999)
            same(first, self._run(), "a run of a fresh policy under another global seed")

    def test_state_and_copies(self) -> None:
        """Half a stream, kept as JSON, set into a fresh policy: the other half is that of an uninterrupted run."""
        log = self._given()[1]
        order = shuffled(len(log), 7)
        cut = len(order) // 2 // _WINDOW * _WINDOW
        whole = self._run()
        online = self.make(log)
        self._run(online, order=order[:cut])
        kept, twin = json.loads(json.dumps(online.state())), online.copy()
        rest = self._run(online, order=order[cut:], resume=True)
        assert torch.equal(rest.exit, whole.exit[cut:]), "going on after half a stream gives another second half"
        same(rest, self._run(twin, order=order[cut:], resume=True), "a copy, after the original went on")
        fresh = self.make(log)
        fresh.bind(log.structure, log.node_costs)
        fresh.restore(kept)
        same(rest, self._run(fresh, order=order[cut:], resume=True), "a policy restored from its state")

    def test_the_order_is_kept(self) -> None:
        """Each record holds its own order; several shuffles give one record each."""
        log = self._given()[1]
        records = over_orders(lambda: self.make(log), log, orders=(1, 2, 3), window=_WINDOW)
        assert len(records) == 3
        for seed, record in zip((1, 2, 3), records, strict=True):
            assert torch.equal(record.order, shuffled(len(log), seed)), "the order in the record is not that of the run"
            assert torch.equal(record.order.sort().values, torch.arange(len(log))), "some sample is missing"

    def test_no_labels_are_read(self) -> None:
        """Labels shuffled: the same decisions, unless the class says `needs_labels`."""
        log = self._given()[1]
        if self.make(log).needs_labels:
            return
        false = replace(log, labels=log.labels[shuffled(len(log), 3)])
        order = shuffled(len(log), 7)
        a = run_online(self.make(log), log, order=order, window=_WINDOW)
        b = run_online(self.make(false), false, order=order, window=_WINDOW)
        same(a, b, "the run under false labels")

    def test_looking_is_paid(self) -> None:
        """What is paid = Σ path · increments; what lies beyond the exit stands apart in `looking`."""
        log = self._given()[1]
        record = self._run()
        beyond = record.path & (torch.arange(record.path.shape[1]) > record.exit[:, None])
        assert torch.allclose(record.cost, record.path.double() @ log.node_costs), "some node that ran was not paid"
        assert torch.allclose(record.looking, beyond.double() @ log.node_costs), "looking is not what ran past the exit"
        assert bool(record.looked.any()) == self.looks, (
            f"looks = {self.looks}, and {int(record.looked.sum())} samples ran beyond their exit"
        )

    def test_the_answer_is_that_of_the_exit(self) -> None:
        """Looking teaches the policy; it does not change what was returned."""
        log = self._given()[1]
        record = self._run()
        online = self.make(log)
        online.bind(log.structure, log.node_costs)
        if online.policy().uses_history:
            return
        assert torch.equal(record.logits, log.logits[record.order, record.exit]), "an answer is not that of its exit"

    def test_replay_is_what_runs(self) -> None:
        """On logged logits and on the model: the same exits, paths, costs and knob, sample by sample, up to a tie."""
        net, log = self._given()
        x = planted_split("test").images()
        order = shuffled(len(x), 5)
        own = net.policy
        executed = run_online_on_model(self.make(log), net, x, order=order, window=_WINDOW)
        assert net.policy is own, "the model's own policy is not back"
        again = run_online(
            self.make(log),
            net.dense_logits(x).detach(),
            net.structure,
            torch.tensor(net.node_macs),
            order=order,
            window=_WINDOW,
            seeds=seeds_from_content(x),
        )
        ties = (executed.tie | again.tie).nonzero().flatten()
        until = len(order) if not len(ties) else int(ties[0]) // _WINDOW * _WINDOW
        assert until > 0, "the first window holds a tie: nothing can be compared"
        for part in ("exit", "path", "cost", "looking", "prediction"):
            a, b = getattr(executed, part)[:until], getattr(again, part)[:until]
            assert torch.equal(a, b), f"'{part}' differs between replay and the model"
        windows = until // _WINDOW
        assert executed.knob[:windows] == again.knob[:windows], "the knob differs between replay and the model"

    def test_any_window_works(self) -> None:
        """One sample at a time, a ragged last window, everything at once."""
        log = self._given()[1]
        for window, n in ((1, 60), (7, 60), (len(log), len(log))):
            record = self._run(window=window, order=shuffled(len(log), 7)[:n])
            assert len(record) == n, f"windows of {window} lost samples"
            assert len(record.knob) == -(-n // window), f"windows of {window}: the knob has gaps"
            assert torch.isfinite(record.cost).all(), "a cost is not finite"


def same(a: OnlineRecord, b: OnlineRecord, what: str) -> None:
    """Assert that two records hold the same run.

    Raises:
        AssertionError: some part differs; the message names it.
    """
    for part in ("order", "exit", "path", "cost", "looking", "logits"):
        assert torch.equal(getattr(a, part), getattr(b, part)), f"{what}: '{part}' differs"
    assert a.knob == b.knob, f"{what}: the knob differs"
    assert a.state == b.state, f"{what}: the memory at the end differs"


def check_online(make: Any, *, graph: Graph = "chain", looks: bool = False) -> None:
    """Every check of `OnlineConformance` on one way of making.

    Args:
        make: CalibrationLog → OnlinePolicy.
        graph, looks: as on the class.

    Raises:
        AssertionError: a rule is broken; the message names it.
    """
    kit = type("Check", (OnlineConformance,), {"make": lambda _self, log: make(log), "graph": graph, "looks": looks})()
    for name in vars(OnlineConformance):
        if name.startswith("test_"):
            getattr(kit, name)()
