"""Audits of texts, of series and of tokens that leave: figures, bound, checks, page, and what verify finds."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

import adaptbench as ab
from adaptbench.adaptive import AdaptiveModel
from adaptbench.auditing import series, texts
from adaptbench.auditing.checks import checks_of
from adaptbench.auditing.findings import at_rest
from adaptbench.auditing.target import Target
from adaptbench.errors import UsageError
from adaptbench.testing.series import SeriesNet
from adaptbench.testing.texts import LENGTH, VOCABULARY, planted_texts

DOMAIN = ab.SeriesDomain((3, 32), -2.0, 2.0, "g")


class Reads(nn.Module):
    """The mean of a text's embeddings; an early answer and a late one."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.wide = nn.Embedding(len(VOCABULARY), 16, padding_idx=0), nn.Linear(16, 64)
        self.early, self.late = nn.Linear(16, 2), nn.Linear(64, 2)

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        is_word = (ids != 0).float()[..., None]
        h = (self.words(ids) * is_word).sum(1) / is_word.sum(1)
        return [self.early(h), self.late(self.wide(h).relu())]


def fitted(net: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int) -> nn.Module:
    step = torch.optim.AdamW(net.parameters(), 0.01)
    for _ in range(steps):
        step.zero_grad()
        sum(nn.functional.cross_entropy(z, y) for z in net(x)).backward()
        step.step()
    return net.eval()


@cache
def reader() -> ab.MultiExit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        train = planted_texts("train")
        module = fitted(Reads(), train.x, train.y, 60)
        net = ab.wrap(module, example=train.x[:1], domain=ab.TokenDomain(LENGTH, VOCABULARY))
    net.policy = ab.policies.UniformThreshold(0.9)
    return net


