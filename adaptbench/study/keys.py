"""Under which keys a graph's figures and windows are kept, and how its net is set up before anything is logged."""

from __future__ import annotations

import torch

from adaptbench.adaptive import DecisionGraph, NeverStop
from adaptbench.attacks.identity import foreign_sources, own_code
from adaptbench.experiment.environment import describe_device, versions
from adaptbench.experiment.keys import split_hash
from adaptbench.registry import POLICIES
from adaptbench.study.fits import key_of, study_code
from adaptbench.study.logs import log_key
from adaptbench.study.plan import PlannedGraph
from adaptbench.study.schema import Study, registry_name

_TOLD_ONLY = {"title", "cite", "published", "notes", "graphs", "measure", "limit", "gate"}
"""Keys of a study that no figure of a graph hangs on; its own graph, its clock and its samples are added one by one."""


def set_up(model: DecisionGraph, device: str) -> None:
    """A net without a policy of its own, laid out for the device; the logits that its log's key holds are of this."""
    model.policy = NeverStop()
    if device == "cpu":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast there


def content_key(spec: Study, planned: PlannedGraph, device: str) -> str:
    """Hash of all that a graph's figures hang on, the clock apart; its net is set up."""
    model, splits = planned.model, planned.splits
    names = [*spec.policies, *(spec.resplits.policies if spec.resplits else [])]
    names += [spec.online.base] if spec.online else []
    return key_of(
        {
            "study": spec.model_dump(mode="json", exclude=_TOLD_ONLY),
            "graph": planned.graph.model_dump(mode="json", exclude={"title"}),
            "logs": {role: log_key(model, split, device) for role, split in splits.items()},
            "samples": {role: split_hash(split) for role, split in splits.items()},
            "macs": [float(model.macs_full), list(model.node_macs), list(model.reference)],
            "hand_overs": [list(ways) for ways in model.structure.successors],
            "code": [
                own_code(),
                study_code(),
                foreign_sources({POLICIES.load(registry_name(name)) for name in names}),
            ],
            "versions": versions(),
        }
    )


def clock_key(spec: Study, content: str, device: str) -> str:
    """The same, and the device and protocol of timing. content: the graph's."""
    measure = spec.measure.model_dump(mode="json") if spec.measure else None
    return key_of({"graph": content, "measure": measure, "device": describe_device(device)})
