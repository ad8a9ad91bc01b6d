"""The six laws, asked one by one in plain Python: which hold on some pictures, and what was seen where one does not."""

from __future__ import annotations

from torch import Tensor

from adaptbench.adaptive.model import AdaptiveModel
from adaptbench.errors import AdaptBenchError
from adaptbench.testing.models import kit_of

LAWS: dict[str, tuple[str, ...]] = {
    "skipping changes what is paid, not what is answered": (
        "test_it_describes_itself",
        "test_the_hard_pass_is_running_everything_and_choosing_afterwards",
        "test_nobody_writes_into_what_others_read",
        "test_no_sample_touches_another",
        "test_the_order_of_a_batch_does_not_matter",
        "test_calling_the_model_is_inference",
    ),
    "what is skipped does not run": ("test_what_is_skipped_does_not_run",),
    "the path's MACs are those that a counter sees": (
        "test_macs_are_the_sum_over_the_path",
        "test_macs_are_what_the_dispatcher_saw",
        "test_serving_is_the_same_pass",
        "test_the_static_reference_costs_what_it_says",
    ),
    "margins are the hard decisions": (
        "test_margins_have_the_sign_of_the_decisions",
        "test_expected_macs_become_the_executed_ones",
    ),
    "costs stay between cheapest and dearest path": (
        "test_costs_stay_between_the_extremes_and_reach_them",
        "test_paths_cover_every_node_and_are_followed",
    ),
    "a pass leaves the model as it was": ("test_nothing_is_left_changed",),
}
"""Law → the checks of `ModelConformance` that make it up."""


def laws_of(model: AdaptiveModel, x: Tensor) -> dict[str, str | None]:
    """Each law, with what was seen against it; None where it holds.

    Args:
        x: (N, C, H, W) inside the domain; a dozen pictures are enough to see a law broken.
    """
    kit = kit_of(model, x)
    found: dict[str, str | None] = {}
    for law, checks in LAWS.items():
        found[law] = None
        for check in checks:
            try:
                getattr(kit, check)()
            except (AssertionError, AdaptBenchError) as error:
                found[law] = _sentence(error)
                break
            except Exception as error:  # whatever somebody's forward raises
                found[law] = f"{type(error).__name__}: {_sentence(error)}"
                break
    return found


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
