"""A net of which only answers and costs come out, taken as far as it goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.attacks import load_attack
from adaptbench.errors import CapabilityError, DomainError, GraphError

EXAMPLE = torch.zeros(1, 1, 8, 8)
WEIGHT = torch.linspace(-1, 1, 640).reshape(10, 64).sin()


def skipping(x):
    """Dear where the picture is bright."""
    logits = x.flatten(1) @ WEIGHT.T
    return logits, torch.where(x.mean((1, 2, 3)) > 0.3, 900, 100)


class Leaves(nn.Module):
    """Stops by itself, sample by sample: no graph holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.body, self.late = nn.Linear(64, 10), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x):
        out = []
        for row in x.flatten(1):
            z = self.early(row)
            out.append(z if row.mean() < 0.3 else self.late(self.body(row).tanh()))
        return torch.stack(out)


def box() -> ab.BlackBox:
    return ab.BlackBox(skipping, example=EXAMPLE, macs_full=1000, min_macs=100)


def test_what_it_says_is_what_is_recorded():
    net = box()
    x = torch.cat([torch.full((2, 1, 8, 8), 0.9), torch.full((1, 1, 8, 8), 0.1)])
    inference = net.infer(x)
    assert inference.macs.tolist() == [900, 900, 100]
    torch.testing.assert_close(inference.logits, x.flatten(1) @ WEIGHT.T)
    assert (net.min_macs, net.max_macs, net.macs_full) == (100, 1000, 1000)
    assert net.capabilities == {"queries"}


def test_macs_are_counted_sample_by_sample_where_it_does_not_say():
    module = Leaves()
    net = ab.BlackBox(module, example=EXAMPLE, returns="logits", macs_full=64 * 84)
    x = torch.cat([torch.full((1, 1, 8, 8), 0.1), torch.full((2, 1, 8, 8), 0.9)])
    assert net.infer(x).macs.tolist() == [640, 64 * 84, 64 * 84]
    with net.serving():
        torch.testing.assert_close(net.serve(x), net.infer(x).logits)
    assert [p is q for p, q in zip(net.parameters(), module.parameters(), strict=True)] == [True] * 6


def test_an_attack_that_queries_finds_what_is_dear_and_one_with_gradients_is_refused():
    net, x = box(), torch.full((4, 1, 8, 8), 0.28)
    found = load_attack("black-box", {"queries": 60, "eps": "16/255"}).craft(net, x, torch.zeros(4, dtype=torch.int64))
    assert net.infer(found.images()).macs.sum() > net.infer(x).macs.sum()
    with pytest.raises(CapabilityError):
        net.relax(x)
    with pytest.raises(CapabilityError, match="no exits to log"):
        net.log(ab.load_data("digits").split("calibration"))


def test_it_goes_through_a_suite_the_page_and_the_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "import torch\nimport adaptbench as ab\n"
        "W = torch.linspace(-1, 1, 640).reshape(10, 64).sin()\n"
        "def fn(x):\n    return x.flatten(1) @ W.T, torch.where(x.mean((1, 2, 3)) > 0.3, 900, 100)\n"
        "def build():\n    return ab.BlackBox(fn, example=torch.zeros(1, 1, 8, 8), macs_full=1000)\n"
    )
    Path("box.yaml").write_text(
        "title: box\ndata: digits\nmodels: [./mine.py:build]\nlimit: 8\n"
        "conditions: [clean, {noise: {eps: 8/255}}, {black-box: {queries: 30}}, ilfo]\n"
        "gate: {macs_mean: exact}\n"
    )
    done = ab.run("box.yaml", out="run", allow_imports=True)
    by = {case["condition"]: case for case in done.cases}
    assert by["clean"]["macs_mean"] in [pytest.approx(100 + 100 * k) for k in range(9)]
    assert by["black-box"]["macs_mean"] >= by["clean"]["macs_mean"]
    assert "ilfo" not in by, "an attack with gradients does not apply, and is said to be skipped"
    page = ab.write_report([done.path], tmp_path / "page.html")
    assert "mine.py:build" in Path(page).read_text(encoding="utf-8")
    again = ab.run("box.yaml", out="again", allow_imports=True)
    assert ab.check(again, done, {"macs_mean": "exact"}).exit_code == 0


def numpy_only(x):
    return torch.from_numpy(x.detach().numpy().reshape(len(x), -1)[:, :10] * 2)


@pytest.mark.parametrize(
    ("fn", "how", "message"),
    [
        (numpy_only, {"returns": "logits"}, "no MACs were counted"),
        (numpy_only, {}, r"returned a Tensor, not \(logits, macs\)"),
        (lambda x: (x, x), {}, r"gave \(8, 1, 8, 8\) as logits"),
        (lambda x: (x.flatten(1), torch.ones(3)), {}, r"gave \(3,\) as costs of 8 pictures"),
        (lambda x: (x.flatten(1) + torch.rand(1), torch.ones(len(x))), {}, "when called again"),
        (lambda x: (x.flatten(1) - x.mean(), torch.ones(len(x))), {}, "to a picture alone"),
        (skipping, {"macs_full": 500}, r"spent 900 to 900 MACs .* declared are 0 to 500|spent .*declared are 0 to 500"),
        (skipping, {"min_macs": 2000}, "do not fit together"),
        (skipping, {"returns": "macs"}, "none of the two forms"),
        (lambda x: 1 / 0, {}, "ZeroDivisionError"),
    ],
)
def test_what_is_no_black_box_is_refused(fn, how, message):
    with pytest.raises(GraphError, match=message):
        ab.BlackBox(fn, **{"example": EXAMPLE, "macs_full": 1000, **how})


def test_a_static_net_is_timed_only_where_it_is_given():
    with pytest.raises(CapabilityError, match="no static net"):
        box().run_reference(torch.rand(1, 1, 8, 8))
    other = ab.BlackBox(skipping, example=EXAMPLE, macs_full=1000, reference=lambda x: skipping(x)[0])
    assert other.run_reference(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_a_black_box_of_texts_is_asked_by_edits_of_words():
    from adaptbench.testing.texts import LENGTH, VOCABULARY, planted_texts

    good = torch.tensor([VOCABULARY.index(word) for word in ("good", "fine", "great", "warm")])

    def answers(ids):
        sure = (ids[..., None] == good).any(-1).sum(1).float()
        return torch.stack([-sure, sure], 1), torch.where(sure > 0, 100, 900)

    ids = torch.zeros(1, LENGTH, dtype=torch.int64)
    net = ab.BlackBox(answers, example=ids, macs_full=1000, domain=ab.TokenDomain(LENGTH, VOCABULARY))
    x = planted_texts("test", 30)
    found = load_attack("words-black-box", {"share": 0.3, "queries": 60}).craft(net, x.inputs(), x.y)
    assert net.infer(found.x_adv).macs.sum() > net.infer(x.inputs()).macs.sum()
    assert int(found.queries.max()) <= 60
    with pytest.raises(CapabilityError, match="values of pixels"):
        load_attack("black-box", {"queries": 5}).craft(net, x.inputs(), x.y)
    with pytest.raises(CapabilityError):
        load_attack("words").craft(net, x.inputs(), x.y)
    with pytest.raises(DomainError, match="which there are is not known"):
        ab.BlackBox(answers, example=ids, macs_full=1000)
