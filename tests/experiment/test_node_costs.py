"""Nodes priced in seconds: ordered as their work is, and a policy fitted on them names the unit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adaptbench.adaptive import Cascade
from adaptbench.errors import CalibrationError
from adaptbench.experiment.node_costs import node_costs
from adaptbench.meters.clock import ClockMeter
from adaptbench.policies import DagSelection
from adaptbench.testing import planted_graph, planted_split


def test_seconds_follow_the_work():
    def net(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 3))

    model = Cascade({"small": net(8), "large": net(2048)}, input_shape=(1, 8, 8)).eval()
    with ClockMeter().on("cpu") as clock:
        costs, unit = node_costs(model, torch.rand(64, 1, 8, 8), clock, blocks=2, window_s=0.02, warmup_s=0.0)
    assert unit == "s"
    assert 0 < costs[0] * 5 < costs[1] < 1.0


def test_a_policy_fitted_on_seconds_says_so_and_weighs_them():
    net = planted_graph("dag")
    log = net.log(planted_split())
    # seconds that turn the MACs round: the last net is nearly free once the first one ran
    priced = log.priced(torch.tensor([1.0, 5.0, 0.1]), "s")
    policy = DagSelection.path(priced, prices=(4.0,), steps=80)
    assert policy.describe()["cost_unit"] == "s"
    again = DagSelection.from_state(policy.describe(), dict(policy.state_dict()))
    assert again.cost_unit == "s"
    net.policy = policy
    by_seconds = net.infer(planted_split("test").images()).path.float().mean(0)
    net.policy = DagSelection.path(log, prices=(4.0,), steps=80)
    by_macs = net.infer(planted_split("test").images()).path.float().mean(0)
    assert by_seconds[1] < by_macs[1]
    assert by_seconds[2] > by_macs[2]
    with pytest.raises(CalibrationError, match="costs"):
        log.priced(torch.tensor([1.0, 0.0, 2.0]), "s")
