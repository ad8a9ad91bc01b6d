"""The transfer matrix of a suite: what was crafted on each model, judged on all the others; nothing is crafted anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

from adaptbench.attacks.base import one_path
from adaptbench.errors import CapabilityError
from adaptbench.experiment.keys import digest_of, evaluation_key, model_hash
from adaptbench.results.identity import carried_id, evaluation_id

if TYPE_CHECKING:
    from adaptbench.bench.plan import Evaluation, Plan
    from adaptbench.bench.suite import Suite

Skipped = tuple[str, str, str]


def carried(suite: Suite, planned: Sequence[Evaluation], device: str) -> tuple[list[Evaluation], list[Skipped]]:
    """An evaluation for each pair of models and each condition of the suite's ``transfer``, for each seed.

    Args:
        planned: evaluations of the models themselves. device: as of the plan.

    Returns:
        Evaluations with a `source`, and pairs whose pictures are of different kinds, as (model, condition, reason);
        where a condition means nothing on one of the two models, that model's own line says it.
    """
    own = {(e.entry.label, e.condition.id, e.seed): e for e in planned}
    found: list[Evaluation] = []
    missing: dict[tuple[str, str], str] = {}
    for seed in suite.seeds:
        for condition in suite.transfer:
            for source_label, label in permutations(suite.labels, 2):
                source, judged = own.get((source_label, condition, seed)), own[label, "clean", seed]
                name = carried_id(condition, source_label)
                if source is None or one_path(judged.model):
                    continue
                if source.model.domain != judged.model.domain:
                    missing[label, name] = f"pictures are of {source.model.domain}, it takes {judged.model.domain}"
                else:
                    found.append(_carried(source, judged, name, device, suite.chunk))
    return found, [(model, name, reason) for (model, name), reason in missing.items()]


def _carried(source: Evaluation, judged: Evaluation, name: str, device: str, chunk: int) -> Evaluation:
    split, model = source.split, judged.loaded.name
    key = evaluation_key(
        [split.name, model, name, source.key],
        judged.model,
        split,
        source.attack,
        source.model,
        seed=source.seed,
        device=device,
        chunk=chunk,
    )
    return replace(
        source,
        id=evaluation_id(split.name, model, name, seed=source.seed),
        kind="transfer",
        entry=judged.entry,
        loaded=judged.loaded,
        condition=source.condition.model_copy(update={"id": name}),
        key=key,
        source=source,
    )


def surrogate_of(plan: Plan, evaluation: Evaluation) -> dict[str, str]:
    """For the record: the model that inputs were crafted on, where it is not the judged one."""
    if evaluation.source is not None:
        return {"surrogate": evaluation.source.loaded.name, "surrogate_sha256": model_hash(evaluation.source.model)}
    name = evaluation.attack.surrogate if evaluation.attack is not None else None
    return {} if name is None else {"surrogate": name, "surrogate_sha256": model_hash(plan.surrogates[name])}


def attack_sha256(evaluation: Evaluation, hashes: Mapping[str, str | None]) -> str | None:
    """What an evaluation's attack does; of one that was crafted elsewhere, with the hash of the model there.

    Args:
        hashes: of the suite's own conditions, by id.
    """
    if evaluation.source is None:
        return hashes.get(evaluation.condition.id)
    return digest_of([hashes[evaluation.source.condition.id], model_hash(evaluation.source.model)])


def require(source: Evaluation, failed: bool) -> None:
    """Refuse to judge pictures that were not made.

    Raises:
        CapabilityError: the case that should have crafted them failed.
    """
    if failed:
        raise CapabilityError(
            f"its pictures are those of {source.id}, which failed.", todo="The same command tries both again."
        )
