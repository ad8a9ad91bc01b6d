"""A study of a few seconds on digits, every section filled."""

STUDY = """
title: thresholds on digits
cite: Somebody, 2020
graphs:
  digits: {data: digits, model: softmax-threshold}
policies: [softmax-threshold, softmax-threshold-published@train, joint-threshold, uniform, random]
training_samples: 300
paper: softmax-threshold
ours: joint-threshold
drops: [0, 0.02]
margin: 0.05
budgets: [0.3, 0.6]
settings: {softmax-threshold: [0.01]}
resplits: {count: 3, epsilons: [0.05], policies: [joint-threshold, softmax-threshold-published@train]}
online: {orders: [0, 1], window: 32, budget: 0.7}
gradient_noise: [0.05]
measure: {batch_sizes: [8], blocks: 6, window_s: 0.02, warmup_s: 0.01, samples: 16}
published:
  - claim: faster
    value: 1.1
    provenance: "[abs]"
    ours: {graph: digits, policy: softmax-threshold, figure: speedup, setting: 0.01}
  - claim: lost
    value: 9.0
    better: lower
    ours: {graph: digits, policy: joint-threshold, figure: drop_points, drop: 0.02}
  - claim: promise broken
    value: 60
    better: lower
    target: true
    ours: {graph: digits, policy: joint-threshold, figure: broken, setting: 0.05}
  - claim: not behind
    value: 2
    target: true
    ours: {graph: digits, policy: joint-threshold, figure: budgets_held, against: [uniform]}
  - {claim: not here, value: 1.0, why: other data}
"""
