"""Fits that a study keeps between runs, each under a hash of all that it hangs on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptbench.adaptive import CalibrationLog, Policy
from adaptbench.attacks.identity import foreign_sources, own_code
from adaptbench.experiment.environment import versions
from adaptbench.experiment.keys import digest_of
from adaptbench.results.writer import RunWriter


def key_of(content: Mapping[str, Any]) -> str:
    """Name of a cell: a hash of its content key."""
    return digest_of(content)[:32]


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@cache
def study_code() -> str:
    """SHA-256 over this folder: `own_code` leaves it out, since no suite hangs on it."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def log_digest(log: CalibrationLog) -> str:
    """Hash of everything in a log."""
    tensors = {"logits": log.logits, "labels": log.labels, "macs": log.node_macs, "costs": log.node_costs}
    said = [log.split, log.sha256, log.top, log.cost_unit, list(log.structure.names), list(log.structure.successors)]
    return digest_of([tensors_digest(tensors), said])


# ---------------------------------------------------------------------- fits


def fit_key(
    name: str,
    kind: type[Policy],
    fitting: CalibrationLog,
    choosing: CalibrationLog,
    settings: Sequence[float],
    seed: int,
) -> str:
    """Hash of all that a fit hangs on: both parts of the log, settings, seed, the policy's code and versions."""
    return key_of(
        {
            "policy": name,
            "code": [own_code(), foreign_sources({kind})],
            "fitting": log_digest(fitting),
            "choosing": log_digest(choosing),
            "settings": list(settings),
            "seed": seed,
            "versions": versions(),
        }
    )


def keep_fit(
    writer: RunWriter | None, key: str, policies: Sequence[Policy], wanted: Mapping[float, Policy], fit_s: float
) -> None:
    """Keep a family's members as settings and tensors; one that cannot be rebuilt exactly is not kept."""
    if writer is None:
        return
    fits = [*policies, *wanted.values()]
    tensors = {f"{i}.{name}": t for i, policy in enumerate(fits) for name, t in policy.state_dict().items()}
    record = {
        "members": [p.describe() for p in policies],
        "wanted": [[value, p.describe()] for value, p in wanted.items()],
        "fit_s": fit_s,
    }
    try:
        again = _rebuilt(type(fits[0]), json.loads(json.dumps(record, allow_nan=False)), tensors)
        same = all(
            a.describe() == b.describe()
            and a.knob_value == b.knob_value
            and tensors_digest(a.state_dict()) == tensors_digest(b.state_dict())
            for a, b in zip(fits, [*again[0], *again[1].values()], strict=True)
        )
    except Exception:  # a policy that is kept in no checkpoint is fitted again
        return
    if same:
        writer.commit(key, record, tensors={name: t.detach().cpu().numpy() for name, t in tensors.items()})


def kept_fit(
    writer: RunWriter | None, key: str, kind: type[Policy]
) -> tuple[list[Policy], dict[float, Policy], float] | None:
    """The family that an earlier run fitted under this key, the settings wanted besides, and the seconds it took."""
    if writer is None or not writer.has(key):
        return None
    cell = writer.load(key)
    tensors = {name: torch.from_numpy(array) for name, array in (cell.tensors or {}).items()}
    policies, wanted = _rebuilt(kind, cell.record, tensors)
    return policies, wanted, cell.record["fit_s"]


def _rebuilt(
    kind: type[Policy], record: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[list[Policy], dict[float, Policy]]:
    described = [*record["members"], *(settings for _, settings in record["wanted"])]
    policies = []
    for i, settings in enumerate(described):
        own = {n.removeprefix(f"{i}."): t.clone() for n, t in tensors.items() if n.startswith(f"{i}.")}
        policies.append(kind.from_state(settings, own))
    n = len(record["members"])
    return policies[:n], {value: p for (value, _), p in zip(record["wanted"], policies[n:], strict=True)}
