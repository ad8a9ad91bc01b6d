"""What a search is told that a text costs is what the hard pass on the whole row says."""

import pytest
import torch

from adaptbench.attacks.word_prices import WordPrices
from adaptbench.policies import RandomMix, UniformThreshold
from adaptbench.testing.texts import planted_net, planted_texts


@pytest.mark.parametrize("threshold", [0.6, 0.9, 0.99])
def test_prices_are_those_of_the_whole_row(threshold):
    net = planted_net()
    net.policy = UniformThreshold(threshold)
    prices, x = WordPrices(net), planted_texts("test", 60).inputs()
    for part in (x[:20], x[20:21], x[21:]):
        macs, logits = prices(part)
        whole = net.infer(part)
        sure = ~whole.tie
        assert torch.equal(macs[sure], whole.macs[sure])
        torch.testing.assert_close(logits[sure], whole.logits[sure], atol=1e-5, rtol=1e-5)


def test_columns_of_padding_are_not_run(monkeypatch):
    net, x = planted_net(), planted_texts("test", 40).inputs()
    prices = WordPrices(net)
    prices(x)
    short = x[net.domain.lengths(x) <= 8]
    seen = []
    infer = net.infer
    monkeypatch.setattr(net, "infer", lambda given: seen.append(given.shape[1]) or infer(given))
    macs, _ = prices(short)
    assert seen == [int(net.domain.lengths(short).max())]
    assert torch.equal(macs, infer(short).macs)


def test_a_policy_that_draws_by_content_sees_the_whole_row():
    net, x = planted_net(), planted_texts("test", 30).inputs()
    net.policy = RandomMix(0.5)
    macs, _ = WordPrices(net)(x)
    assert torch.equal(macs, net.infer(x).macs)
