"""adaptbench: do adaptive neural networks save what they promise, and can an attacker take the saving away?

The names below are loaded on first use: importing this package loads no torch.

A model that decides how much to compute, and an attack that takes the saving back:

>>> import adaptbench as ab
>>> model = ab.load_model("softmax-threshold", "digits")
>>> digits = ab.load_data("digits").split("test")
>>> clean = model.infer(digits.images(0, 8))
>>> attacked = ab.attacks.load_attack("ilfo", {"steps": 20}).craft(model, digits.images(0, 8), digits.y[:8])
>>> bool(model.infer(attacked.images()).macs.sum() > clean.macs.sum())
True

A suite or a study, its directory, and the gate between two runs of it:

>>> quick = {"limit": 4, "overrides": ["models=[softmax-threshold]", "conditions=[clean]"]}
>>> before, after = (ab.run("ci", out=name, **quick) for name in ("before", "after"))
>>> ab.Run.open("before").samples()["macs"].shape
(4,)
>>> ab.check(after, before, {"macs_mean": "exact"}).exit_code
0
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from adaptbench.version import __version__ as __version__

if TYPE_CHECKING:
    from adaptbench import attacks, policies
    from adaptbench.adapters import BlackBox, attach_exits, fit_heads, from_logits_list, wrap
    from adaptbench.adaptive import (
        Block,
        Cascade,
        CumulativeHalting,
        DecisionGraph,
        FeedForwardGates,
        GatedNetwork,
        ImageDomain,
        InverseTransformSampling,
        MacCounter,
        MultiExit,
        NetworkDag,
        Node,
        Normalise,
        PixelExits,
        SeriesDomain,
        Split,
        Static,
        TokenDomain,
        TokenNetwork,
        TokenRule,
    )
    from adaptbench.auditing.audit import Audit, audit
    from adaptbench.auditing.verify import verify
    from adaptbench.data import load_data
    from adaptbench.data.own import split
    from adaptbench.errors import AdaptBenchError
    from adaptbench.kinds import run
    from adaptbench.models.blockdrop import PlannedGates as PlanGates
    from adaptbench.models.gated_resnet import RecurrentGates
    from adaptbench.models.vit import SignificantBlock, TokenBlock
    from adaptbench.report.page import write_report
    from adaptbench.results.decoding import DecodingRun
    from adaptbench.results.gate import compare as check
    from adaptbench.results.serving import ServingRun
    from adaptbench.results.store import Run
    from adaptbench.results.studies import StudyRun
    from adaptbench.zoo.loading import load_model


_ADAPTIVE = (
    "Block",
    "Cascade",
    "CumulativeHalting",
    "DecisionGraph",
    "FeedForwardGates",
    "GatedNetwork",
    "ImageDomain",
    "InverseTransformSampling",
    "MacCounter",
    "MultiExit",
    "NetworkDag",
    "Node",
    "Normalise",
    "PixelExits",
    "SeriesDomain",
    "Split",
    "Static",
    "TokenDomain",
    "TokenNetwork",
    "TokenRule",
)
_ADAPTERS = ("BlackBox", "attach_exits", "fit_heads", "from_logits_list", "wrap")
_HOMES = {name: ("adaptbench.adaptive", name) for name in _ADAPTIVE} | {
    **{name: ("adaptbench.adapters", name) for name in _ADAPTERS},
    "Audit": ("adaptbench.auditing.audit", "Audit"),
    "audit": ("adaptbench.auditing.audit", "audit"),
    "PlanGates": ("adaptbench.models.blockdrop", "PlannedGates"),
    "RecurrentGates": ("adaptbench.models.gated_resnet", "RecurrentGates"),
    "AdaptBenchError": ("adaptbench.errors", "AdaptBenchError"),
    "DecodingRun": ("adaptbench.results.decoding", "DecodingRun"),
    "Run": ("adaptbench.results.store", "Run"),
    "ServingRun": ("adaptbench.results.serving", "ServingRun"),
    "StudyRun": ("adaptbench.results.studies", "StudyRun"),
    "check": ("adaptbench.results.gate", "compare"),
    "load_data": ("adaptbench.data", "load_data"),
    "load_model": ("adaptbench.zoo.loading", "load_model"),
    "SignificantBlock": ("adaptbench.models.vit", "SignificantBlock"),
    "TokenBlock": ("adaptbench.models.vit", "TokenBlock"),
    "run": ("adaptbench.kinds", "run"),
    "split": ("adaptbench.data.own", "split"),
    "verify": ("adaptbench.auditing.verify", "verify"),
    "write_report": ("adaptbench.report.page", "write_report"),
}
_MODULES = ("attacks", "policies")

__all__ = [
    "AdaptBenchError",
    "Audit",
    "BlackBox",
    "Block",
    "Cascade",
    "CumulativeHalting",
    "DecisionGraph",
    "DecodingRun",
    "FeedForwardGates",
    "GatedNetwork",
    "ImageDomain",
    "InverseTransformSampling",
    "MacCounter",
    "MultiExit",
    "NetworkDag",
    "Node",
    "Normalise",
    "PixelExits",
    "PlanGates",
    "RecurrentGates",
    "Run",
    "SeriesDomain",
    "ServingRun",
    "SignificantBlock",
    "Split",
    "Static",
    "StudyRun",
    "TokenBlock",
    "TokenDomain",
    "TokenNetwork",
    "TokenRule",
    "attach_exits",
    "attacks",
    "audit",
    "check",
    "fit_heads",
    "from_logits_list",
    "load_data",
    "load_model",
    "policies",
    "run",
    "split",
    "verify",
    "wrap",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"adaptbench.{name}")
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'adaptbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
