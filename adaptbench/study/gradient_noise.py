"""How noisy REINFORCE's gradient is beside the exact one, on the same selection modules and samples."""

from __future__ import annotations

import torch

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.policies.gates.learned_cascade import LearnedCascade, stage_losses
from adaptbench.policies.gates.selection_module import Estimator, cascade_objective

DRAWS = 200
"""Minibatches whose gradients are drawn."""


def gradient_noise(
    log: CalibrationLog, *, price: float, draws: int = DRAWS, batch: int = 128, steps: int = 100, seed: int = 0
) -> dict[str, float]:
    """Variance of both estimators of ∇φ J (Guan et al. 2018) at one point of training.

    At modules fitted for `steps` steps, the gradient of one minibatch is drawn many times: by the exact sum, which
    varies with the minibatch only, and by REINFORCE with the mean reward under π as baseline, which varies with the
    stops drawn as well.

    Args:
        log: calibration log of a cascade. price: λ. draws: minibatches. batch: samples in each.

    Returns:
        price; for each estimator the trace of its covariance over the squared norm of the full gradient; their ratio;
        the cosine between REINFORCE's mean and the full gradient.
    """
    policy = LearnedCascade.fit(log, price=price, steps=steps, seed=seed).requires_grad_(True)
    costs = (log.exit_costs / log.node_costs[-1]).float()
    losses = stage_losses(log.logits, log.labels, "zero-one")
    generator = torch.Generator().manual_seed(seed)

    def gradient(rows: torch.Tensor, estimator: Estimator) -> torch.Tensor:
        objective = cascade_objective(
            policy.stop_probabilities(log.logits[rows]),
            losses[rows],
            costs,
            price=price,
            estimator=estimator,
            generator=generator,
        )
        parts = torch.autograd.grad(objective, list(policy.parameters()))
        return torch.cat([p.flatten() for p in parts]).double()

    with torch.enable_grad():
        whole = gradient(torch.arange(len(log)), "exact")
        picks = [torch.randint(len(log), (batch,), generator=generator) for _ in range(draws)]
        exact = torch.stack([gradient(rows, "exact") for rows in picks])
        drawn = torch.stack([gradient(rows, "reinforce") for rows in picks])
    scale = float(whole.square().sum().clamp_min(1e-30))
    noise = [float((g - g.mean(0)).square().sum(1).mean()) / scale for g in (exact, drawn)]
    cosine = torch.nn.functional.cosine_similarity(drawn.mean(0), whole, dim=0)
    return {
        "price": price,
        "exact": noise[0],
        "reinforce": noise[1],
        "ratio": noise[1] / noise[0],
        "cosine": float(cosine),
    }
