"""What the classes of torchattacks take and need, since they say it by a traceback or not at all. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adaptbench.attacks.fractions import parse_fraction
from adaptbench.attacks.ranges import number, radius, step_length, whole, within

DEADLINE_S = (0.001, 1e6)
LONGEST = 100_000
_NORMS = {"Linf": "linf", "L2": "l2", "L1": "l1"}
_L2 = {"PGDL2", "PGDRSL2"}

_COUNTS: dict[str, tuple[int, int]] = {
    "steps": (1, LONGEST), "n_restarts": (1, 1000), "restarts": (1, 1000), "eot_iter": (1, 1000),
    "n_queries": (2, 10_000_000), "num_iter_set": (1, LONGEST), "max_iterations": (1, LONGEST),
    "binary_search_steps": (1, 100), "N": (1, 1000), "m": (1, 100), "pixels": (1, 1_000_000), "popsize": (2, 100_000),
    "inf_batch": (1, 1_000_000), "nb_iter": (1, LONGEST), "nb_sample": (1, 1_000_000),
    "max_batch_size": (1, 1_000_000), "noise_batch_size": (1, 10_000), "batch_max": (1, 10_000_000),
    "n_classes": (2, 1_000_000), "len_kernel": (1, 255), "seed": (0, 2**32 - 1),
}  # fmt: skip
_LEAST = {("EADL1", "max_iterations"): (10, LONGEST), ("EADEN", "max_iterations"): (10, LONGEST)}
"""They look at a tenth of their iterations at a time."""
_REALS: dict[str, tuple[float, float]] = {
    "decay": (0, 100), "momentum": (0, 100), "resize_rate": (0.01, 10), "diversity_prob": (0, 1), "std": (0, 10),
    "noise_sd": (0, 10), "scale": (0, 1000), "c": (0, 1e9), "kappa": (0, 1000), "lr": (1e-9, 100),
    "initial_const": (1e-9, 1e9), "beta": (0, 100), "overshoot": (0, 10), "lam": (0.01, 1000), "theta": (-1, 1),
    "gamma": (0, 1), "rho": (0, 1), "alpha_max": (0, 1), "eta": (1, 10), "amplification": (0, 1000), "prob": (0, 1),
    "project_factor": (0, 100), "p_init": (0, 1), "delta": (1e-9, 1), "nsig": (0.01, 100),
    "eps_for_division": (0, 1),
}  # fmt: skip
_CHOICES: dict[str, dict[str, tuple[str, ...]]] = {
    "norm": {"": ("Linf", "L2"), "FAB": ("Linf", "L2", "L1")},
    "loss": {"": ("ce", "dlr"), "UPGD": ("ce", "margin", "dlr"), "Square": ("margin", "ce")},
    "version": {"": ("standard", "plus", "rand")},
    "noise_type": {"": ("guassian", "uniform")},
    "kernel_name": {"": ("gaussian", "linear", "uniform")},
    "pixel_mapping": {"": ("random", "similarity", "similarity_random", "distance", "distance_random")},
}

_THREE_CHANNELS = {"PIFGSM", "PIFGSMPP", "TIFGSM"}
_SQUARE_PICTURES = {"DIFGSM": "resizes", "TIFGSM": "resizes", "Pixle": "takes rows for columns in any but"}
_FOUR_CLASSES = {"APGDT", "AutoAttack"}
"""The targeted loss divides by a difference of the third and fourth largest logit."""


def deadline(value: Any) -> float:
    """Seconds that a craft may take.

    Raises:
        ValueError: (keyword, what it may be).
    """
    try:
        seconds: float = within(*DEADLINE_S)(number(value))
    except ValueError as error:
        raise ValueError("deadline_s", f"seconds, {error}") from None
    return seconds


def checked(name: str, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Keywords as the class takes them.

    Args:
        name: of the class. defaults: of its keywords. given: by the user, all of them keywords of the class.

    Raises:
        ValueError: (keyword, what it may be) of the first that is out of range or of another type.
    """
    norm = norm_of(name, {**defaults, **given})
    taken = {}
    for key, value in given.items():
        try:
            taken[key] = _check(name, key, norm, defaults[key])(value)
        except ValueError as error:
            raise ValueError(key, str(error)) from None
    return taken


def norm_of(name: str, keywords: dict[str, Any]) -> str:
    """What eps of a class is measured in: "linf", "l2" or "l1"."""
    default = "L2" if name in _L2 else "Linf"
    norm = keywords.get("norm", default)
    return _NORMS.get(norm, "linf") if isinstance(norm, str) else "linf"


def _check(name: str, key: str, norm: str, default: Any) -> Callable[[Any], Any]:
    if key == "eps" and default is None:
        return lambda value: value if value is None else radius(norm)(value)
    if key in ("eps", "max_epsilon"):
        return radius(norm)
    if key == "alpha":
        return step_length(norm)
    if key in _CHOICES:
        return _one_of(_CHOICES[key].get(name, _CHOICES[key][""]))
    if key in _COUNTS:
        limits = within(*_LEAST.get((name, key), _COUNTS[key]))
        return lambda value: value if value is None and default is None else limits(whole(value))
    if key in _REALS:
        limits = within(*_REALS[key])
        return lambda value: limits(number(value))
    return _like(default)


def _one_of(words: tuple[str, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return value

    return check


def _like(default: Any) -> Callable[[Any], Any]:
    """A keyword that no table knows: of its default's type."""

    def check(value: Any) -> Any:
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise ValueError("true or false")
        elif isinstance(default, int):
            return whole(value)
        elif isinstance(default, float):
            return number(value)
        elif isinstance(default, str) and not isinstance(value, str):
            raise ValueError("a word")
        elif isinstance(default, list | tuple):
            if not isinstance(value, list | tuple) or len(value) != len(default):
                raise ValueError(f"a list of {len(default)} numbers")
            return [number(v) if isinstance(parse_fraction(v), float) else within(1, 100_000)(whole(v)) for v in value]
        return value

    return check


def why_not(name: str, shape: tuple[int, ...], n_classes: int, keywords: dict[str, Any], given: dict[str, Any]) -> str:
    """Why a class cannot run on a model's pictures, or "".

    Args:
        name: of the class. shape: (C, H, W). keywords: defaults included. given: by the user.
    """
    channels, height, width = shape
    if name in _THREE_CHANNELS and channels != 3:
        return f"{name} filters pictures of three channels, and its inputs have {channels}"
    if name in _SQUARE_PICTURES and height != width:
        return f"{name} {_SQUARE_PICTURES[name]} square pictures, and its inputs are {height} × {width}"
    if name == "TIFGSM" and keywords.get("len_kernel", 15) % 2 == 0:
        return "TIFGSM keeps the size of a picture only with an odd len_kernel"
    asked = given.get("n_classes", n_classes)
    if asked != n_classes:
        return f"n_classes is {asked}, and it tells {n_classes} classes apart"
    if name == "JSMA" and n_classes < 10:
        return f"JSMA aims at the class after the label, modulo 10, and it tells {n_classes} classes apart"
    targeted = name in _FOUR_CLASSES or keywords.get("loss") == "dlr"
    least = 4 if name in _FOUR_CLASSES else 3
    if targeted and n_classes < least:
        return f"{name} compares the {least} largest logits, and it tells {n_classes} classes apart"
    return ""
