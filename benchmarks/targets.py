"""The claims on Fashion-MNIST, recomputed from a run or a committed summary.

    python benchmarks/targets.py [reports/published/fashion-mnist.json]

Paired over the same 10 000 test images; intervals are percentile bootstraps over images (2 000 resamples, fixed seed).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from adaptbench.results.baseline import Baseline
from adaptbench.results.frontier import accuracy_at_cost, share_of_oracle_saving

PUBLISHED = Path(__file__).parent.parent / "reports" / "published" / "fashion-mnist.json"


class Claims:
    """Figures of one baseline."""

    def __init__(self, place: Path) -> None:
        self.kept = Baseline.load(place)
        self.data = next(iter(self.kept.manifest["data"]))
        self.cases = {c["evaluation"]: c for c in self.kept.cases}

    def outcome(self, model: str) -> tuple[np.ndarray, np.ndarray]:
        found = self.kept.samples(f"{self.data}/{model}/clean")
        assert found is not None
        return np.asarray(found.correct, dtype=float), np.asarray(found.macs, dtype=float)

    def curve(self, model: str) -> list[str]:
        labels = dict.fromkeys(c["evaluation"].split("/")[1] for c in self.kept.cases)
        return [label for label in labels if label == model or label.startswith(f"{model}@")]

    def points(self, names: list[str], rows: np.ndarray) -> tuple[list[float], list[float]]:
        found = [self.outcome(name) for name in names]
        return [float(m[rows].mean()) for _, m in found], [float(c[rows].mean()) for c, _ in found]

    def difference(self, a: str, b: str) -> str:
        x, y = self.outcome(a)[0], self.outcome(b)[0]
        rng = np.random.default_rng(0)
        draws = [float((x - y)[rng.integers(0, len(x), len(x))].mean()) for _ in range(2000)]
        low, high = np.quantile(draws, [0.025, 0.975])
        return f"{100 * (x - y).mean():+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"

    def lead(self, model: str, rival: str) -> str:
        """Accuracy of a model minus its rival's at the model's own realised cost."""
        rng = np.random.default_rng(0)
        names = self.curve(rival)
        correct, macs = self.outcome(model)

        def at(rows: np.ndarray) -> float:
            costs, accuracies = self.points(names, rows)
            level = accuracy_at_cost(costs, accuracies, float(macs[rows].mean()))
            return float("nan") if level is None else float(correct[rows].mean()) - level

        every = np.arange(len(correct))
        draws = [at(rng.integers(0, len(correct), len(correct))) for _ in range(400)]
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return f"{100 * at(every):+.2f} points [{100 * low:+.2f}, {100 * high:+.2f}]"

    def share(self, model: str) -> float:
        case = self.cases[f"{self.data}/{model}/clean"]
        return float(case["macs_mean"] / case["macs_full"])


def main() -> None:
    claims = Claims(Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED)
    for model in ("softmax-threshold", "learned-cascade", "dag-selection", "skipnet"):
        against = claims.difference(model, "static")
        print(f"{model:18} {claims.share(model):6.1%} of the static MACs, accuracy against static {against}")
    for rival in ("myopic", "uniform"):
        print(f"dag-selection leads {rival} at equal realised cost by {claims.lead('dag-selection', rival)}")
    mean = {m: float(claims.outcome(m)[1].mean()) for m in ("static", "dag-selection", "oracle")}
    captured = share_of_oracle_saving(mean["dag-selection"], mean["static"], mean["oracle"])
    print(f"share of the oracle's saving: {captured:.1%}")


if __name__ == "__main__":
    main()
