"""One call from a net and pictures to an audit: checks, the bench, checks again, figures, a bundle."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptbench.adaptive import AdaptiveModel, Policy, Split
from adaptbench.adaptive.pixels import refuse_pixels
from adaptbench.auditing import bundle, kept, plain, shown
from adaptbench.auditing.asked import FILE, attacks_of, recipes_into, suite_of
from adaptbench.auditing.checks import checks_of, left_in_train_mode
from adaptbench.auditing.findings import Check, at_rest
from adaptbench.auditing.grounds import Ground, ground_of, ground_of_model, reach_of
from adaptbench.auditing.summary import SCHEMA, summary_of
from adaptbench.auditing.target import Pictures, Target, own_data, target_of
from adaptbench.bench.entries import put_under
from adaptbench.bench.plan import Given, Plan, make_plan
from adaptbench.bench.runner import carry_out
from adaptbench.data import load_data
from adaptbench.data.base import DataSet
from adaptbench.errors import CapabilityError, OutputError, RunError, UsageError
from adaptbench.experiment.environment import check_device
from adaptbench.experiment.options import Options
from adaptbench.experiment.progress import Progress, Silent
from adaptbench.report.page import write_report
from adaptbench.results.files import read_json, write_bytes, write_json, write_text
from adaptbench.results.schema import Record
from adaptbench.results.statistics import Estimate
from adaptbench.results.store import Run

LIMIT = 200
"""Pictures, unless said otherwise."""


class Kept:
    """A temporary directory that goes when nobody has the audit any more."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="adaptbench-audit-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Audit:
    """A finished audit. ``print(audit)`` gives the table.

    Args:
        path: its bundle. summary: parsed ``summary.json``.
    """

    path: Path
    summary: dict[str, Any]
    _kept: Kept | None = field(default=None, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> Audit:
        """Open a bundle; `adaptbench.verify` says whether what stands in it holds.

        Raises:
            RunError: it is no bundle, or of another schema.
        """
        place = Path(path)
        if not (place / bundle.SUMMARY).is_file():
            raise RunError(
                f"{place}: no {bundle.SUMMARY} in it: not the bundle of an audit.",
                todo="Name a directory that `adaptbench audit` left behind.",
            )
        summary = read_json(place / bundle.SUMMARY)
        if not isinstance(summary, dict) or summary.get("kind") != "audit" or summary.get("schema") != SCHEMA:
            raise RunError(
                f"{place / bundle.SUMMARY}: not the summary of an audit of schema {SCHEMA}.",
                todo="Name the bundle itself, or open it with the adaptbench that wrote it.",
            )
        return cls(place, summary)

    @property
    def figures(self) -> dict[str, Any]:
        """Everything that is claimed; see `results.audits.audit_figures`."""
        figures: dict[str, Any] = self.summary["figures"]
        return figures

    @property
    def recovery(self) -> Estimate:
        """What the worst attack takes back, against the structural maximum: ``.low``, ``.value``, ``.high``.

        Raises:
            CapabilityError: there is no such figure; the message says why.
        """
        return self._estimate("recovery")

    @property
    def recovery_seen(self) -> Estimate:
        """The same against the dearest cost that any input had.

        Raises:
            CapabilityError: as `recovery`.
        """
        return self._estimate("recovery_seen")

    @property
    def accuracy(self) -> Estimate:
        """On clean pictures."""
        return self._estimate("accuracy")

    @property
    def saving(self) -> Estimate:
        """Of the static net's MACs, on clean pictures."""
        return self._estimate("saving")

    @property
    def checks(self) -> list[Check]:
        """All of them, in order."""
        return [Check(**found) for found in self.summary["checks"]]

    @property
    def doubts(self) -> list[Check]:
        """Those that found something."""
        return [check for check in self.checks if check.level != "ok"]

    @property
    def trusted(self) -> bool:
        """False where a check says that the figures cannot be."""
        return all(check.level != "cannot be trusted" for check in self.checks)

    def run(self) -> Run:
        """The bench's run: records, rows, crafted pictures."""
        return Run.open(self.path / bundle.RUN)

    def save(self, place: str | Path) -> Path:
        """Copy the bundle.

        Raises:
            OutputError: the place holds something else.
        """
        target = Path(place)
        if target.resolve() == self.path.resolve():
            return target
        if target.exists() and any(target.iterdir()):
            raise OutputError(
                f"{target}: the directory is not empty.",
                why="The bundle's hashes are over every file in it.",
                todo="Name a new or empty directory.",
            )
        shutil.copytree(self.path, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".lock"))
        return target

    def _estimate(self, name: str) -> Estimate:
        told = self.figures[name]
        if told is None:
            reasons = [str(check) for check in self.doubts] or ["every clean input already costs the maximum"]
            raise CapabilityError(f"this audit has no {name.replace('_', ' ')}: {'; '.join(reasons)}.")
        low, high = told["low"], told["high"]
        return Estimate(
            told["value"],
            -np.inf if low is None else low,
            np.inf if high is None else high,
            0.95,
            self.figures["n"],
            "see AUDIT.md",
        )

    def __str__(self) -> str:
        return shown.whole(self.summary)


