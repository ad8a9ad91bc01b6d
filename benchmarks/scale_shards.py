"""A part of benchmarks/scale.py: what a range of samples costs on a Ray cluster, beside its work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from spending import MIB, spent


def shards() -> dict[str, Any]:
    """What Ray adds to a range of samples: a start once, then so much a piece. Two workers of one core, one machine."""
    import ray
    import torch

    from adaptbench.experiment.engines import Local, Part, Piece
    from adaptbench.experiment.keys import model_hash
    from adaptbench.experiment.on_ray import Ray
    from adaptbench.experiment.options import Options
    from adaptbench.zoo.loading import load_system

    made: dict[str, Any] = {"workers": 2}
    with spent(made, "start"):
        store_bytes = 200 * MIB
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=store_bytes, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    net = load_system("sdn", "cifar10").model
    pictures = torch.zeros(500, 3, 32, 32, dtype=torch.uint8)
    parts = {"net": Part(net, model_hash, what="the net")}
    engine = Ray(Options(engine="ray"))

    def pieces(n: int) -> list[Piece]:
        return [Piece(f"p{i}", 500, sent_back, parts, {"inputs": pictures}) for i in range(n)]

    def of(made_by: Any, n: int) -> Callable[[], int]:
        return lambda: sum(m.get() is not None for m in made_by.each(pieces(n), lambda *_: None))

    with spent(made, "first"):
        assert of(engine, 2)() == 2
    walls = []
    for _ in range(5):
        began = time.perf_counter()
        of(engine, 20)()
        walls.append((time.perf_counter() - began) / 20)
    made |= {"piece_wall_s": sorted(walls)[2], "piece_wall_s_least": min(walls), "piece_bytes": pictures.numel()}
    began = time.perf_counter()
    of(Local(Options()), 20)()
    made["local_piece_wall_s"] = (time.perf_counter() - began) / 20
    engine.close()
    ray.shutdown()
    return made


def sent_back(net: Any, inputs: Any, told: Any) -> Any:
    """500 pictures there and back: what crafting moves, without the crafting."""
    return inputs.clone()
