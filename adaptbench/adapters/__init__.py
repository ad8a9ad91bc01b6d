"""Other people's nets, as they wrote them, in the form that the harness runs."""

from adaptbench.adapters.attaching import attach_exits, fit_heads
from adaptbench.adapters.black_box import BlackBox
from adaptbench.adapters.explanation import ExitExplained, Explanation
from adaptbench.adapters.wrapping import Adapted, from_logits_list, wrap

__all__ = [
    "Adapted",
    "BlackBox",
    "ExitExplained",
    "Explanation",
    "attach_exits",
    "fit_heads",
    "from_logits_list",
    "wrap",
]