def audit(
    model: str | AdaptiveModel,
    data: str | Split | Pictures,
    *,
    policy: str | Mapping[str, Any] | Policy | None = None,
    defence: str | Mapping[str, Any] | None = None,
    attacks: str | Sequence[str] | None = None,
    eps: float | str | None = None,
    share: float | str | None = None,
    limit: int = LIMIT,
    seed: int = 0,
    out: str | Path | None = None,
    allow_imports: bool = False,
    device: str | None = None,
    data_root: Path | None = None,
    download: bool = False,
    zoo: Path | None = None,
    command: str = "",
    on_progress: Progress | None = None,
) -> Audit:
    """Audit an adaptive net: can its figures be trusted, and how much of its saving can be taken back?

    Args:
        model: a net; a registered name; or ``package.module:factory``, ``./file.py:factory``.
        data: a data set's name, a test split, (inputs, labels), or a torch `Dataset` or `DataLoader`: pictures, token
            ids (N, L), or series (N, C, T).
        policy: to put the net under: a policy, its name, or its name with the settings of its fit, as suites have it.
        defence: to put the net behind: its name, or its name with settings; attacks know it, checks look at it.
        attacks: recipes; ``standard`` is run twice, free and with every answer kept. None: ``standard`` of pictures,
            ``words`` and ``words-black-box`` of texts, ``series`` of series.
        eps: of the L∞ ball: of pictures in [0, 1] pixel units or as "8/255", that unless said; of series in their
            own unit. share: of a text's words that may be edited, a tenth unless said; of the range of a series'
            sensor, 0.02 unless one of the two is said. limit: inputs at most. seed: of everything drawn.
        out: the bundle's directory (default: a temporary one, that `Audit.save` copies).
        allow_imports: a factory's file may be run. device: "cpu", "cuda"; where the net is, unless it is said.
        data_root, download, zoo: where data and checkpoints are. command: for the manifest.
        on_progress: told of each stretch of work.

    Raises:
        UsageError: words that do not fit together, or a factory without `allow_imports`.
        UnknownNameError, SuiteError: no such model, data set, policy or attack.
        CapabilityError: a black box whose cost is metered, or a net that answers every pixel.
        DataMissingError, CheckpointError, OutputError: what is needed is not there, or there is no place to write.
    """
    if isinstance(limit, bool) or limit < 1:
        raise UsageError(f"a limit of {limit} leaves no inputs.", todo="Give 1 or more.")
    until = Kept() if out is None else None
    place = until.path if until is not None else Path(str(out))
    bundle.free_for(place)
    target = target_of(model, _called(data), allow_imports=allow_imports)
    if target.model is not None and target.model.meter is not None:
        raise CapabilityError(
            f"{target.name} tells no MACs: its cost is metered in {target.model.meter.unit}.",
            why="An audit's figures are shares of counted MACs, and verify recomputes them to the last one.",
            todo="Run a suite with black-box and noise on it; its page states the metered cost and its noise.",
        )
    if target.model is not None:
        refuse_pixels(target.model, "an audit")
    if isinstance(policy, Policy):
        target = _under(target, policy)
    where = device or _device_of(target)
    check_device(where)
    loaded = own_data(data, _classes(target)) if not isinstance(data, str) else None
    options = Options(
        out=place / bundle.RUN,
        device=where,
        limit=limit,
        data_root=data_root,
        download=download,
        zoo=zoo,
        command=command,
        progress=on_progress or Silent(),
    )
    given = Given(loaded or load_data(str(data), root=data_root, download=download), target.given)
    ground = ground_of(_test(given.data).x)
    named, reach = attacks_of(attacks, ground), reach_of(ground, eps, share)
    words_of = put_under(None if isinstance(policy, Policy) else policy, defence)
    suite = suite_of(
        net=target.name,
        policy=words_of,
        data=given.data.name if loaded and given.data else str(data),
        attacks=recipes_into(place, named, ground),
        ground=ground,
        reach=reach,
        limit=limit,
        seed=seed,
        given=given.names,
        bundle=place,
    )
    with ExitStack() as rest:
        before = [left_in_train_mode(target.model)] if target.model is not None else []
        if target.model is not None:
            rest.enter_context(at_rest(target.model))
            target.model.to(where)
        plan = make_plan(suite, options, given)
        (found,) = (plan.models[label] for label in plan.suite.suite.labels)
        refuse_pixels(found.model, "an audit")
        _fits(found.model, ground, target, plan)
        options.progress.begin("checking the net", 1)
        before += checks_of(found.model, target, plan.split, seed=seed, device=where)
        options.progress.end()
        run = carry_out(plan, options)
        summary = summary_of(plan, run, target, before, reach, seed, own=loaded)
        if policy is not None:
            summary["model"]["kept_policy"] = kept.keep(place, found.model, _fit_of(found.card))
        return Audit(place, _written(place, summary, plan, own=loaded), until)


