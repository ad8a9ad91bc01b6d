"""The kit finds what it is there to find: each planted fault breaks the check that names it."""

import dataclasses

import pytest
import torch
from random_models import CLASSES, SHAPE, RandomScores
from torch import nn

from adaptbench.adaptive import Block, DecisionGraph, FeedForwardGates, GatedNetwork, ImageDomain, MultiExit, Node
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.testing import ModelConformance, check_model
from adaptbench.testing.models import _prepare


class Fine(MultiExit):
    """Three exits; every fault below is a small change of it."""

    def __init__(self, stages=None, policy=None) -> None:
        torch.manual_seed(1)
        stages = stages or [nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh()), nn.Linear(6, 6), nn.Linear(6, 6)]
        policy = policy or RandomScores(3, history=False, chance=False, committee=False)
        super().__init__(stages, [nn.Linear(6, CLASSES) for _ in stages], input_shape=SHAPE, policy=policy)


class RunsEverything(Fine):
    def _run(self, x, **how):
        self.dense_logits(x)
        return super()._run(x, **how)


class ForgetsThePolicy(Fine):
    def _run(self, x, **how):
        inference = super()._run(x, **how)
        return dataclasses.replace(inference, macs=(inference.path * torch.tensor(self.node_macs)).sum(1))


class LooksAtTheBatch(Fine):
    def _run(self, x, **how):
        return super()._run((x - 0.5 * x.mean(0, keepdim=True)), **how)


class ReturnsAnotherExit(Fine):
    def _run(self, x, **how):
        return dataclasses.replace(super()._run(x, **how), logits=self.dense_logits(x)[:, -1])


class TurnsMarginsRound(Fine):
    def _relax(self, x, **how):
        relaxed = super()._relax(x, **how)
        return dataclasses.replace(relaxed, margins=-relaxed.margins)


class ForgetsCostsInExpectation(Fine):
    def _relax(self, x, **how):
        relaxed = super()._relax(x, **how)
        return dataclasses.replace(relaxed, expected_macs=relaxed.reach @ torch.tensor(self.node_macs).float())


class Detaches(RandomScores):
    def scores(self, node, signals):
        return super().scores(node, signals).detach()


class Divides(RandomScores):
    def scores(self, node, signals):
        return super().scores(node, signals) + (signals.logits - signals.logits).abs().sum(1, keepdim=True).sqrt()


class DrawsFromTheGlobalState(Fine):
    def _run(self, x, **how):
        torch.rand(1)
        return super()._run(x, **how)


class StaysInEvalMode(Fine):
    def infer(self, x, **how):
        self.eval()
        return super().infer(x, **how)


class CountsCalls(nn.Linear):
    def __init__(self, *sizes) -> None:
        super().__init__(*sizes)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, h):
        self.calls += 1
        return super().forward(h)


class DrawsByPosition(RandomScores):
    def scores(self, node, signals):
        noise = torch.rand(len(signals.logits), 2, generator=torch.Generator().manual_seed(node))
        return super().scores(node, signals) + 3 * noise


class IgnoresSeeds(RandomScores):
    draws = True

    def __init__(self, seed, **how) -> None:
        super().__init__(seed, **how)
        self.draws = True

    def scores(self, node, signals):
        signals.seeds = torch.zeros_like(signals.seeds)
        return super().scores(node, signals)


class UnderstatesItsWorst(Fine):
    @property
    def max_macs(self):
        return super().max_macs - 1


class OverstatesItsBest(Fine):
    @property
    def min_macs(self):
        return super().min_macs + 1


class HidesAPath(Fine):
    def paths(self):
        return [p for p in super().paths() if not p[-1]]


class IgnoresForce(Fine):
    def _decide(self, v, signals, force):
        return super()._decide(v, signals, None)


class TakesAnything(Fine):
    def __init__(self) -> None:
        super().__init__()

        class Anything(ImageDomain):
            def check(self, x):
                pass

        self.domain = Anything(SHAPE)


class LogsTheTestSplit(Fine):
    def log(self, split, *, chunk=1000):
        return CalibrationLog(torch.zeros(4, 3, 3), split.y, self.structure, torch.ones(3), "x", "calibration", "")


class FlattersTheReference(Fine):
    @property
    def macs_full(self):
        return super().macs_full * 2


class ReferenceRunsHeads(Fine):
    def run_reference(self, x):
        return self.dense_logits(x)[:, -1].detach()


class IsTimedOnAnotherPass(Fine):
    def serve(self, x, **how):
        return self.infer(x, force=self.paths()[0]).logits


