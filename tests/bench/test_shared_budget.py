"""`adaptbench budget`: figures from a run's own pictures, and a net that is not the run's is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from adaptbench.adaptive.online import run_online
from adaptbench.bench.runner import run_suite
from adaptbench.bench.shared_budget import Bucket, shared_budgets
from adaptbench.data import load_data
from adaptbench.errors import RunError, UsageError
from adaptbench.experiment.options import Options
from adaptbench.policies.online import ComputeBudget
from adaptbench.results.files import digest, write_json
from adaptbench.results.store import Run
from adaptbench.zoo.loading import load_model

SUITE = {
    "data": "digits",
    "models": [{"multi-exit": {"softmax-threshold": {"epsilon": 0.002, "id": "mine"}}}, "skipnet"],
    "conditions": ["clean", {"noise": {"eps": "16/255"}}, {"deepsloth": {"eps": "32/255", "steps": 10, "limit": 60}}],
    "limit": 80,
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budget")
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump(SUITE), encoding="utf-8")
    return run_suite(str(file), out=folder / "run", overrides=["limit=70"])


def test_rows_are_of_the_attacks_on_nets_with_exits(done) -> None:
    rows = shared_budgets(done, Bucket(burst=10, orders=4, shares=(0.0, 0.25, 0.5)), Options())
    assert {(r["model"], r["condition"], r["n"]) for r in rows} == {("mine", "deepsloth", 60)}
    assert [r["share"] for r in rows] == [0.0, 0.25, 0.5]
    samples = done.samples([rows[0]["evaluation"]])
    assert rows[0]["macs_attacked_mean"] == pytest.approx(samples["macs"].mean())
    assert rows[0]["attacker_macs_mean"] is None
    for row in rows:
        assert row["rate_macs"] == pytest.approx(1.2 * row["macs_clean_mean"])
        bound = row["rate_macs"] + row["capacity_macs"] / (20 * row["burst"])
        assert row["stream_macs_mean"]["high"] <= bound + 1e-6, "the bound is hard"
        lost = row["benign_accuracy_lost"]
        assert lost["low"] <= lost["value"] <= lost["high"]
    quiet, loud = rows[0], rows[-1]
    assert loud["benign_forced"]["value"] > quiet["benign_forced"]["value"]
    assert loud["stream_macs_mean"]["value"] < loud["stream_macs_free_mean"]["value"]


def test_the_command_writes_what_python_gives(done, adaptbench, tmp_path) -> None:
    ended = adaptbench("budget", str(done.path), "--shares", "0,0.5", "--orders", "3", "--out", "shared.json")
    assert ended.code == 0, ended.err
    told = json.loads((tmp_path / "shared.json").read_text(encoding="utf-8"))["rows"]
    assert told == json.loads(json.dumps(shared_budgets(done, Bucket(shares=(0.0, 0.5), orders=3), Options())))
    assert "mine · deepsloth" in ended.out


def test_the_bucket_of_the_figures_is_the_one_that_runs(done) -> None:
    """At a share of one half: the same inputs through `run_online` with the net itself."""
    import numpy as np

    from adaptbench.policies import SoftmaxThreshold

    data = load_data("digits")
    net = load_model("multi-exit")
    net = net.under(SoftmaxThreshold.fit(net.log(data.split("calibration")), epsilon=0.002, seed=0))
    (row,) = shared_budgets(done, Bucket(burst=3, orders=2, shares=(0.5,)), Options())
    case = next(c for c in done.cases if c["condition"] == "deepsloth" and c["model"] == "mine")
    adv = torch.from_numpy(done.crafted(case["crafted"])["x_adv"]).float() / 255
    both = torch.cat([data.split("test").images(0, 60), adv])
    spent = []
    for order in range(2):
        rng = np.random.default_rng(order)
        passes = 1
        stream = np.concatenate([rng.permutation(60) for _ in range(passes)])
        hostile = np.zeros(60, bool)
        hostile[rng.permutation(60)[:30]] = True
        rows = torch.from_numpy(np.where(hostile, stream + 60, stream))
        bucket = ComputeBudget(net.policy, rate=row["rate_macs"], capacity=row["capacity_macs"])
        logits = net.dense_logits(both).detach()
        costs = torch.tensor(net.node_macs) + torch.tensor(net.policy_macs)
        record = run_online(bucket, logits, net.structure, costs, order=rows)
        spent.append(float(record.cost.mean()))
    assert row["stream_macs_mean"]["value"] == pytest.approx(np.mean(spent))


def test_another_net_and_a_run_without_attacks_are_refused(done, tmp_path) -> None:
    other = shutil.copytree(done.path, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text(encoding="utf-8"))
    manifest["suite"]["text"] = manifest["suite"]["text"].replace("0.002", "0.3")
    manifest.pop("digest")
    write_json(other / "manifest.json", {**manifest, "digest": digest(manifest)})
    with pytest.raises(RunError, match="other MACs than the net spends"):
        shared_budgets(Run.open(other), Bucket(), Options())
    manifest["suite"]["overrides"] = ["limit=70", "conditions=[clean]"]
    write_json(other / "manifest.json", {**manifest, "digest": digest(manifest)})
    with pytest.raises(RunError, match="no attack in it"):
        shared_budgets(Run.open(other), Bucket(), Options())


@pytest.mark.parametrize(
    "settings", [{"headroom": 0.0}, {"burst": 0.5}, {"orders": 1}, {"shares": ()}, {"shares": (1.0,)}]
)
def test_buckets_that_are_none_are_refused(settings) -> None:
    with pytest.raises(UsageError):
        Bucket(**settings)