def _fit_of(card: Mapping[str, Any]) -> Record:
    """What the card of a net says of its policy's fit; nothing where it was handed over fitted."""
    told = card.get("policy") or {}
    return {name: told[name] for name in ("fitted_on", "fitted_on_sha256", "seed") if name in told}


def _called(data: Any) -> str:
    return data if isinstance(data, str) else getattr(data, "name", "pictures")


def _test(data: DataSet | None) -> Split:
    assert data is not None
    return data.split("test")


def _fits(model: AdaptiveModel, ground: Ground, target: Target, plan: Plan) -> None:
    """Refuse inputs of another kind than the net takes.

    Raises:
        UsageError: they are.
    """
    if ground_of_model(model) is not ground:
        raise UsageError(
            f"{target.name} takes {ground_of_model(model).many}, and '{plan.split.name}' holds {ground.many}.",
            todo="Name a data set of what the net takes, or wrap the net with its own domain=.",
        )


def _classes(target: Target) -> int:
    if target.model is None:
        raise UsageError(
            f"'{target.name}' was named, and the pictures were handed over.",
            why="A registered net is built for a data set, by its name.",
            todo="Name the data set, or hand the net over: ab.load_model(name, data).",
        )
    return target.model.n_classes


def _device_of(target: Target) -> str:
    some = next(target.model.parameters(), None) if target.model is not None else None
    return "cpu" if some is None else str(some.device)


def _under(target: Target, policy: Policy) -> Target:
    from adaptbench.adaptive import DecisionGraph

    if not isinstance(target.model, DecisionGraph):
        raise UsageError(
            "a fitted policy was given beside a net that takes none.",
            todo="Name a policy, or hand over the net under it: net.under(policy).",
        )
    return Target(target.name, target.spec, target.source, target.model.under(policy), None)


def _written(place: Path, summary: Record, plan: Plan, *, own: DataSet | None) -> Record:
    """The bundle's files beside the run; the sums come last."""
    if own is not None:
        from safetensors.numpy import save

        split = plan.split
        arrays = {"x": split.x.numpy(), "y": split.y.numpy(), "ids": split.ids.numpy()}
        write_bytes(place / bundle.INPUTS, save(arrays))
    write_text(place / FILE, plan.suite.text)
    write_report([place / bundle.RUN], place / bundle.PAGE)
    write_json(place / bundle.SUMMARY, summary)
    write_text(place / bundle.WORDS, plain.page(summary))
    bundle.write_sums(place)
    return summary