class IsTimedOnMore(Fine):
    def serve(self, x, **how):
        self.dense_logits(x)
        return super().serve(x, **how)


class IsQueuedOnMore(Fine):
    def serve(self, x, full=None, **how):
        if full is not None:
            self.dense_logits(x)
        return super().serve(x, full=full, **how)


class IsTimedAgainstMore(Fine):
    def serve_reference(self, x):
        return self.dense_logits(x)[:, 0]


class HidesCompute(Fine):
    def _run(self, x, **how):
        torch.linalg.inv(torch.eye(2))
        return super()._run(x, **how)


class WritesIntoTheInput(Fine):
    def _run(self, x, **how):
        with torch.no_grad():
            x.data.mul_(0.999)
        return super()._run(x, **how)


class InPlace(nn.Module):
    """Works in place on batches only, so that one picture at construction does not show it."""

    def __init__(self, then=None) -> None:
        super().__init__()
        self.then = then or nn.Identity()

    def forward(self, h):
        return self.then(h.mul_(-0.5) if len(h) > 1 else h * -0.5)


class PastTorch(InPlace):
    def forward(self, h):
        if len(h) > 1:
            h.data.mul_(-0.5)
        return self.then(h)


class WritesLogits(RandomScores):
    def scores(self, node, signals):
        if len(signals.logits) > 1:
            signals.logits.mul_(2)
        return super().scores(node, signals)


def writing(where, kind=InPlace):
    """A graph of four nodes: b and c both read a's features, d the picture."""

    def make():
        torch.manual_seed(1)
        stages = {n: nn.Sequential(nn.Flatten(), nn.Linear(16, 6)) if n in "ad" else nn.Linear(6, 6) for n in "abcd"}
        heads = {n: nn.Linear(6, CLASSES) for n in "abcd"}
        if where.startswith("stage"):
            stages[where[-1]] = kind(stages[where[-1]])
        elif where.startswith("head"):
            heads[where[-1]] = kind(heads[where[-1]])
        to = {"a": ("b", "c", "d"), "b": ("c", "d"), "c": ("d",), "d": ()}
        reads = {"a": "input", "b": "a", "c": "a", "d": "input"}
        nodes = [Node(n, stages[n], heads[n], reads=reads[n], to=to[n]) for n in "abcd"]
        settings = {"history": False, "chance": False, "committee": False}
        policy = (WritesLogits if where == "policy" else RandomScores)(3, **settings)
        return DecisionGraph(nodes, domain=ImageDomain(SHAPE), n_classes=CLASSES, policy=policy)

    return make


def writing_blocks(where):
    def make():
        torch.manual_seed(0)
        parts = {
            "stem": nn.Conv2d(1, 2, 3, padding=1),
            "body": nn.Conv2d(2, 2, 3, padding=1),
            "shortcut": nn.Identity(),
            "gate": nn.Sequential(nn.Flatten(), nn.Linear(32, 1)),
        }
        if where != "nowhere":
            parts[where] = InPlace(parts[where])
        return GatedNetwork(
            stem=parts["stem"],
            blocks=[Block("a", parts["body"], parts["shortcut"]), Block("b", nn.Conv2d(2, 2, 3, padding=1))],
            head=nn.Sequential(nn.Flatten(), nn.Linear(32, CLASSES)),
            gates=FeedForwardGates([parts["gate"], nn.Sequential(nn.Flatten(), nn.Linear(32, 1))]),
            domain=ImageDomain(SHAPE),
            n_classes=CLASSES,
        )

    return make


@pytest.mark.parametrize(
    ("make", "fine"),
    [
        *((writing(where), writing("nowhere")) for where in ("stage a", "stage b", "stage d", "head a", "policy")),
        *((writing(where, PastTorch), writing("nowhere")) for where in ("stage a", "stage b", "stage d", "head a")),
        *((writing_blocks(where), writing_blocks("nowhere")) for where in ("stem", "body", "shortcut", "gate")),
    ],
)
def test_writing_in_place_is_found_wherever_it_happens(make, fine):
    run_check(fine(), "writes_into")
    with pytest.raises(AssertionError, match=r"writes into|wrote into|on copies"):
        run_check(make(), "writes_into")


def with_policy(kind, **how):
    settings = {"history": False, "chance": False, "committee": False} | how
    return lambda: Fine(policy=kind(3, **settings))


def counting_stage():
    return Fine(stages=[nn.Sequential(nn.Flatten(), nn.Linear(16, 6)), CountsCalls(6, 6), nn.Linear(6, 6)])


