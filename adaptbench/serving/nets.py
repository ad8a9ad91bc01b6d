"""The nets of a file, ready to be served: under their policies, with what their samples and the attacker's do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import DecisionGraph, GatedNetwork, Split
from adaptbench.adaptive.pixels import refuse_pixels
from adaptbench.bench.entries import Fitting
from adaptbench.bench.evaluate import sample_seeds
from adaptbench.bench.runner import run_suite
from adaptbench.bench.suite import checked as checked_suite
from adaptbench.data import load_data
from adaptbench.errors import CapabilityError, RunError, SuiteError, UsageError
from adaptbench.experiment.engines import Local, engine_of
from adaptbench.experiment.keys import digest_of, model_hash, split_hash
from adaptbench.experiment.options import Options
from adaptbench.results.store import Run
from adaptbench.serving.blocks import refuse_queues
from adaptbench.serving.schema import Hostile
from adaptbench.serving.spec import CRAFTED_AS, LoadedServing, crafting_source
from adaptbench.serving.ways import Executed, Servable, executed
from adaptbench.zoo.factories import load_net

ATTACKED = "attacked"
"""Folder of the run that crafts what hostile requests bring, inside the directory."""
_OFTEN_ENOUGH = 0.995
"""Of the rows: decisions nearer to a tie than rounding may fall the other way."""


@dataclass(slots=True)
class Net:
    """One model.

    Args:
        label: in case names. model: under its policy. card: of its weights. sha256: of both.
        attacked: (n, …) inputs of the split's samples, attacked; None where nobody attacks it, and why.
        clean, hostile: the ways of both.
    """

    label: str
    model: Servable
    card: dict[str, Any]
    sha256: str
    attacked: Tensor | None = None
    no_attack: str = "the file names no hostile requests"
    clean: Executed | None = None
    hostile: Executed | None = None

    def run_through(self, split: Split, device: str) -> None:
        """Execute every sample, and every attacked one."""
        seeds = sample_seeds(split.ids, 0)
        self.clean = executed(self.model, split.x, split.y, seeds, device)
        if self.attacked is not None:
            self.hostile = executed(self.model, self.attacked, split.y, seeds, device)

    @property
    def ways(self) -> Executed:
        """Of the clean samples; `run_through` has been called."""
        assert self.clean is not None
        return self.clean


@dataclass(slots=True)
class ServingPlan:
    """What a file will do.

    Args:
        loaded: the file. split: samples that come as requests. nets: in its order. notes: what data sets say.
        limit: test samples at most. crafted_by: the run that attacked inputs come from, as it is told.
    """

    loaded: LoadedServing
    split: Split
    nets: list[Net]
    notes: tuple[str, ...]
    limit: int | None
    crafted_by: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of nets, samples and what attacked inputs are made from; not of the file's other keys."""
        hostile = self.loaded.serving.hostile
        told = None if hostile is None else hostile.model_dump(include={"run", "condition", "attack"})
        return digest_of([[net.sha256 for net in self.nets], split_hash(self.split), told, self._of_the_run()])

    def _of_the_run(self) -> str:
        hostile = self.loaded.serving.hostile
        if hostile is None or hostile.run is None:
            return ""
        return hashlib.sha256((Path(hostile.run) / "manifest.json").read_bytes()).hexdigest()


def make_plan(loaded: LoadedServing, options: Options) -> ServingPlan:
    """Load data and nets; nothing is crafted yet, but what a run holds is looked for.

    Raises:
        UsageError: an engine other than this process.
        SuiteError: a gated net in queues or under a budget, or one that looks at labels, with file and line.
        DataMissingError, CheckpointError, RunError: what the file needs is not there.
    """
    if engine_of(options).name != Local.name:
        raise UsageError(
            f"the engine '{options.engine}' was asked for, and a suite of kind serving runs here.",
            why="Its node times are this device's, and its streams follow from them.",
            todo="Leave --engine out.",
        )
    spec, limit = loaded.serving, options.at_most(loaded.serving.limit)
    data = load_data(spec.data, root=options.data_root, download=options.download)
    split = data.split("test").first(limit)
    fitting = Fitting(lambda: data.split("calibration"), spec.seed, {})
    loads: dict[str, Any] = {}
    nets = []
    for i, entry in enumerate(spec.models):
        if entry.net not in loads:
            loads[entry.net] = load_net(entry.net, data.name, options, loaded.located.folder)
        with loaded.located.placed(("models", i)):
            refuse_pixels(loads[entry.net].model, "a simulation of serving")
            under = fitting.apply(entry, loads[entry.net])
            nets.append(Net(entry.label, _servable(under.model, entry.label), under.card, model_hash(under.model)))
            budget = spec.hostile is not None and spec.hostile.budget is not None
            refuse_queues(under.model, entry.label, spec.batching.modes, budget=budget)
            if under.model.front is not None and "queues" in spec.batching.modes:
                raise CapabilityError(
                    f"'{entry.label}' stands behind a defence in front, which runs before any line.",
                    todo="Serve it in batches: batching: {modes: [batches]}.",
                )
    plan = ServingPlan(loaded, split, nets, tuple(getattr(data, "notes", ())), limit)
    if spec.hostile is not None and spec.hostile.run is not None:
        with loaded.located.placed(("hostile",)):
            _from_run(plan, spec.hostile)
    return plan


