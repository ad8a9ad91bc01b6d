"""From a suite to cells: what is evaluated, on which inputs, under which content key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

from adaptbench.adaptive import AdaptiveModel, DecisionGraph, Split
from adaptbench.adaptive.pixels import require_labels_of
from adaptbench.attacks import Attack, load_attack
from adaptbench.bench.conditions import finer_than_data
from adaptbench.bench.crafting import crafting_split
from adaptbench.bench.entries import Entry, Fitting
from adaptbench.bench.kept_logs import KeptLogs
from adaptbench.bench.shift import SHIFT, shifted
from adaptbench.bench.suite import Condition, LoadedSuite, Suite
from adaptbench.bench.surrogates import load_surrogate, why_not
from adaptbench.bench.transfers import carried
from adaptbench.bench.watched import check_watched
from adaptbench.data import load_data
from adaptbench.data.base import DataSet
from adaptbench.errors import AdaptBenchError, CapabilityError, SuiteError
from adaptbench.experiment.keys import evaluation_key
from adaptbench.experiment.options import Options
from adaptbench.experiment.timed import check_modes
from adaptbench.located_yaml import Place
from adaptbench.results.identity import COMPILED, evaluation_id
from adaptbench.zoo.factories import is_factory, load_net
from adaptbench.zoo.loading import Loaded


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model, one knob setting, one condition, one seed.

    Args:
        id: for reading, see `results.identity`. kind: one of `results.schema.KINDS`.
        entry, condition: of the suite. loaded: the model. attack: None for clean. seed: of crafting and drawing.
        split: its inputs. key: hash of everything the outcome hangs on.
        source: the evaluation that crafted its inputs on another model, where one did.
    """

    id: str
    kind: str
    entry: Entry
    loaded: Loaded
    condition: Condition
    attack: Attack | None
    seed: int
    split: Split
    key: str
    knob: str | None = None
    knob_value: float | None = None
    source: Evaluation | None = None

    @property
    def model(self) -> AdaptiveModel:
        """The network."""
        return self.loaded.model

    @property
    def policy(self) -> str:
        """What decides; a reference without a policy of the suite's is told by its name."""
        own = self.kind == "reference" and self.entry.policy is None
        return self.loaded.name if own else self.model.policy_name


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a suite will do.

    Args:
        suite: checked. split: the test pictures that it takes.
        models: by name, references and swept models among them. evaluations: in order.
        attacks: by condition id. surrogates: by name (``sdn``, ``cifar100/sdn``), for transfer attacks.
        skipped: (model, condition id, reason) that do not apply to each other.
        crafting: pictures for attacks that share one change, where there is one.
        data_notes: what the data set says of its files, and what is to be said of attacks on it.
        handed: names of nets and data that were handed over, and have no files.
        logs: that policies were fitted on.
    """

    suite: LoadedSuite
    split: Split
    models: dict[str, Loaded]
    evaluations: tuple[Evaluation, ...]
    attacks: dict[str, Attack]
    surrogates: dict[str, AdaptiveModel]
    skipped: tuple[tuple[str, str, str], ...]
    data_notes: tuple[str, ...] = ()
    crafting: Split | None = None
    handed: frozenset[str] = frozenset()
    logs: KeptLogs | None = None

    @property
    def timed(self) -> tuple[Evaluation, ...]:
        """Evaluations whose inputs are timed and metered."""
        measure = self.suite.suite.measure
        if measure is None:
            return ()
        wanted = measure.conditions
        return tuple(
            e
            for e in self.evaluations
            if e.kind in {"clean", "control", "attack"}
            and e.seed == self.suite.suite.seeds[0]
            and (wanted is None or e.condition.id in wanted)
        )

    def chunk_keys(self, evaluation: Evaluation) -> list[str]:
        """Keys of an evaluation's chunks, in sample order."""
        return [f"{evaluation.key}-{start}" for start in range(0, len(evaluation.split), self.suite.suite.chunk)]

    def clean_of(self, evaluation: Evaluation) -> Evaluation | None:
        """The clean evaluation that a control or an attack is held against; None for the others."""
        if evaluation.attack is None:
            return None
        return next(
            (
                other
                for other in self.evaluations
                if other.kind == "clean"
                and other.condition.id == "clean"
                and other.loaded.name == evaluation.loaded.name
                and other.seed == evaluation.seed
            ),
            None,
        )


