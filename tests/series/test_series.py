"""Series end to end: domain, files, attacks in their own unit, the example of docs/series.md by the command line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import adaptbench as ab
from adaptbench.adaptive import ImageDomain, SeriesDomain
from adaptbench.attacks import load_attack
from adaptbench.cli import app
from adaptbench.errors import CapabilityError, DataFormatError, DataMissingError, DomainError, RecipeError, UsageError
from adaptbench.testing import check_model
from adaptbench.testing.data import DataConformance
from adaptbench.testing.series import ACTIVITIES, CHANNELS, STEPS, SeriesNet, write_har

PAGE = Path(__file__).resolve().parents[2] / "docs" / "series.md"
DOMAIN = SeriesDomain((len(CHANNELS), STEPS), -2.0, 2.0, "g")


def series_net(threshold: float = 0.5):
    torch.manual_seed(3)
    module = SeriesNet()
    for head in module.heads:
        head.weight.data.mul_(8)
    net = ab.wrap(module, example=torch.zeros(1, len(CHANNELS), STEPS), domain=DOMAIN)
    net.policy = ab.policies.UniformThreshold(threshold)
    return net.eval()


def windows(n: int = 24) -> torch.Tensor:
    return DOMAIN.drawn(n, torch.Generator().manual_seed(1)) * 0.9


def test_a_net_of_series_keeps_the_laws():
    check_model(series_net(), n_inputs=12)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (torch.zeros(2, 3, STEPS + 1), "takes series"),
        (torch.zeros(0, 3, STEPS), "empty batch"),
        (torch.zeros(2, 3, STEPS, dtype=torch.int64), "type"),
        (torch.full((2, 3, STEPS), 2.5), r"declares \[-2, 2\] g"),
        (torch.full((2, 3, STEPS), torch.nan), "span"),
    ],
)
def test_what_is_no_series_of_the_domain_is_refused(given, seen):
    with pytest.raises(DomainError, match=seen):
        series_net().infer(given)


@pytest.mark.parametrize("how", [((3,), 0, 1), ((3, 8), 1, 1), ((3, 8), 0, torch.inf)])
def test_a_domain_that_is_none_is_refused(how):
    with pytest.raises(UsageError, match="are none"):
        SeriesDomain(*how)


def test_a_series_without_its_range_is_not_guessed():
    with pytest.raises(DomainError, match="SeriesDomain"):
        ab.wrap(SeriesNet(), example=torch.zeros(1, len(CHANNELS), STEPS))


def test_what_changes_pixels_is_refused_on_series():
    net, x, y = series_net(), windows(4), torch.zeros(4, dtype=torch.int64)
    for name in ("ilfo", "noise", "patch-random", "words"):
        with pytest.raises(CapabilityError, match=r"series|pictures"):
            load_attack(name).craft(net, x, y)
    with pytest.raises(CapabilityError, match="series"):
        net.defended("smooth")


def test_series_attacks_are_refused_on_pictures():
    net = ab.Static(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), input_shape=(1, 4, 4))
    assert isinstance(net.domain, ImageDomain)
    assert "takes none" in load_attack("series").applies_to(net)


@pytest.mark.parametrize("eps", [0.05, 0.3])
@pytest.mark.parametrize("name", ["series", "series-noise"])
def test_a_change_stays_in_the_ball_and_in_the_range(name, eps):
    net, x = series_net(), windows()
    crafted = load_attack(name, {"eps": eps}).craft(net, x, torch.zeros(len(x), dtype=torch.int64))
    assert crafted.x_adv.dtype == torch.float32
    assert "outside_constraint" not in crafted.details
    change = (crafted.images() - x).abs()
    assert change.amax() <= eps * (1 + 1e-5)
    assert crafted.linf.max() == pytest.approx(float(change.amax()))
    assert len(change.unique()) > 2  # of clipped values at least; no grid of 255 levels
    DOMAIN.check(crafted.images())
    assert crafted.details["eps_in_unit"] == eps


def test_the_attack_raises_executed_macs_and_noise_does_less():
    net, x = series_net(), windows(48)
    y = torch.zeros(len(x), dtype=torch.int64)
    clean = net.infer(x).macs
    attacked, noisy = (
        net.infer(load_attack(name, {"eps": 0.3}).craft(net, x, y).images()).macs for name in ("series", "series-noise")
    )
    assert (attacked >= clean).all(), "a point that costs less than the clean series was kept"
    assert attacked.float().mean() > clean.float().mean() + 2 * (noisy.float().mean() - clean.float().mean()).abs()


def test_a_share_is_one_of_the_range():
    crafted = load_attack("series-noise", {"share": 0.01}).craft(series_net(), windows(4), torch.zeros(4).long())
    assert crafted.details["eps_in_unit"] == pytest.approx(0.04)


def test_noise_hangs_on_the_sample_alone():
    net, x, attack = series_net(), windows(6), load_attack("series-noise", {"eps": 0.1})
    y, ids = torch.zeros(6, dtype=torch.int64), torch.arange(6)
    whole = attack.craft(net, x, y, ids=ids).x_adv
    assert torch.equal(whole[3:], attack.craft(net, x[3:], y[3:], ids=ids[3:]).x_adv)
    assert not torch.equal(whole, attack.craft(net, x, y, ids=ids, seed=1).x_adv)


@pytest.mark.parametrize(
    "settings",
    [
        {"constraint": {"linf": {"eps": 0.1}}},
        {"objective": "uniform-heads", "search": "series-draw"},
        {"label": "keep"},
    ],
)
def test_parts_of_pictures_and_of_series_do_not_mix(settings):
    with pytest.raises(RecipeError, match="series"):
        load_attack("series", settings)


# ---------------------------------------------------------------------- files


class TestMadeSet(DataConformance):
    @pytest.fixture(autouse=True)
    def _in_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write_har("made", windows=80)

    def make(self):
        return ab.load_data("uci-har:made")


def test_the_files_are_read_as_they_stand(tmp_path):
    folder = write_har(tmp_path / "made", windows=80)
    data = ab.load_data(f"uci-har:{folder}")
    test = data.split("test")
    for c, channel in enumerate(sorted(CHANNELS)):
        table = np.loadtxt(folder / "test" / "Inertial Signals" / f"{channel}_test.txt")
        assert np.allclose(test.inputs().numpy()[:, c], table)
    assert test.y.tolist() == (np.loadtxt(folder / "test" / "y_test.txt") - 1).tolist()
    assert data.class_names == ACTIVITIES
    people = np.loadtxt(folder / "train" / "subject_train.txt")
    of = {role: set(people[data.split(role).ids.numpy()]) for role in ("train", "calibration")}
    assert of["calibration"] == {9, 10}
    assert not of["train"] & of["calibration"], "windows of one person overlap"


@pytest.mark.parametrize(
    ("spoil", "seen"),
    [
        (lambda f: (f / "train" / "y_train.txt").write_text("1\n2\n"), "80 windows and 2 labels"),
        (lambda f: (f / "test" / "y_test.txt").unlink(), "cannot be read"),
        (lambda f: (f / "test" / "Inertial Signals" / "body_acc_x_test.txt").write_text("1 2 x\n"), "cannot be read"),
        (lambda f: (f / "activity_labels.txt").write_text("1 WALKING\n"), "stand in no line"),
        (lambda f: [p.unlink() for p in (f / "train" / "Inertial Signals").glob("*")], "there is no train/"),
    ],
)
def test_a_folder_of_another_form_is_refused(tmp_path, spoil, seen):
    folder = write_har(tmp_path / "made", windows=80)
    spoil(folder)
    with pytest.raises(DataFormatError, match=seen):
        ab.load_data(f"uci-har:{folder}")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataMissingError, match="no folder"):
        ab.load_data(f"uci-har:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="names no folder"):
        ab.load_data("uci-har:")


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    """Its Python as mine.py, its YAML as series.yaml, its command; accuracy, saving and what is taken back."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    (code,), (suite,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "yaml"))
    assert len([line for line in ("def build" + code.partition("def build")[2]).splitlines() if line.strip()]) == 10
    (tmp_path / "mine.py").write_text(code, encoding="utf-8")
    (tmp_path / "series.yaml").write_text(suite, encoding="utf-8")
    write_har("made")
    (line,) = re.findall(r"^\$ adaptbench (.*)$", text, re.MULTILINE)
    done = CliRunner().invoke(app, [*line.split(), "--no-report"])
    assert done.exit_code == 0, done.output
    cases = {case["condition"]: case for case in ab.Run.open("runs/series").cases}
    assert cases["clean"]["accuracy"] > 0.7
    assert cases["clean"]["macs_mean"] < 0.7 * cases["clean"]["macs_full"]
    assert cases["series"]["recovery"] > 0.2 > abs(cases["series-noise"]["recovery"])
    assert cases["series"]["linf_max"] == pytest.approx(0.2, rel=1e-4)
    assert "±0.2" in done.output
