"""What every policy must hold to.

Subclass in a test file and say how yours is fitted::

    class TestMyPolicy(PolicyConformance):
        def fit(self, log):
            return MyPolicy.fit(log, price=0.5)

pytest collects the checks; they run on a small graph with planted classes.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from contextlib import suppress
from typing import Any, ClassVar

import torch
from torch import Tensor

from adaptbench.adaptive.constructors import NetworkDag
from adaptbench.adaptive.counting import counting
from adaptbench.adaptive.log import CalibrationLog, EvaluationLog
from adaptbench.adaptive.outcome import Signals, seeds_from_content, signals_at
from adaptbench.adaptive.policy import NeverStop, Policy
from adaptbench.adaptive.replay import evaluate_on, replay
from adaptbench.errors import CalibrationError, CapabilityError, LeakageError, PolicyError
from adaptbench.testing.models import check_model
from adaptbench.testing.planted import Graph, planted_graph, planted_split


class PolicyConformance:
    """The contract of a policy, one check each.

    Attributes:
        graph: "chain", or "dag" for a policy that chooses between several ways on.
        another_setting: a second value of the run-time knob, for policies that have one.
        follows_input: False for a policy whose decisions do not depend on the picture by design.
    """

    graph: ClassVar[Graph] = "chain"
    another_setting: ClassVar[float | None] = None
    follows_input: ClassVar[bool] = True

    @abstractmethod
    def fit(self, log: CalibrationLog) -> Policy:
        """Your policy, fitted on the log; called once for most checks."""

    def _given(self) -> tuple[NetworkDag, CalibrationLog]:
        kept: tuple[NetworkDag, CalibrationLog] | None = type(self).__dict__.get("_kept")
        if kept is None:
            net = planted_graph(self.graph)
            log = net.log(planted_split())
            net.policy = self.fit(log)
            kept = (net, log)
            type(self)._kept = kept  # type: ignore[attr-defined]
        return kept

    def _policy(self) -> Policy:
        return self._given()[0].policy

    # ------------------------------------------------------------------ the checks

    def test_it_describes_itself(self) -> None:
        """Settings go into records and checkpoints: plain JSON; tensors there are finite."""
        policy = self._policy()
        assert isinstance(policy, Policy), "fit() returns a Policy"
        assert policy.name not in ("", "policy"), "give the class a name of its own: it stands in every record"
        json.dumps(policy.describe(), allow_nan=False)
        for name, tensor in policy.state_dict().items():
            assert torch.isfinite(tensor).all(), f"'{name}' holds NaN or infinity; checkpoints refuse that"
        assert (policy.knob is None) == (policy.knob_value is None), "knob and knob_value go together"

    def test_scores_are_one_an_action(self) -> None:
        """(n, 1 + ways on), finite, and a sample's scores do not depend on its batch."""
        net, log = self._given()
        policy = net.policy
        if policy.needs_labels:
            return
        for v, ways in enumerate(net.structure.successors):
            if not ways:
                continue
            with torch.no_grad():
                scores = policy.scores(v, _signals(net, log.logits, v))
                alone = torch.cat([policy.scores(v, _signals(net, log.logits[i : i + 1], v, i)) for i in range(20)])
            assert scores.shape == (len(log), 1 + len(ways)), f"scores at node {v} are {tuple(scores.shape)}"
            assert torch.isfinite(scores).all(), f"scores at node {v} are not finite"
            gap = float((scores[:20] - alone).abs().max())
            assert gap < 1e-4, f"scores at node {v} change by {gap:.3g} with the batch around a sample"

    def test_scores_have_gradients(self) -> None:
        """White-box attacks push margins: gradients reach the logits, finite, not zero everywhere."""
        net, log = self._given()
        policy = net.policy
        if policy.needs_labels or policy.draws or not self.follows_input:
            return
        for v in net.structure.deciders:
            logits = log.logits.clone().requires_grad_()
            scores = policy.scores(v, _signals(net, logits, v))
            assert scores.requires_grad, f"scores at node {v} have no gradient: was something detached or rounded?"
            weights = torch.linspace(-1, 1, scores.numel()).view_as(scores)
            (gradient,) = torch.autograd.grad((scores * weights).sum(), logits)
            assert torch.isfinite(gradient).all(), f"the gradient at node {v} is not finite"
            assert (gradient != 0).any(), f"the gradient at node {v} is zero everywhere"

    def test_replay_is_what_runs(self) -> None:
        """Decisions replayed on logged logits are those of the hard pass, ties aside."""
        net, _ = self._given()
        if net.policy.needs_labels:
            return
        x = planted_split("test").images()
        inference = net.infer(x)
        again = replay(net.policy, net.structure, net.dense_logits(x).detach(), seeds=seeds_from_content(x))
        differ = (inference.path != again.path).any(1) & ~(inference.tie | again.tie)
        assert not differ.any(), f"{int(differ.sum())} samples take another way when replayed"

    def test_the_knob_leaves_the_original_alone(self) -> None:
        """at() gives another policy; the one in force keeps its scores."""
        net, log = self._given()
        policy = net.policy
        if policy.knob is None:
            return
        assert self.another_setting is not None, f"give `another_setting`: a second value of the knob '{policy.knob}'"
        before, setting = _all_scores(net, log), policy.knob_value
        other = policy.at(self.another_setting)
        assert other is not policy, "at() returns a new policy"
        assert type(other) is type(policy), "at() returns a policy of the same kind"
        assert other.knob_value == self.another_setting, f"at({self.another_setting}) is at {other.knob_value}"
        assert policy.knob_value == setting, "at() changed the original's setting"
        assert torch.equal(before, _all_scores(net, log)), "at() changed the original's scores"
        assert not torch.equal(before, _all_scores(net, log, other)), "another setting gives the same scores"
        with torch.no_grad():
            for tensor in (*other.parameters(), *other.buffers()):
                tensor.zero_()
        assert torch.equal(before, _all_scores(net, log)), "at() shares tensors with the original"

    def test_a_checkpoint_gives_it_back(self) -> None:
        """from_state(describe(), state_dict()) scores alike, after a trip through JSON."""
        net, log = self._given()
        policy = net.policy
        again = _rebuilt(policy)
        assert again.knob_value == policy.knob_value, "the knob's setting was lost"
        if not policy.needs_labels:
            assert torch.equal(_all_scores(net, log), _all_scores(net, log, again)), (
                "the rebuilt policy scores otherwise"
            )

    def test_binding_only_checks(self) -> None:
        """bind() keeps nothing of a graph, taken or refused: what a node knows is in its signals."""
        policy = _rebuilt(self._policy())  # one that saw no graph yet
        kept, settings = dict(vars(policy)), policy.describe()
        tensors = {name: t.clone() for name, t in policy.state_dict().items()}
        for shape in ("chain", "dag"):
            with suppress(PolicyError):
                policy.bind(planted_graph(shape).structure)
        now = vars(policy)
        changed = [name for name in kept.keys() | now.keys() if now.get(name) is not kept.get(name)]
        assert not changed, f"bind() wrote {', '.join(sorted(changed))}"
        assert policy.describe() == settings, "bind() changed the settings"
        for name, tensor in policy.state_dict().items():
            assert torch.equal(tensor, tensors[name]), f"bind() changed '{name}'"

    def test_a_net_is_put_under_it(self) -> None:
        """net.under(policy) shares the net's weights, decides alike, and leaves both as they were."""
        net, _ = self._given()
        policy, x = net.policy, planted_split("test", 40).images()
        twin = net.under(NeverStop()).under(policy)
        assert net.policy is policy, "the net's own policy was exchanged"
        assert all(a is b for a, b in zip(net.stages.parameters(), twin.stages.parameters(), strict=True)), (
            "the weights are not shared"
        )
        if not policy.needs_labels:
            assert torch.equal(net.infer(x).path, twin.infer(x).path), "the same policy takes other ways"

    def test_recosting_keeps_its_settings(self) -> None:
        """recosted() on the log it was fitted on is the same policy, up to what costs are estimated on."""
        net, log = self._given()
        policy, again = net.policy, net.policy.recosted(log)
        assert type(again) is type(policy), "recosted() returns a policy of the same kind"
        assert again.knob_value == policy.knob_value, "recosted() changed the knob's setting"
        for name, value in policy.describe().items():
            now = again.describe().get(name)
            near = isinstance(value, float) and isinstance(now, float) and math.isclose(value, now, rel_tol=0.05)
            assert now == value or near, f"recosted() changed '{name}' from {value} to {now}"

    def test_its_macs_are_counted(self) -> None:
        """What deciding costs is in policy_macs and in every sample's record."""
        net, log = self._given()
        policy = net.policy
        if policy.needs_labels:
            assert sum(net.policy_macs) == 0, "an oracle looks at labels; it costs nothing"
            return
        for v in net.structure.deciders:
            with counting() as counter:
                policy.scores(v, _signals(net, log.logits[:1], v))
            assert counter.macs == net.policy_macs[v], f"deciding at node {v} takes {counter.macs} MACs"
            assert not set(counter.uncounted) - set(net.uncounted), f"uncounted: {sorted(counter.uncounted)}"

    def test_it_is_fitted_on_calibration_logs_only(self) -> None:
        """A test split cannot be logged; fit() and family() take nothing but a calibration log."""
        net, log = self._given()
        test = planted_split("test")
        _raises(lambda: net.log(test), LeakageError, "logging the test split")
        _raises(
            lambda: CalibrationLog(log.logits, log.labels, log.structure, log.node_macs, "planted", "test", ""),
            LeakageError,
            "a log of test samples",
        )
        judging = EvaluationLog(log.logits, log.labels, log.structure, log.node_macs, "planted", "test", test.sha256)
        family: Any = type(net.policy).family
        if family.__qualname__ != Policy.family.__qualname__:
            _raises(lambda: family(judging), LeakageError, "family() on samples that judge")
        fit: Any = type(net.policy).fit
        if fit.__qualname__ != Policy.fit.__qualname__:
            _raises(lambda: fit(judging), LeakageError, "fit() on samples that judge")
            _raises(lambda: fit(test), CalibrationError, "fit() on a split")

    def test_fitting_is_a_function_of_the_log(self) -> None:
        """Twice the same log, whatever the global random state: twice the same policy; and the log is untouched."""
        net, log = self._given()
        kept = log.logits.clone()
        with torch.random.fork_rng():
            torch.manual_seed(12345)
            again = self.fit(log)
        assert torch.equal(log.logits, kept), "fitting changed the log"
        assert again.describe() == net.policy.describe(), "a second fit gave other settings"
        for name, tensor in net.policy.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), f"a second fit gave another '{name}'"

    def test_its_family_spans_the_range(self) -> None:
        """Where there is a family: at least three members, each of its kind and bound to the graph, cheap to dear."""
        net, log = self._given()
        try:
            members = type(net.policy).family(log)
        except CapabilityError:
            return
        assert len(members) >= 3, f"a family of {len(members)} draws no curve"
        costs = []
        for member in members:
            assert isinstance(member, Policy), "family() returns policies"
            member.bind(net.structure)
            json.dumps(member.describe(), allow_nan=False)
            costs.append(evaluate_on(member, log).cost_mean)
        assert max(costs) > min(costs), "every member of the family costs the same"
        again = type(net.policy).family(log)
        assert [evaluate_on(m, log).cost_mean for m in again] == costs, "a second family is another one"

    def test_a_model_under_it_keeps_the_laws(self) -> None:
        """The whole model kit, on the graph with this policy."""
        net, _ = self._given()
        check_model(net, planted_split("test", 40).images(), follows_input=self.follows_input)


