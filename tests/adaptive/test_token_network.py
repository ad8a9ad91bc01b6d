"""Nets whose tokens leave: the laws on random ones, costs in closed form, and what they refuse."""

import dataclasses
import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from adaptbench.adaptive import CumulativeHalting, ImageDomain, TokenNetwork, TokenRule
from adaptbench.errors import CapabilityError, GraphError, UsageError
from adaptbench.models.vit import FirstFeature, TokenBlock, halting_vit
from adaptbench.testing import check_model
from adaptbench.testing.models import kit_of
from adaptbench.zoo.training.tokens import halted_at_share, ponder_cost, settle

SHAPE, CLASSES, WIDTH = (1, 4, 4), 3, 8
few = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


class Patches(nn.Module):
    """Every `size` pixels a token, behind a class token; some noise keeps tokens apart."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count, self.layer = count, nn.Linear(16 // count, WIDTH)
        self.first = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(torch.randn(1, count, WIDTH))

    def forward(self, x):
        tokens = self.layer(3 * x.reshape(len(x), self.count, -1)) + self.positions
        return torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)


class ByThreshold(TokenRule):
    """Each block asks anew: a token that was near to leaving may be far from it later."""

    name = "threshold"

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(nn.Linear(WIDTH, 1) for _ in range(blocks))

    def margin(self, block, tokens, state):
        return self.scores[block](tokens).squeeze(-1) + 0.4, None


def token_net(seed: int = 0, tokens: int = 8, blocks: int = 3, rule: str = "halting", block=TokenBlock, **parts):
    torch.manual_seed(seed)
    if rule == "halting":
        scores = [nn.Linear(WIDTH, 1) for _ in range(blocks - 1)]
        for score in scores:  # far apart, so that few decisions are ties
            score.weight.data.mul_(6)
        rule = CumulativeHalting(scores, epsilon=0.05)
    elif rule == "threshold":
        rule = ByThreshold(blocks - 1)
    return parts.pop("kind", TokenNetwork)(
        stem=parts.get("stem", Patches(tokens)),
        blocks=[block(WIDTH, 2, 2) for _ in range(blocks)],
        head=nn.Linear(WIDTH, CLASSES),
        rule=rule,
        domain=ImageDomain(SHAPE),
        n_classes=CLASSES,
    ).eval()


@few
@given(st.integers(0, 99), st.sampled_from([2, 4, 8, 16]), st.integers(2, 4), st.sampled_from(["halting", "threshold"]))
def test_every_token_network_keeps_the_laws(seed, tokens, blocks, rule):
    check_model(token_net(seed, tokens, blocks, rule), n_inputs=9)


@pytest.mark.parametrize("defence", [("quantise", {"levels": 4}), ("smooth", {"kind": "mean"})])
def test_a_token_network_keeps_the_laws_behind_a_defence(defence):
    check_model(token_net().defended(defence[0], **defence[1]), n_inputs=9)


def test_laws_of_a_net_that_works_in_place_at_its_entrance():
    class InPlace(Patches):
        def forward(self, x):
            return super().forward(x.mul_(0.5))

    check_model(token_net(stem=InPlace(8)), n_inputs=9)


def test_costs_in_closed_form():
    """Per block: 12 d² (with ratio 2: 8 d²) a token and 2 k² d of attention; d a token for each score."""
    net, d, k = token_net(), WIDTH, 9
    block = {n: (4 + 2 * 2) * d * d * n + 2 * n * n * d for n in range(k + 1)}
    stem, head = 8 * 2 * d, d * CLASSES
    assert net.macs_full == stem + 3 * block[9] + head
    assert net.max_macs == net.macs_full + 2 * 8 * d
    assert net.min_macs == stem + block[9] + 8 * d + 2 * block[1] + head
    half = next(path for path in net.paths() if path[1:-1].view(3, 8).sum(1).tolist() == [8, 4, 4])
    macs = net.infer(torch.rand(2, *SHAPE), force=half).macs
    assert macs.tolist() == [stem + block[9] + 8 * d + block[5] + 4 * d + block[5] + head] * 2


def test_expected_macs_are_the_expectation_over_which_tokens_are_left():
    """All ways that 2 tokens can take through 3 blocks, by the chances of each."""
    net = token_net(tokens=2)
    x = torch.rand(5, *SHAPE)
    relaxed = net.relax(x, temperature=0.7)
    there = relaxed.reach[:, 1:-1].reshape(5, 3, 2)
    wanted = torch.zeros(5)
    for ends in itertools.product(range(1, 4), repeat=2):  # blocks that each token runs in
        chance = torch.ones(5)
        on = torch.zeros(2, 2, dtype=torch.bool)
        for t, end in enumerate(ends):
            after = there[:, end, t] if end < 3 else torch.zeros(5)
            chance = chance * (there[:, end - 1, t] - after)
            on[: end - 1, t] = True
        wanted += chance * net.macs_of(on.flatten()[None])
    assert torch.allclose(relaxed.expected_macs, wanted, rtol=1e-5)


def test_rows_of_a_batch_lose_different_tokens_and_none_is_padded():
    net, x = token_net(seed=3), torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(1))
    counts = net.infer(x).path[:, 1:-1].view(32, 3, 8).sum(2)
    assert len(counts[:, 1].unique()) > 2
    assert (counts[:, 0] == 8).all()
    assert len(net.infer(x).macs.unique()) > 2


def test_halting_of_the_paper_reads_the_first_feature():
    rule = CumulativeHalting([FirstFeature(10.0, -3.0)] * 2)
    tokens = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(2))
    first, total = rule.margin(0, tokens, None)
    second, after = rule.margin(1, tokens, total)
    h = torch.sigmoid(10 * tokens[..., 0] - 3)
    assert torch.allclose(first, 0.99 - h)
    assert torch.allclose(second, 0.99 - 2 * h)
    assert torch.equal(after, 2 * total)


def test_a_path_on_which_a_token_comes_back_is_refused():
    net = token_net()
    path = net.paths()[0].clone()
    path[1 + 2 * 8] = True  # in the third block, not in the second
    with pytest.raises(CapabilityError, match="does not come back"):
        net.infer(torch.rand(2, *SHAPE), force=path)


class Blind(TokenBlock):
    """Takes `seen` and looks at everybody all the same."""

    def forward(self, h, seen=None):
        return super().forward(h)


class Windowed(TokenBlock):
    """Looks at no more than three tokens, so that its cost is no square of their number."""

    def forward(self, h, seen=None):
        return torch.cat([super(Windowed, self).forward(part) for part in h.split(3, 1)], 1)


class Shrinks(TokenBlock):
    def forward(self, h, seen=None):
        return super().forward(h)[:, 1:]


class Writes(TokenRule):
    def margin(self, block, tokens, state):
        return tokens.mul_(2)[..., 0], None


class Flat(TokenRule):
    def margin(self, block, tokens, state):
        return tokens[:, 0], None


class Pays(TokenRule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def margin(self, block, tokens, state):
        return tokens[..., 0] + 0 * self.layer(tokens[:, :1])[..., 0], None


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ({"block": Blind}, "hidden from it than where they are gone"),
        ({"block": Windowed}, "does not follow from"),
        ({"block": Shrinks}, "block 1 gave"),
        ({"rule": Writes()}, "works in place on features that the next block reads"),
        ({"rule": Flat()}, "gave margins"),
        ({"rule": Pays()}, "the rule after block 1 costs"),
        ({"rule": TokenRule()}, "gives no margin"),
        ({"stem": nn.Flatten()}, "the stem returned"),
        ({"blocks": 1}, "a net of 1 blocks"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_net_is_built(how, seen):
    with pytest.raises((GraphError, CapabilityError), match=seen):
        token_net(**how)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -1.0])
def test_an_epsilon_that_never_or_always_halts_is_refused(epsilon):
    with pytest.raises(UsageError, match="halting score"):
        CumulativeHalting([nn.Linear(2, 1)], epsilon)


# ---------------------------------------------------------------------- planted faults


class Masks(TokenNetwork):
    """The released code of A-ViT: who left is hidden, and computed all the same."""

    def _run(self, x, **how):
        inference = super()._run(x, **how)
        return dataclasses.replace(inference, logits=self.masked_forward(x)[0])


class Pads(TokenNetwork):
    """Rows are filled up to the longest and the filling is told of nobody."""

    def _run(self, x, **how):
        inference = super()._run(x, **how)
        short = self.stem(x)[:, :2]
        for block in self.blocks[1:]:
            short = block(short)
        return inference


class Linearly(TokenNetwork):
    """Attention counted as if it were linear in the tokens."""

    def _relax(self, x, **how):
        relaxed = super()._relax(x, **how)
        return dataclasses.replace(relaxed, expected_macs=relaxed.reach @ torch.tensor(self.node_macs).float())


class Turned(TokenNetwork):
    def _relax(self, x, **how):
        relaxed = super()._relax(x, **how)
        return dataclasses.replace(relaxed, margins=-relaxed.margins)


class ForgetsTheRule(TokenNetwork):
    def _run(self, x, **how):
        inference = super()._run(x, **how)
        asked = inference.path[:, 1:-1].view(len(x), len(self.blocks), -1)[:, :-1].sum((1, 2))
        return dataclasses.replace(inference, macs=inference.macs - WIDTH * asked)


class LooksAtTheBatch(TokenRule):
    """Who leaves hangs on who else is there."""

    name = "batch"

    def margin(self, block, tokens, state):
        score = tokens[..., 0]
        return score - score.mean(), None


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ({"kind": Masks}, "macs_are_what_the_dispatcher_saw"),
        ({"kind": Masks}, "what_is_skipped_does_not_run"),
        ({"kind": Pads}, "macs_are_what_the_dispatcher_saw"),
        ({"kind": Pads}, "what_is_skipped_does_not_run"),
        ({"kind": Linearly}, "expected_macs_become_the_executed_ones"),
        ({"kind": Turned}, "margins_have_the_sign_of_the_decisions"),
        ({"kind": ForgetsTheRule}, "macs_are_the_sum_over_the_path"),
        ({"rule": LooksAtTheBatch()}, "no_sample_touches_another"),
    ],
)
def test_a_planted_fault_is_found(how, check):
    net = token_net(seed=3, **how)
    with pytest.raises(AssertionError):
        getattr(kit_of(net, n_inputs=12), f"test_{check}")()


# ---------------------------------------------------------------------- training


def test_ponder_cost_is_blocks_run_and_what_was_left_of_one():
    """A-ViT's ρ by hand: scores 0.3, 0.3, 0.3 → three further blocks; 0.7, 0.6 → two blocks and 0.3 left."""
    h = torch.tensor([[0.3, 0.7], [0.3, 0.6], [0.3, 0.5]])
    margins = (0.99 - h.cumsum(0))[None]
    assert torch.allclose(ponder_cost(margins), torch.tensor([[4 + 0.1, 2 + 0.3]]))


def test_asking_for_fewer_tokens_leaves_fewer():
    """A few steps at a share of none lower the executed MACs."""
    net = token_net(seed=3).train()
    x = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(1))
    y = torch.randint(CLASSES, (32,), generator=torch.Generator().manual_seed(2))
    before = net.infer(x).macs.float().mean()
    step = torch.optim.SGD(net.rule.parameters(), 0.5)
    loss = halted_at_share(0.0, 10.0, 0.01, 0.25, 0.25)
    for _ in range(10):
        step.zero_grad()
        loss(net, x, y).backward()
        step.step()
    assert net.infer(x).macs.float().mean() < before


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_scores_are_settled_at_a_share_of_the_runs(share):
    torch.manual_seed(5)
    net = halting_vit(
        nn.Identity(), 1, 16, width=8, heads=2, depth=3, domain=ImageDomain(SHAPE), n_classes=CLASSES
    ).eval()
    for score in net.rule.scores:
        nn.init.normal_(score.linear.weight)
    x = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    settle(net, x, share)
    left = net.infer(x).path[:, 1:-1].view(64, 3, 16)[:, 1:].double().mean()
    assert left == pytest.approx(share, abs=0.02)
