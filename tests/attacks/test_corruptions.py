import colorsys

import numpy as np
import pytest
import torch
from attack_toys import random_model
from scipy.ndimage import gaussian_filter

from adaptbench.attacks import list_attacks, load_attack
from adaptbench.attacks.constraints import Unbounded
from adaptbench.attacks.corruptions import Blur, Brightness, Contrast, Jpeg
from adaptbench.errors import RecipeError

CORRUPTIONS = ("blur", "contrast", "brightness", "jpeg")


def pictures(channels=3, n=3, side=12):
    draw = torch.Generator().manual_seed(channels)
    smooth = torch.nn.functional.interpolate(torch.rand(n, channels, 4, 4, generator=draw), size=side, mode="bilinear")
    return (smooth * 255).round() / 255


def corrupted(kind, x):
    return kind.draw(x, Unbounded(), torch.zeros_like(x))


@pytest.mark.parametrize("severity", range(1, 6))
def test_blur_is_scipys(severity):
    x = pictures()
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    theirs = gaussian_filter(x.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    np.testing.assert_allclose(corrupted(Blur(severity), x).numpy(), theirs, atol=1e-6)


def test_brightness_is_a_value_in_hsv():
    x = pictures()
    x[0, :, 0, 0] = 0.0
    ours = corrupted(Brightness(4), x)
    for n, row, column in ((0, 0, 0), (0, 3, 5), (1, 7, 2), (2, 11, 11)):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[n, :, row, column].tolist())
        wanted = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1.0))
        assert ours[n, :, row, column].tolist() == pytest.approx(wanted, abs=1e-5)


def test_contrast_keeps_the_mean():
    x = pictures()
    ours = corrupted(Contrast(5), x)
    torch.testing.assert_close(ours.mean((2, 3)), x.mean((2, 3)))
    torch.testing.assert_close(ours.std((2, 3)), 0.15 * x.std((2, 3)))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_jpeg_comes_back_near_what_it_was(channels):
    x = pictures(channels, side=16)
    near, far = (float((corrupted(Jpeg(severity), x) - x).abs().mean()) for severity in (1, 5))
    assert 0 < near < far < 0.1


@pytest.mark.parametrize("kind", [Blur, Contrast, Brightness])
def test_a_severity_is_more_than_the_one_below(kind):
    x = pictures()
    sizes = [float((corrupted(kind(severity), x) - x).abs().mean()) for severity in range(1, 6)]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0


def test_severities_are_one_to_five():
    for severity in (0, 6, 2.5, True):
        with pytest.raises(RecipeError, match="severity"):
            load_attack("corruption-blur", {"severity": severity})


def test_one_colour_is_a_samples_own_and_all_over():
    model, x = random_model("gated"), torch.rand(6, 1, 6, 6).mul(255).round() / 255
    crafted = load_attack("uniform-colour").craft(model, x, torch.zeros(6, dtype=torch.int64))
    assert (crafted.x_adv == crafted.x_adv[:, :, :1, :1]).all()
    assert len(crafted.x_adv[:, 0, 0, 0].unique()) > 3


def test_gaussian_noise_has_the_norm_it_is_set_to_and_a_bell():
    from scipy.stats import kurtosis

    model, x = random_model("dag"), torch.full((40, 1, 6, 6), 128 / 255)
    y = torch.zeros(40, dtype=torch.int64)
    crafted = load_attack("noise-gaussian", {"eps": 0.8}).craft(model, x, y)
    assert 0.78 < float(crafted.l2.min()) <= float(crafted.l2.max()) <= 0.8 + 1e-6
    assert abs(kurtosis((crafted.images() - x).flatten())) < 0.5
    wide = load_attack("noise-gaussian", {"constraint": {"linf": {"eps": "32/255"}}}).craft(model, x, y)
    assert float(wide.linf.min()) == pytest.approx(32 / 255)


def test_a_random_patch_is_as_large_as_the_optimised_one():
    model, x = random_model("cascade"), torch.full((20, 1, 6, 6), 1.0)
    y = torch.zeros(20, dtype=torch.int64)
    control = load_attack("patch-random", {"side": 3}).craft(model, x, y)
    assert control.details["pixels_changed_mean"] > 8.5
    assert 60 < control.x_adv[:, 0, :3, :3].float().std() < 90
    assert load_attack("patch-random").settings["area"] == load_attack("universal-patch").settings["area"]


def test_controls_are_controls():
    kinds = {line.name: (line.kind, line.access) for line in list_attacks()}
    names = ["noise-gaussian", "uniform-colour", "patch-random", *(f"corruption-{kind}" for kind in CORRUPTIONS)]
    assert {kinds[name] for name in names} == {("control", "none")}
    assert "Pillow" in load_attack("corruption-jpeg").versions
    assert "Pillow" not in load_attack("corruption-blur").versions
