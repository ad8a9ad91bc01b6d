"""A suite of kind serving of a few seconds on digits, every section filled."""

SERVING = """
title: a small net under load
data: digits
models: [softmax-threshold, static]
arrivals:
  - poisson: {load: 0.6, of: static}
  - trace: {file: seen.csv, load: 0.5, id: seen}
requests: 120
repeats: 3
batching: {max_batch: 4, wait_s: 0.001, modes: [batches, queues]}
objective_p99_s: 0.05
hostile:
  attack: {ilfo: {eps: 32/255, steps: 4}}
  shares: [0.3]
  budget: {headroom: 1.1, burst: 5}
planner: {loads: [0.5], max_batch: [1, 4], replicas: 2}
check: {requests: 60, repeats: 1}
measure: {clock: cpu, batch_sizes: [1, 4], blocks: 2, window_s: 0.005, warmup_s: 0, samples: 8, spread: 40}
limit: 24
gate:
  simulated_p99_s: {increase: 25 %, cases: [stream]}
  simulated_goodput: {drop: 5 points}
  replicas: exact
"""
TRACE = "arrival_s\n0\n0.1\n0.15\n0.4\n0.41\n0.9\n"
