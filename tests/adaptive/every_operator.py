"""Run torch's own sample inputs of every operator under the counter; print what no formula covered, as JSON.

A process of its own: torch's test utilities switch global flags for good when they are imported.
"""

from __future__ import annotations

import json
import sys
import types
import unittest
import warnings

import torch

from adaptbench.adaptive.counting import counting

SAMPLES = 3
CUDA_ONLY = "jiterator"


def main() -> None:
    warnings.simplefilter("ignore")
    stub = types.ModuleType("expecttest")  # torch's test utilities want its base class, and nothing else here
    stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    sys.modules.setdefault("expecttest", stub)
    from torch.testing._internal.common_methods_invocations import op_db

    uncounted: dict[str, list[str]] = {}
    ran = 0
    for op in op_db:
        kinds = [torch.float32] if torch.float32 in op.dtypes else sorted(op.dtypes, key=str)[:1]
        if op.name.startswith(CUDA_ONLY):
            continue
        for kind in kinds:
            for _, sample in zip(range(SAMPLES), op.sample_inputs("cpu", kind), strict=False):
                with counting() as counter:
                    op(sample.input, *sample.args, **sample.kwargs)
                ran += 1
                for name in counter.uncounted:
                    uncounted.setdefault(name, []).append(op.name)
    print(json.dumps({"ran": ran, "uncounted": uncounted}))  # noqa: T201


if __name__ == "__main__":
    main()