@dataclass(frozen=True, slots=True)
class Given:
    """What is handed over as it is, in place of what a registry has under its name.

    Args:
        data: the suite's data set. nets: by the names that the suite has for them.
    """

    data: DataSet | None = None
    nets: Mapping[str, Loaded] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Names that no registry needs to have."""
        return frozenset([*self.nets, *([self.data.name] if self.data is not None else [])])


def make_plan(suite: LoadedSuite, options: Options | None = None, given: Given | None = None) -> Plan:
    """Load data, models and recipes, and lay out the cells.

    Args:
        suite: checked. options: how it is to be run. given: nets and data that are there already.

    Raises:
        SuiteError: a recipe or sweep that does not exist, or a gate that watches nothing, with file and line.
        DataMissingError, CheckpointError: what the suite needs is not there.
    """
    options, given = options or Options(), given or Given()
    spec, device = suite.suite, options.device
    data = given.data or load_data(spec.data, root=options.data_root, download=options.download)
    split = data.split("test").first(options.at_most(spec.limit))
    logs = KeptLogs.at(options.place(suite.name), device, fresh=options.fresh)
    models = _models(suite, data, options, given, logs)
    other_data = partial(load_data, root=options.data_root, download=options.download)
    attacks: dict[str, Attack] = {}
    surrogates: dict[str, AdaptiveModel] = {}
    for i, condition in enumerate(spec.conditions):
        if condition.ref != "clean":
            try:
                attacks[condition.id] = (
                    shifted(condition.settings, data, split.first(condition.limit), other_data)
                    if condition.ref == SHIFT
                    else load_attack(condition.ref, condition.settings)
                )
                if (other := attacks[condition.id].surrogate) and other not in surrogates:
                    surrogates[other] = load_surrogate(other, data.name, options, models, suite.located.folder)
            except AdaptBenchError as error:
                raise SuiteError(
                    f"{suite.located.where(('conditions', i))}: {error.seen}", why=error.why, todo=error.todo
                ) from None
    crafting = crafting_split(data) if any(attack.needs_crafting for attack in attacks.values()) else None
    planned: list[Evaluation] = []
    skipped: list[tuple[str, str, str]] = []
    clean = Condition(id="clean", ref="clean")
    for seed in spec.seeds:
        for entry in spec.models:
            name = entry.label
            for condition in spec.conditions:
                if condition.models is not None and name not in condition.models:
                    continue
                attack = attacks.get(condition.id)
                other_model = surrogates.get(attack.surrogate or "") if attack else None
                model = models[name].model
                if attack and (reason := why_not(attack, entry.net, model, data.name, other_model)):
                    if seed == spec.seeds[0]:
                        skipped.append((name, condition.id, reason))
                    continue
                kind = attack.kind if attack else "clean"
                planned.append(
                    _evaluation(
                        kind,
                        entry,
                        models[name],
                        condition,
                        attack,
                        seed,
                        split,
                        device,
                        spec.chunk,
                        other_model,
                        crafting=crafting,
                    )
                )
    over, not_over = carried(spec, planned, device)
    planned += over
    skipped += not_over
    planned += [
        _evaluation("reference", entry, models[entry.label], clean, None, spec.seeds[0], split, device, spec.chunk)
        for entry in spec.references
    ]
    for name, values in spec.sweeps.items():
        planned.extend(_sweep(suite, name, models[name], values, split, device))
    check_watched(suite, planned)
    return Plan(
        suite,
        split,
        models,
        tuple(planned),
        attacks,
        surrogates,
        tuple(skipped),
        (*getattr(data, "notes", ()), *finer_than_data(attacks, split)),
        crafting,
        given.names,
        logs,
    )


def _models(suite: LoadedSuite, data: DataSet, options: Options, given: Given, logs: KeptLogs) -> dict[str, Loaded]:
    """Every net that the suite names, under its policy, by label."""
    fitting = Fitting(lambda: data.split("calibration"), suite.suite.seeds[0], {}, logs.log)
    nets = dict(given.nets)
    by_label: dict[str, Loaded] = {}
    for label, entry in suite.suite.entries.items():
        if entry.net not in nets:
            with _at(suite, label, is_factory(entry.net)):
                nets[entry.net] = load_net(entry.net, data.name, options, suite.located.folder)
        with suite.located.placed(_place(suite.suite, label)):
            require_labels_of(nets[entry.net].model, data.split("test"))
            by_label[label] = fitting.apply(entry, nets[entry.net])
            if (measure := suite.suite.measure) is not None and label in suite.suite.labels:
                check_modes(by_label[label].model, [mode for mode in measure.modes if mode != COMPILED], label)
    return by_label


def _at(suite: LoadedSuite, label: str, placed: bool) -> AbstractContextManager[None]:
    """Mistakes of a factory have a line in the suite; those of the zoo name files of their own."""
    return suite.located.placed(_place(suite.suite, label)) if placed else nullcontext()


def _place(spec: Suite, label: str) -> Place:
    """Where an entry stands in the file."""
    for key, entries in (("models", spec.models), ("references", spec.references)):
        for i, entry in enumerate(entries):
            if entry.label == label:
                return (key, i)
    return ("sweeps", label)


def _sweep(
    suite: LoadedSuite, name: str, loaded: Loaded, values: list[float], split: Split, device: str
) -> list[Evaluation]:
    spec, entry = suite.suite, suite.suite.entries[name]
    model = loaded.model
    if not isinstance(model, DecisionGraph) or model.policy.knob is None:
        raise SuiteError(
            f"{suite.located.where(('sweeps', name))}: '{name}' has no knob to sweep.",
            todo="Leave it out of sweeps.",
        )
    clean = Condition(id="clean", ref="clean")
    evaluations = []
    for i, value in enumerate(values):
        try:
            policy = model.policy.at(value)
        except AdaptBenchError as error:
            raise SuiteError(
                f"{suite.located.where(('sweeps', name, i))}: {error.seen}", why=error.why, todo=error.todo
            ) from None
        turned = replace(loaded, model=model.under(policy))
        kind = "sweep" if name in spec.labels else "reference"  # a baseline's curve is a reference for all
        evaluations.append(
            _evaluation(
                kind, entry, turned, clean, None, spec.seeds[0], split, device, spec.chunk, None, policy.knob, value
            )
        )
    return evaluations


def _evaluation(
    kind: str,
    entry: Entry,
    loaded: Loaded,
    condition: Condition,
    attack: Attack | None,
    seed: int,
    split: Split,
    device: str,
    chunk: int,
    surrogate: AdaptiveModel | None = None,
    knob: str | None = None,
    value: float | None = None,
    crafting: Split | None = None,
) -> Evaluation:
    part = split.first(condition.limit)
    learned = crafting if attack is not None and attack.needs_crafting else None
    name = evaluation_id(split.name, loaded.name, condition.id, knob=knob, value=value, seed=seed)
    identity = [split.name, loaded.name, condition.id, knob, value]
    key = evaluation_key(
        identity, loaded.model, part, attack, surrogate, seed=seed, device=device, chunk=chunk, crafting=learned
    )
    if loaded.model.needs_labels and attack is not None:
        raise CapabilityError(
            f"'{loaded.name}' looks at labels and cannot be attacked.", todo="List it under references."
        )
    return Evaluation(name, kind, entry, loaded, condition, attack, seed, part, key, knob, value)