def check_policy(
    fit: Any, *, graph: Graph = "chain", another_setting: float | None = None, follows_input: bool = True
) -> None:
    """Every check of `PolicyConformance` on one way of fitting.

    Args:
        fit: CalibrationLog → fitted policy.
        graph, another_setting, follows_input: as on the class.

    Raises:
        AssertionError: a rule is broken; the message names it.
    """
    settings = {
        "fit": lambda _self, log: fit(log),
        "graph": graph,
        "another_setting": another_setting,
        "follows_input": follows_input,
    }
    kit = type("Check", (PolicyConformance,), settings)()
    for name in vars(PolicyConformance):  # in the order they stand: the narrow checks first
        if name.startswith("test_"):
            getattr(kit, name)()


def _rebuilt(policy: Policy) -> Policy:
    """From its settings, after a trip through JSON, and its tensors."""
    tensors = {name: t.clone() for name, t in policy.state_dict().items()}
    return type(policy).from_state(json.loads(json.dumps(policy.describe())), tensors)


def _signals(net: NetworkDag, logits: Tensor, node: int, first: int = 0) -> Signals:
    """What the policy sees at a node by the way through every earlier one."""
    seeds = torch.arange(first, first + len(logits))
    return signals_at(logits, node, ways=net.structure.successors[node], seeds=seeds)


def _all_scores(net: NetworkDag, log: CalibrationLog, policy: Policy | None = None) -> Tensor:
    policy = policy or net.policy
    with torch.no_grad():
        return torch.cat([policy.scores(v, _signals(net, log.logits, v)) for v in net.structure.deciders], 1)


def _raises(call: Any, error: type[Exception], what: str) -> None:
    try:
        call()
    except error:
        return
    raise AssertionError(f"{what} was accepted; raise {error.__name__}")
