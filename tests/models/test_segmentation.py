"""Nets that answer every pixel: laws, the profile that policies see, and what is refused."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from adaptbench.adaptive import PixelExits, Split
from adaptbench.adaptive.pixels import class_counts, profile, right_pixels
from adaptbench.adaptive.replay import evaluate_on
from adaptbench.adaptive.splits import IGNORED
from adaptbench.errors import DataFormatError, GraphError, LeakageError, PolicyError, UsageError
from adaptbench.models.segmentation import PixelNets
from adaptbench.policies import ExactBudget, FixedExit, GeometricEnsemble, Patience, UniformThreshold
from adaptbench.testing import ModelConformance

TINY = PixelNets((3, 16, 16), 4, (0.5,) * 3, (0.25,) * 3, fine=4, coarse=(8, 8, 8), dilations=((2,), (2, 1)))


def tiny(seed: int = 0) -> PixelExits:
    torch.manual_seed(seed)
    net = TINY.exits()
    for module in net.modules():  # statistics of an untrained net would leave every image equally unsure
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.3)
    return net.eval().requires_grad_(False)


def images(role: str = "calibration", n: int = 100) -> Split:
    draw = torch.Generator().manual_seed(5)
    x = torch.randint(0, 256, (n, 3, 16, 16), generator=draw, dtype=torch.uint8)
    contrast = torch.linspace(0.1, 1, n).view(-1, 1, 1, 1)
    y = (x[:, 0] // 64).clone()
    y[:, 0] = IGNORED
    return Split("made", role, (128 + contrast * (x.float() - 128)).byte(), y, torch.arange(n), tuple("abcd"))


def at_median(net: PixelExits) -> PixelExits:
    return net.under(UniformThreshold(float(net.log(images()).confidence[:, :-1].median())))


class TestUnderAThreshold(ModelConformance):
    def model(self) -> PixelExits:
        return at_median(tiny())


class TestUnderAFittedBudget(ModelConformance):
    n_inputs = 32

    def model(self) -> PixelExits:
        net = tiny(1)
        log = net.log(images())
        return net.under(ExactBudget.fit(log, budget=0.7 * float(log.exit_costs[-1]), margin=0.0))


def test_the_confidence_of_an_image_is_the_mean_over_its_pixels_of_the_largest_probability() -> None:
    logits = torch.randn(5, 4, 6, 6, generator=torch.Generator().manual_seed(0)) * 3
    shown = profile(logits)
    torch.testing.assert_close(shown.softmax(1).amax(1), logits.softmax(1).amax(1).mean((1, 2)))
    torch.testing.assert_close(shown.exp().sum(1), torch.ones(5))
    torch.testing.assert_close(profile(logits[:, [2, 0, 3, 1]]), shown)  # classes have no names in it


def test_what_a_log_says_of_a_threshold_is_what_the_hard_pass_does() -> None:
    net, split = at_median(tiny()), images()
    log = net.log(split)
    said, inference = evaluate_on(net.policy, log), net.infer(split.images())
    assert said.macs_mean == pytest.approx(inference.macs.float().mean().item(), rel=1e-6)
    right = right_pixels(inference.predictions, split.y)
    assert said.accuracy == pytest.approx(right.mean().item(), abs=1e-6)
    assert len(set(inference.exit.tolist())) > 1
    assert (log.quality[:, 0] - log.quality[:, -1]).abs().max() > 0


def test_counts_leave_ignored_pixels_out_and_add_up() -> None:
    labels = torch.tensor([[[0, 1, IGNORED], [2, 2, 1]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 0, 2], [2, 1, 1]]])
    right, labelled, said = (counts[0].tolist() for counts in class_counts(predicted, labels, 3))
    assert (right, labelled, said) == ([1, 1, 1], [1, 2, 2], [2, 2, 1])
    assert right_pixels(predicted, labels).tolist() == [pytest.approx(3 / 5)]


def test_policies_that_ask_for_a_class_are_refused_by_name() -> None:
    net = tiny()
    with pytest.raises(PolicyError, match=r"(?s)'pabee'.*answers every pixel.*uniform"):
        net.under(Patience(2))
    log = net.log(images())
    with pytest.raises(PolicyError, match="'ztw'"):
        GeometricEnsemble.fit(log)
    assert net.under(FixedExit(1)).infer(images().images(0, 3)).exit.tolist() == [1, 1, 1]


def test_heads_that_end_in_one_answer_an_input_are_refused() -> None:
    stages, pooled = [nn.Conv2d(1, 2, 1)], [nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))]
    with pytest.raises(GraphError, match=r"\(N, C, H, W\)"):
        PixelExits(stages, pooled, input_shape=(1, 4, 4))
    half = [nn.Conv2d(2, 3, 1, stride=2)]
    with pytest.raises(GraphError, match=r"returned \(1, 3, 2, 2\).*not logits \(1, 3, 4, 4\)"):
        PixelExits(stages, half, input_shape=(1, 4, 4))


def test_labels_and_nets_that_do_not_fit_are_refused() -> None:
    net, split = tiny(), images()
    one_label = Split(
        "plain", "calibration", split.x, torch.zeros(len(split), dtype=torch.int64), split.ids, split.class_names
    )
    with pytest.raises(UsageError, match="a label for each input"):
        net.log(one_label)
    with pytest.raises(LeakageError):
        net.log(images("test"))
    with pytest.raises(UsageError, match="uint8 of shape"):
        Split("odd", "test", split.x, split.y[:, :8], split.ids, split.class_names)
    with pytest.raises(DataFormatError, match="labels from 0 to 9"):
        Split("odd", "test", split.x, split.y.masked_fill(split.y == 3, 9), split.ids, split.class_names)


def test_the_examples_of_the_page_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dense.md").read_text(encoding="utf-8")
    shown: list[object] = []
    names: dict[str, object] = {"print": lambda *what: shown.extend(what)}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "dense.md", "exec"), names)
    shape, exits, macs, explained, wrapped = shown
    assert (tuple(shape), len(exits), len(macs)) == ((4, 16, 16), 4, 2)
    assert explained.way == "traced"
    assert explained.exits[0].macs_deferred > 0
    assert len(wrapped) == 4