def waves(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slow, fast and no waves under noise."""
    draw = torch.Generator().manual_seed(seed)
    y, t = torch.arange(n) % 3, torch.arange(32) / 32 * 2 * torch.pi
    phase, noise = torch.rand(n, 3, 1, generator=draw) * 6, torch.randn(n, 3, 32, generator=draw)
    turns = torch.tensor([2.0, 7.0, 0.0])[y].view(-1, 1, 1)
    x = 0.6 * torch.sin(turns * t + phase) * (turns > 0) + (0.05 + 0.4 * torch.rand(n, 1, 1, generator=draw)) * noise
    return x.clamp(-1.9, 1.9), y


@cache
def sensing() -> ab.MultiExit:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = fitted(SeriesNet(3, 3), *waves(300, 0), 80)
        net = ab.wrap(module, example=torch.zeros(1, 3, 32), domain=DOMAIN)
    net.policy = ab.policies.UniformThreshold(0.9)
    return net


@pytest.fixture(scope="module")
def of_texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ab.Audit, ab.MultiExit]:
    net = reader()
    return ab.audit(net, planted_texts("test"), share=0.2, limit=24, out=tmp_path_factory.mktemp("texts")), net


@pytest.fixture(scope="module")
def of_series(tmp_path_factory: pytest.TempPathFactory) -> tuple[ab.Audit, ab.MultiExit]:
    net = sensing()
    return ab.audit(net, waves(30, 1), eps=0.2, out=tmp_path_factory.mktemp("series")), net


def test_texts_are_audited_by_edits_of_words(of_texts: tuple[ab.Audit, ab.MultiExit]) -> None:
    audit, _ = of_texts
    assert audit.trusted, audit.doubts
    assert list(audit.figures["conditions"]) == ["clean", "words-random", "words", "words-black-box"]
    assert audit.recovery.value > max(0.2, audit.figures["conditions"]["words-random"]["recovery"]["value"])
    assert audit.summary["eps"] is None
    assert audit.summary["share"] == 0.2
    run = audit.run()
    cases = {case["condition"]: case for case in run.cases}
    settings = {name: run.manifest["conditions"][name]["settings"] for name in cases if name != "clean"}
    assert {told["share"] for told in settings.values()} == {0.2}
    assert "24 test texts · 20 % of the words" in str(audit)
    page = (audit.path / "AUDIT.md").read_text(encoding="utf-8")
    for part in (
        "edits at most 20 % of the words",
        "Cost of a text",
        "the clean texts",
        "same, waffle",
        "logits of its",
    ):
        assert part in page, part
    assert "picture" not in page
    assert "ilfo" not in page.partition("not tried")[2]
    assert {"tokenizer", "padding", "cost after one edit", "crafted texts inside their budget"} <= {
        check.name for check in audit.checks
    }


def test_series_are_audited_in_their_unit(of_series: tuple[ab.Audit, ab.MultiExit]) -> None:
    audit, _ = of_series
    assert audit.trusted, audit.doubts
    assert list(audit.figures["conditions"]) == ["clean", "series-noise", "series"]
    assert audit.recovery.value > max(0.05, audit.figures["conditions"]["series-noise"]["recovery"]["value"])
    assert audit.summary["eps"] == 0.2
    assert audit.summary["unit"] == "g"
    assert audit.figures["conditions"]["series"]["linf_max"] <= 0.2 + 1e-4
    page = (audit.path / "AUDIT.md").read_text(encoding="utf-8")
    assert "at most 0.2 g, 5.0 % of the range from −2 to 2 g" in page
    assert "picture" not in page
    assert audit.summary["data"]["name"] == "series"
    assert "eps 0.2 g" in str(audit)


def test_a_share_is_one_of_the_sensors_range(tmp_path: Path) -> None:
    audit = ab.audit(sensing(), waves(8, 1), share=0.01)
    assert audit.summary["eps"] == pytest.approx(0.04)
    assert audit.summary["conditions"]["series"]["eps"] == pytest.approx(0.04)


@pytest.mark.parametrize("of", ["of_texts", "of_series"])
def test_it_is_verified_and_a_net_of_other_weights_is_named(of: str, request: pytest.FixtureRequest) -> None:
    audit, net = request.getfixturevalue(of)
    found = ab.verify(audit.path, net)
    assert found.exit_code == 0, found
    again = (reader if of == "of_texts" else sensing).__wrapped__()
    assert ab.verify(audit.path, again).exit_code == 0
    with torch.no_grad():
        next(again.parameters()).add_(0.05)
    assert ab.verify(audit.path, again).exit_code == 1


def test_more_words_than_may_be_edited_are_counted(of_texts: tuple[ab.Audit, ab.MultiExit], tmp_path: Path) -> None:
    from adaptbench.attacks.textual import beyond_budget
    from adaptbench.attacks.word_edits import WordEdits

    audit, net = of_texts
    run, clean = audit.run(), planted_texts("test").first(24).x
    (case,) = (c for c in run.cases if c["condition"] == "words")
    made = torch.from_numpy(run.crafted(case["crafted"])["x_adv"])
    edits = WordEdits(share=0.2, moves=())
    assert not beyond_budget(net, edits, clean, made).any()
    assert beyond_budget(net, edits, clean, clean.roll(1, 0)).sum() > 12


# ---------------------------------------------------------------------- planted faults


def look(net: AdaptiveModel, split: ab.Split) -> dict:
    with at_rest(net):
        return {c.name: c for c in checks_of(net, Target("net", "net", "object", net), split, seed=0, device="cpu")}


def test_texts_of_another_tokenizer_are_found() -> None:
    split = planted_texts("test").first(60)
    inner = (split.x != 0) & (split.x != 2) & (split.x != 3)
    strange = ab.split(torch.where(inner, 1, split.x), split.y, role="test")  # [UNK]
    assert texts.pieces_known(reader(), strange).level == "cannot be trusted"
    assert texts.pieces_known(reader(), split).level == "ok"


def test_texts_that_were_cut_are_in_doubt() -> None:
    split = planted_texts("test").first(60)
    assert texts.not_cut(reader(), split).level == "ok"
    full = ab.split(torch.where(split.x == 0, 5, split.x), split.y, role="test")
    assert texts.not_cut(reader(), full).level == "doubt"


def test_an_answer_that_hangs_on_padding_is_found() -> None:
    class Averages(Reads):
        def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
            h = self.words(ids).mean(1) * 4  # padding is in the mean
            return [self.early(h), self.late(self.wide(h).relu())]

    torch.manual_seed(0)
    train = planted_texts("train")
    net = ab.wrap(
        fitted(Averages(), train.x, train.y, 30), example=train.x[:1], domain=ab.TokenDomain(LENGTH, VOCABULARY)
    )
    net.policy = ab.policies.UniformThreshold(0.9)
    split = planted_texts("test").first(60)
    assert texts.same_when_padded(net, split, "cpu").level == "ok"  # the adapter keeps its columns
    net.domain = ab.TokenDomain(LENGTH, VOCABULARY)  # and somebody says that they may be cut
    assert texts.same_when_padded(net, split, "cpu").level == "cannot be trusted"


class KnowsByHeart(nn.Module):
    """Sure of what it has seen to the last digit, unsure of all else."""

    def __init__(self, seen: torch.Tensor, classes: int) -> None:
        super().__init__()
        self.register_buffer("codes", self.code(seen).sort().values)
        self.classes = classes
        self.scale = nn.Parameter(torch.ones(1))

    @staticmethod
    def code(x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1).double()
        return (x * torch.arange(1, x.shape[1] + 1).double().sqrt()).sum(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = (self.code(x)[:, None] - self.codes).abs().amin(1) < 1e-6
        return self.scale * torch.where(known, 9.0, 0.0)[:, None] * torch.eye(self.classes)[0]


def by_heart(split: ab.Split, domain, classes: int) -> ab.MultiExit:
    class Stage(nn.Module):
        def forward(self, x):
            return x

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(domain.shape[-1], classes)

        def forward(self, x):
            return self.linear(x.float().flatten(1)[:, : domain.shape[-1]])

    net = ab.MultiExit([Stage(), Stage()], [KnowsByHeart(split.inputs(), classes), Late()], domain=domain)
    return net.under(ab.policies.UniformThreshold(0.9)).eval()


def test_a_net_that_knows_its_texts_by_heart_is_found() -> None:
    split = planted_texts("test").first(60)
    net = by_heart(split, ab.TokenDomain(LENGTH, VOCABULARY), 2)
    assert texts.cheap_by_content(net, split, 0, "cpu").level == "cannot be trusted"
    assert texts.cheap_by_content(reader(), split, 0, "cpu").level != "cannot be trusted"


def test_a_net_that_knows_its_series_by_heart_is_found() -> None:
    split = ab.split(*waves(60, 1), role="test")
    assert series.cheap_by_content(by_heart(split, DOMAIN, 3), split, 0, "cpu").level == "cannot be trusted"
    assert series.cheap_by_content(sensing(), split, 0, "cpu").level == "ok"


def test_a_range_that_is_not_the_sensors_is_in_doubt() -> None:
    x, y = waves(60, 1)
    net = sensing()
    assert series.range_used(net, ab.split(x, y, role="test")).level == "ok"
    assert series.range_used(net, ab.split(x / 20, y, role="test")).level == "doubt"
    assert "clipped" in series.range_used(net, ab.split((3 * x).clamp(-2, 2), y, role="test")).seen


def test_a_normaliser_outside_is_found() -> None:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = SeriesNet(3, 3)

        def forward(self, x):
            return self.net(x)

    torch.manual_seed(0)
    x, y = waves(300, 0)
    module = fitted(Standardised(), (x / 8 - 0.2) / (x / 8).std(), y, 120)
    net = ab.wrap(module, example=x[:1], domain=DOMAIN)
    net.policy = ab.policies.UniformThreshold(0.9)
    x, y = waves(120, 1)
    found = series.normaliser_inside(net, ab.split(x / 8, y, role="test"), "cpu")
    assert found.level == "cannot be trusted", found.seen


# ---------------------------------------------------------------------- wrong words


@pytest.mark.parametrize(
    ("net", "data", "how", "said"),
    [
        (reader, "texts", {"eps": 0.1}, "eps 0.1 was given for texts"),
        (reader, "texts", {"share": 2}, "share 2 is no share"),
        (sensing, "series", {"eps": -1}, "eps -1 is no size"),
        (sensing, "texts", {}, "takes series, and 'planted-texts' holds texts"),
    ],
)
def test_wrong_words_are_told(net, data: str, how: dict, said: str) -> None:
    given = planted_texts("test").first(8) if data == "texts" else waves(8, 1)
    with pytest.raises(UsageError) as raised:
        ab.audit(net(), given, **how)
    assert said in raised.value.seen
    assert raised.value.todo


def test_attacks_of_pictures_are_named_as_not_run() -> None:
    audit = ab.audit(sensing(), waves(8, 1), attacks="standard")
    assert not audit.trusted
    (check,) = (c for c in audit.doubts if c.name == "attacks that apply")
    assert "no attack was run" in check.seen


# ---------------------------------------------------------------------- shapes beside exits


def test_tokens_that_leave_are_audited(tmp_path: Path) -> None:
    few = tmp_path / "few.yaml"
    few.write_text(
        "title: a few steps\naccess: white-box\nobjective: {hinge-margins: {kappa: 0.05}}\n"
        "constraint: {linf: {eps: 8/255}}\nsearch: {momentum: {steps: 4}}\n"
    )
    audit = ab.audit("a-vit", "digits", attacks=str(few), eps="32/255", limit=12, out=tmp_path / "tokens")
    assert audit.summary["model"]["shape"] == "tokens"
    assert audit.trusted, audit.doubts
    assert audit.recovery.value > audit.figures["conditions"]["noise"]["recovery"]["value"]
    assert ab.verify(audit.path).exit_code == 0


def test_a_black_box_that_tells_macs_is_audited_by_those_who_ask(tmp_path: Path) -> None:
    def answers(x):
        logits = x.flatten(1)[:, 20:30] * 4
        return logits, torch.where(logits.amax(1) > 3, 100, 800)

    box = ab.BlackBox(answers, example=torch.zeros(1, 1, 8, 8), macs_full=800)
    audit = ab.audit(box, "digits", attacks="black-box,ilfo", limit=10)
    assert "black-box" in audit.figures["conditions"]
    assert [case["condition"] for case in audit.summary["skipped"]] == ["ilfo"]
    levels = {check.name: check.level for check in audit.checks}
    assert levels["gradients through every decision"] == "cannot be trusted"