FAULTS = {
    "what is skipped runs": (RunsEverything, "what_is_skipped"),
    "compute outside the records": (RunsEverything, "dispatcher_saw"),
    "policy MACs forgotten": (ForgetsThePolicy, "sum_over_the_path"),
    "policy MACs forgotten, at the dispatcher": (ForgetsThePolicy, "dispatcher_saw"),
    "samples touch each other": (LooksAtTheBatch, "no_sample_touches"),
    "another exit's answer": (ReturnsAnotherExit, "choosing_afterwards"),
    "margins turned round": (TurnsMarginsRound, "sign_of_the_decisions"),
    "policy left out of the expectation": (ForgetsCostsInExpectation, "become_the_executed"),
    "margins detached": (with_policy(Detaches), "gradients_reach"),
    "gradient not finite": (with_policy(Divides), "gradients_reach"),
    "global random state used": (DrawsFromTheGlobalState, "nothing_is_left_changed"),
    "left in eval mode": (StaysInEvalMode, "nothing_is_left_changed"),
    "buffer written": (counting_stage, "nothing_is_left_changed"),
    "input written": (WritesIntoTheInput, "nothing_is_left_changed"),
    "draws by place in the batch": (with_policy(DrawsByPosition), "order_of_a_batch"),
    "seeds ignored": (with_policy(IgnoresSeeds, chance=True), "chance_follows"),
    "dearest path understated": (UnderstatesItsWorst, "between_the_extremes"),
    "cheapest path overstated": (OverstatesItsBest, "between_the_extremes"),
    "a node on no path": (HidesAPath, "cover_every_node"),
    "forced path not taken": (IgnoresForce, "are_followed"),
    "domain not checked": (TakesAnything, "outside_the_domain"),
    "test split logged": (LogsTheTestSplit, "test_split"),
    "reference cost wrong": (FlattersTheReference, "static_reference"),
    "reference runs every head": (ReferenceRunsHeads, "static_reference"),
    "another pass is timed": (IsTimedOnAnotherPass, "serving_is"),
    "more is timed than runs": (IsTimedOnMore, "serving_is"),
    "more is queued than runs": (IsQueuedOnMore, "serving_is"),
    "another reference is timed": (IsTimedAgainstMore, "serving_is"),
    "uncounted operator not named": (HidesCompute, "dispatcher_saw"),
}


def run_check(model, part: str) -> None:
    (name,) = [n for n in dir(ModelConformance) if n.startswith("test_") and part in n]
    kit = type("Kit", (ModelConformance,), {"_kept": _prepare(model, None, 32)})()
    getattr(kit, name)()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault):
    make, check = FAULTS[fault]
    run_check(Fine(), check)  # the check passes where nothing is planted
    with pytest.raises(AssertionError):
        run_check(make(), check)


def two_blocks(channels, gates, kind=GatedNetwork):
    torch.manual_seed(0)
    return kind(
        stem=nn.Conv2d(1, channels, 3, padding=1),
        blocks=[Block(name, nn.Conv2d(channels, channels, 3, padding=1)) for name in "ab"],
        head=nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, CLASSES)),
        gates=gates([nn.Sequential(nn.Flatten(), nn.Linear(16 * channels, 1)) for _ in range(2)]),
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    )


def test_a_gate_that_masks_instead_of_skipping_is_found():
    """SkipNet as most repositories run it: every body on everybody, multiplied by 0 or 1."""

    class Masks(GatedNetwork):
        def _run(self, x, **how):
            self.gated_forward(x)
            return super()._run(x, **how)

    made = [two_blocks(2, FeedForwardGates, kind) for kind in (GatedNetwork, Masks)]
    run_check(made[0], "what_is_skipped")
    with pytest.raises(AssertionError, match="what is skipped must not run"):
        run_check(made[1], "what_is_skipped")


def test_gates_that_claim_to_plan_and_look_at_features_are_found():
    class Claims(FeedForwardGates):
        plans = True

    # of one channel features have the form of the picture, so that nothing else gives it away
    made = [two_blocks(1, gates) for gates in (FeedForwardGates, Claims)]
    run_check(made[0], "sign_of_the_decisions")
    with pytest.raises(AssertionError, match="change where the last exit is left out"):
        run_check(made[1], "sign_of_the_decisions")


def test_check_model_runs_every_check():
    check_model(Fine())
    with pytest.raises(AssertionError, match="dispatcher saw"):
        check_model(HidesCost())


class HidesCost(Fine):
    def _run(self, x, **how):
        x @ torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
        return super()._run(x, **how)


def test_the_kit_never_collects_itself():
    assert not ModelConformance.__name__.startswith("Test")
