"""Gates that `standard` leaves closed, each attacked by itself: how many never open, and what they stand for.

    python benchmarks/gates_alone.py [--systems cifar10/skipnet-rnn,cifar10/blockdrop] [--limit 16] [--eps 8/255]
                                     [--recipe standard] [--run RUN] [--out benchmarks/gates_alone.json]

For each of the first test pictures and each gate that is closed on the clean picture and on that of the recipe, all
steps go to that gate (`adaptbench.attacks.gates_alone`). A system's entry is written when it is done; what is there
already is left, and a file of other settings or code refused. --run takes the recipe's pictures from a finished run, in
the place of crafting them again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from kept import begun, heading, told

import adaptbench as ab
from adaptbench.adaptive import GatedNetwork
from adaptbench.attacks import Attack, load_attack
from adaptbench.attacks.constraints import Linf
from adaptbench.attacks.fractions import parse_fraction
from adaptbench.attacks.gates_alone import SEARCHES, Alone, each_alone
from adaptbench.results.metrics import recovery
from adaptbench.results.store import Run

SYSTEMS = "fashion-mnist/skipnet,cifar10/skipnet-rnn,cifar10/blockdrop"


def dear_pictures(
    model: GatedNetwork, name: str, split: Any, attack: Attack, condition: str, run: Path | None
) -> torch.Tensor:
    """(N, C, H, W) uint8 of the recipe: crafted here, or a run's, if it is of this very attack and these pictures."""
    if run is None:
        return attack.craft(model, split.images(), split.y, ids=split.ids).x_adv
    opened = Run.open(run)
    record = next(c for c in opened.cases if (c["model"], c["condition"]) == (name, condition))
    if record["attack_sha256"] != attack.sha256:
        raise SystemExit(f"{run}: its '{condition}' is another attack than {attack.name} here")
    kept = opened.crafted(record["crafted"])
    if kept["sample_id"][: len(split)].tolist() != split.ids.tolist():
        raise SystemExit(f"{run}: it holds {len(kept['sample_id'])} pictures, and not the first {len(split)}")
    return torch.from_numpy(kept["x_adv"][: len(split)].copy())


def system(name: str, recipe: str, eps: float, limit: int, run: Path | None) -> dict[str, Any]:
    """One net: the recipe on the first test pictures, then every closed gate alone."""
    data_name, model_name = name.split("/")
    model, split = ab.load_model(model_name, data_name), ab.load_data(data_name).split("test").first(limit)
    if not isinstance(model, GatedNetwork):
        raise SystemExit(f"{name} has no gates")
    x, y = split.images(), split.y
    attack = load_attack(recipe, {"eps": eps})
    dear = dear_pictures(model, model_name, split, attack, recipe, run)
    began = time.perf_counter()
    gate_done = lambda d, of: told(f"{name}: gate {d} of {of}")  # noqa: E731
    found = each_alone(model, x, y, dear, Linf(eps), ids=split.ids, on_progress=gate_done)
    return {
        "attack": {"name": attack.name, "sha256": attack.sha256},
        "n": len(x),
        "gates": len(found.macs),
        "min_macs": model.min_macs,
        "max_macs": model.max_macs,
        "block_macs": found.macs.tolist(),
        "open_clean": rows_of(found.clean),
        "open_attacked": rows_of(found.dear),
        "opened_alone": rows_of(found.alone),
        "opened_by": found.by,
        "steps_alone": found.steps,
        "alone_s": round(time.perf_counter() - began, 1),
        **shares(model, x, dear.float() / 255.0, found),
    }


def shares(model: GatedNetwork, x: torch.Tensor, attacked: torch.Tensor, found: Alone) -> dict[str, Any]:
    """What the recipe takes back, and what it would if every gate that ever opened were open, with 95 % intervals."""
    clean, dear = (model.infer(pictures).macs.numpy() for pictures in (x, attacked))
    bound = found.bound(model.min_macs).numpy()
    told = {}
    for key, macs in (("recovery", dear), ("recovery_bound", bound)):
        estimate = recovery(clean, macs, model.max_macs)
        assert estimate is not None
        told[key] = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    closed, left = int((~(found.clean | found.dear)).sum()), int((~found.ever).sum())
    return told | {"pairs": closed, "pairs_never_opened": left}


def rows_of(mask: torch.Tensor) -> list[str]:
    """A picture a line, a digit a gate: 1 is open."""
    return ["".join(str(int(on)) for on in row) for row in mask.tolist()]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", default=SYSTEMS)
    parser.add_argument("--recipe", default="standard")
    parser.add_argument("--eps", default="8/255")
    parser.add_argument("--limit", type=int, default=16)
    parser.add_argument("--run", type=Path, help="a finished run whose pictures of the recipe are taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/gates_alone.json"))
    asked = parser.parse_args()
    eps = float(parse_fraction(asked.eps))
    searches = [f"{name}, {search.steps} steps" for name, search, _ in SEARCHES]
    document = begun(asked.out, heading(recipe=asked.recipe, eps=eps, searches=searches, systems={}))
    for name in asked.systems.split(","):
        if document["systems"].get(name, {}).get("n") != asked.limit:
            document["systems"][name] = system(name, asked.recipe, eps, asked.limit, asked.run)
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
