"""Policies that are none, or whose scores are none."""

import numpy as np
import pytest

from adaptbench.adaptive import ChainPolicy, Policy
from adaptbench.errors import PolicyError
from adaptbench.policies import UniformThreshold
from adaptbench.policies.online import UeeUcb
from adaptbench.testing import planted_graph, planted_split


class Answers(Policy):
    name = "answers"

    def __init__(self, give, predict=None):
        super().__init__()
        self.give, self.answer = give, predict

    def scores(self, node, signals):
        return self.give(signals)

    def predict(self, node, signals):
        return self.answer(signals) if self.answer else signals.logits


class Margins(ChainPolicy):
    name = "margins"

    def margin(self, node, signals):
        return signals.logits[:, 0] > 0


@pytest.mark.case("own")
@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Answers(lambda s: s.confidence), r"'answers' gave scores of torch.float32 \(1,\)"),
        (Answers(lambda s: s.logits), r"gave scores of torch.float32 \(1, 4\)"),
        (Answers(lambda s: np.zeros((1, 2))), "gave scores of ndarray"),
        (Answers(lambda s: None), "gave scores of NoneType"),
        (Margins(), r"'margins' gave scores of torch.bool \(1, 2\)"),
        (Answers(lambda s: s.logits[:, :2], lambda s: s.logits.argmax(1)), r"gave an answer of torch.int64 \(1,\)"),
    ],
)
def test_scores_that_are_none_are_named(policy, said):
    """They ended in torch's words, some nodes later, or decided by whatever a broadcast made of them."""
    net = planted_graph()
    net.policy = policy
    with pytest.raises(PolicyError, match=said):
        net.infer(planted_split("test", 4).images())


@pytest.mark.case("own")
@pytest.mark.parametrize("given", [UniformThreshold, UeeUcb(), "uniform", lambda node, signals: signals.logits, None])
def test_what_is_no_policy_is_named(given):
    """A class, an online policy or a name in its place ended in a TypeError of torch, or was taken in silence."""
    net = planted_graph()
    own = net.policy
    for put in (lambda: setattr(net, "policy", given), lambda: net.under(given)):
        with pytest.raises(PolicyError, match="was given for a policy"):
            put()
    assert net.policy is own