def _servable(model: Any, label: str) -> Servable:
    if not isinstance(model, DecisionGraph | GatedNetwork) or "queues" not in model.modes:
        raise CapabilityError(
            f"'{label}' leaves by tokens, or has a pass of its own: it has no nodes that could be timed one by one.",
            why="What a call takes hangs on more than how many rows run which node.",
            todo="Serve a net with exits, a cascade, a gated net, or a plain one.",
        )
    if model.needs_labels:
        raise CapabilityError(f"'{label}' looks at labels, which no request brings.", todo="Leave it out.")
    return model


# ---------------------------------------------------------------------- attacked inputs


def _from_run(plan: ServingPlan, hostile: Hostile) -> None:
    """Attacked inputs that a run crafted; samples that it did not attack are left out of the split.

    Raises:
        RunError: it has none of this condition, or of another net. SuiteError: none of these nets.
    """
    run, split = Run.open(str(hostile.run)), plan.split
    found = {net.label: _case(run, net.label, str(hostile.condition)) for net in plan.nets}
    held = {label: run.crafted(case["crafted"]) for label, case in found.items() if isinstance(case, dict)}
    if not held:
        raise RunError(
            f"{hostile.run}: nothing in it was crafted by '{hostile.condition}' on {', '.join(found)}.",
            todo="Name a run that attacked these models, and the condition as that run calls it.",
        )
    ids = [
        sample for sample in split.ids.tolist() if all(sample in set(h["sample_id"].tolist()) for h in held.values())
    ]
    if not ids:
        raise RunError(f"{hostile.run}: it attacked none of these test samples.", todo="Name another run.")
    rows = torch.tensor([split.ids.tolist().index(sample) for sample in ids])
    plan.split = replace(split, x=split.x[rows], y=split.y[rows], ids=split.ids[rows], sha256="")
    for net in plan.nets:
        case = found[net.label]
        if isinstance(case, str):
            net.no_attack = case
            continue
        place = {sample: i for i, sample in enumerate(held[net.label]["sample_id"].tolist())}
        net.attacked = torch.from_numpy(held[net.label]["x_adv"][[place[sample] for sample in ids]])
        _is_that_net(run, case, net, ids)
    plan.crafted_by = {"run": str(hostile.run), "condition": str(hostile.condition)}


def _case(run: Run, label: str, condition: str) -> dict[str, Any] | str:
    """The case that crafted for a model, or why there is none."""
    cases = [c for c in run.cases if c["model"] == label and c["condition"] == condition and c.get("crafted")]
    return cases[0] if cases else f"the run did not attack it by '{condition}'"


def _is_that_net(run: Run, case: Mapping[str, Any], net: Net, ids: list[int]) -> None:
    """Refuse pictures that were crafted on another net of the same name."""
    assert net.attacked is not None
    rows = run.samples([case["evaluation"]]).set_index("sample_id").loc[ids]
    seeds = sample_seeds(torch.tensor(ids), int(case.get("seed") or 0))
    spent = executed(net.model, net.attacked, torch.from_numpy(rows["label"].to_numpy().copy()), seeds, "cpu").macs
    same = float((spent.numpy() == rows["macs"].to_numpy()).mean())
    if same < _OFTEN_ENOUGH:
        raise RunError(
            f"{run.path}: {1 - same:.1%} of the rows of {case['evaluation']} say other MACs than this net spends.",
            why="What one net's inputs cost another net is no figure of this one.",
            todo="Name the --zoo and --data-root that the run was made with, or run it again.",
        )


def craft(plan: ServingPlan, place: Path, options: Options) -> None:
    """Craft what hostile requests bring, as an ordinary run inside the directory; a finished one is not done again.

    Args:
        plan: whose nets get their attacked inputs. place: the directory. options: of the run.

    Raises:
        SuiteError: the attack could be run on none of the nets.
    """
    spec = plan.loaded.serving
    if spec.hostile is None or spec.hostile.attack is None:
        return
    models = [entry.model_dump(mode="json") for entry in spec.models]
    source = crafting_source(spec.data, plan.loaded.name, models, spec.hostile)
    folder = plan.loaded.located.folder
    suite = checked_suite(source if folder is None else replace(source, folder=folder))
    run = run_suite(suite, replace(options, overrides=(), out=place / ATTACKED, limit=plan.limit, fresh=False))
    for net in plan.nets:
        case = _case(run, net.label, CRAFTED_AS)
        if isinstance(case, str):
            said = [note for note in run.manifest["notes"] if net.label in note and CRAFTED_AS in note]
            net.no_attack = said[0] if said else "the attack does not apply to it"
        else:
            net.attacked = torch.from_numpy(run.crafted(case["crafted"])["x_adv"].copy())
    if all(net.attacked is None for net in plan.nets):
        raise SuiteError(
            f"{plan.loaded.located.where(('hostile', 'attack'))}: the attack applies to none of these models.",
            todo="Name a net that decides by a policy, or leave `hostile` out.",
        )
    plan.crafted_by = {"run": ATTACKED, "condition": CRAFTED_AS}
