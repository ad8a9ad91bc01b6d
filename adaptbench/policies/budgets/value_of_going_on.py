"""What exact-budget learns before any budget is named: how likely each answer is right, and what going on is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.outcome import Signals
from adaptbench.policies.gates.features import confidence_features, feature_width

_ODDS_RANGE = 20.0
_EARLIER = 6


def history_width(n_classes: int, node: int) -> int:
    """Columns of `history_features`."""
    return feature_width(n_classes) + 3 + (_EARLIER if node else 0)


def history_features(history: Tensor, node: int) -> Tensor:
    """(n, F) of a chain's node: what it shows itself, and how far the earlier nodes would have said the same.

    Log-odds are taken from the logits, so that they keep apart what a saturated softmax no longer does.

    Args:
        history: (n, V, C) logits, filled up to the node.
    """
    logits = history[:, node]
    said = logits.argmax(1, keepdim=True)
    best_two = logits.topk(2, dim=1).values
    odds = _log_odds(logits, said)
    gap = ((best_two[:, :1] - best_two[:, 1:]) / _ODDS_RANGE).clamp(0, 1)
    parts = [confidence_features(Signals(logits)), odds, odds.square(), gap]
    if node:
        earlier = history[:, :node]
        same = torch.cat([_log_odds(earlier[:, j], said) for j in range(node)], 1)
        agree = (earlier.argmax(2) == said).to(logits.dtype)
        likely = earlier.softmax(2).gather(2, said[:, None].expand(-1, node, 1)).squeeze(2)
        parts += [
            same[:, -1:],
            same.mean(1, keepdim=True),
            same[:, -1:] * odds,
            likely.mean(1, keepdim=True),
            agree[:, -1:],
            agree.mean(1, keepdim=True),
        ]
    return torch.cat(parts, 1)


def _log_odds(logits: Tensor, which: Tensor) -> Tensor:
    """(n, 1) log p / (1 − p) of one class a row, over `_ODDS_RANGE`, clamped to ±1."""
    rest = logits.scatter(1, which, -torch.inf).logsumexp(1, keepdim=True)
    return ((logits.gather(1, which) - rest) / _ODDS_RANGE).clamp(-1, 1)


def outcomes_foreseen(node: int, nodes: int) -> tuple[int, ...]:
    """The nodes whose answer is foretold at a node: itself, the next, the last."""
    return tuple(sorted({node, node + 1, nodes - 1}))


def value_basis(odds: Tensor) -> Tensor:
    """(n, 5·J − 1) functions of the foretold log-odds in which the worth of going on is linear.

    Args:
        odds: (n, J), the node's own answer first.
    """
    odds = odds.clamp(-9, 9)
    p = odds.sigmoid()
    own, later = p[:, :1], p[:, 1:]
    return torch.cat([p, odds, odds.square(), own * p, (later - own).clamp_min(0)], 1)


@dataclass(frozen=True, slots=True)
class Crossfit:
    """Folds of the samples. of: (N,) which fold each is in; number: how many."""

    of: np.ndarray
    number: int

    @classmethod
    def drawn(cls, n: int, number: int, seed: int) -> Crossfit:
        """Folds of equal size, by chance."""
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
        return cls(order % number, number)


def soft_correct(log: CalibrationLog) -> Tensor:
    """(N, V) chance that each node's answer is right, given what ALL nodes said: a target with less noise than 0/1.

    The posterior is the softmax of a weighted sum of all nodes' log-probabilities (V weights by maximum likelihood);
    per node a logistic curve of five pieces then maps its mass on the node's answer to the rate of being right, so that
    targets are right on average whatever the posterior is. Labels enter through these 7·V numbers only.
    Of nets that answer every pixel it is the share of right pixels itself, a mean over thousands.
    """
    if log.quality is not None:
        return log.quality.double()
    each = log.logits.log_softmax(2).double()
    weights = torch.full((each.shape[1],), 1.0 / each.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(torch.einsum("nvc,v->nc", each, weights), log.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimiser.step(closure)  # type: ignore[no-untyped-call]
    posterior = torch.einsum("nvc,v->nc", each, weights.detach()).softmax(1)
    answers = log.logits.topk(min(log.top, log.logits.shape[2]), dim=2).indices
    mass = posterior[:, None].expand(-1, each.shape[1], -1).gather(2, answers).sum(2)
    correct = log.correct
    columns = []
    for k in range(mass.shape[1]):
        odds = mass[:, [k]].clamp(1e-6, 1 - 1e-6).logit().numpy()
        right = correct[:, k].numpy()
        if right.all() or not right.any():
            columns.append(correct[:, k].double())
            continue
        bends = np.quantile(odds, [0.1, 0.25, 0.5, 0.75])
        pieces = np.concatenate([odds, np.maximum(0.0, odds - bends)], 1)
        curve = LogisticRegression(C=1.0, max_iter=200, solver="newton-cholesky").fit(pieces, right)
        columns.append(torch.from_numpy(curve.predict_proba(pieces)[:, 1]))
    return torch.stack(columns, 1)


def foretell(features: Tensor, targets: Tensor, folds: Crossfit, *, strength: float) -> tuple[Tensor, nn.Linear]:
    """Logistic regressions on soft targets.

    Args:
        features: (N, F). targets: (N, J) in [0, 1]. strength: C of scikit-learn, on standardised features.

    Returns:
        (N, J) cross-fitted log-odds, and one layer fitted on everybody that gives log-odds from features.
    """
    x = features.double().numpy()
    centre, spread = x.mean(0), x.std(0) + 1e-3
    x = (x - centre) / spread
    aside = np.zeros((len(x), targets.shape[1]))
    layer = nn.Linear(x.shape[1], targets.shape[1])
    for j, column in enumerate(targets.double().numpy().T):
        for fold in range(folds.number):
            weights, bias = _logistic(x[folds.of != fold], column[folds.of != fold], strength)
            aside[folds.of == fold, j] = x[folds.of == fold] @ weights + bias
        weights, bias = _logistic(x, column, strength)
        with torch.no_grad():
            layer.weight[j] = torch.from_numpy(weights / spread)
            layer.bias[j] = bias - float(weights / spread @ centre)
    return torch.from_numpy(aside), layer


def _logistic(x: np.ndarray, target: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights and bias for soft targets: every sample once as right and once as wrong, weighted."""
    both = np.concatenate([x, x])
    label = np.repeat([1, 0], len(x))
    weight = np.concatenate([target, 1 - target])
    counts = weight > 1e-9
    if len(np.unique(label[counts])) < 2:  # all surely right, or all surely wrong
        return np.zeros(x.shape[1]), 9.0 if target.mean() > 0.5 else -9.0
    fit = LogisticRegression(C=strength, max_iter=100, tol=1e-4, solver="newton-cholesky").fit(
        both[counts], label[counts], sample_weight=weight[counts]
    )
    return fit.coef_[0], float(fit.intercept_[0])


def ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """(1 + F, M) weights, the first row the bias, which is not penalised. x: (N, F) standardised; y: (N, M)."""
    centre = x.mean(0)
    moved = x - centre
    weights = np.linalg.solve(moved.T @ moved + penalty * np.eye(x.shape[1]), moved.T @ (y - y.mean(0)))
    return np.concatenate([(y.mean(0) - centre @ weights)[None], weights])
