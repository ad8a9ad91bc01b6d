"""What the training loop costs: images a second of `zoo.training.loop.fit` against the barest loop of the same steps.

Same net, batches, optimiser and augmentation; the two take turns, and the median of the turns' ratios is what counts
(goal: ≥ 0.95). Run: python benchmarks/training.py [--depth 20] [--batch 64] [--steps 4] [--turns 5] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptbench.adaptive import Split
from adaptbench.models.resnet import resnet
from adaptbench.zoo.training.augment import augmentation
from adaptbench.zoo.training.loop import fit
from adaptbench.zoo.training.losses import cross_entropy
from adaptbench.zoo.training.phase import Phase

LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


def pictures(n: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (n, 3, 32, 32), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 10, (n,), generator=generator)
    return Split("noise", "train", x, y, torch.arange(n), tuple(map(str, range(10))))


def fresh(depth: int, device: torch.device) -> nn.Sequential:
    torch.manual_seed(0)
    return resnet(depth, 10).to(device, memory_format=torch.channels_last)


def bare(net: nn.Sequential, x: Tensor, y: Tensor, batch: int, augment: str) -> None:
    """The loop that a tutorial would write, with everything on the device already and in NHWC, as recipes train."""
    change, noise = augmentation(augment), torch.Generator().manual_seed(0)
    optimiser = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY)
    net.train()
    x = x.contiguous(memory_format=torch.channels_last)
    rows = torch.randperm(len(x)).to(x.device)
    for start in range(0, len(x), batch):
        here = rows[start : start + batch]
        pixels = x[here] if change is None else change(x[here], noise)
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(net(pixels.float().div_(255)), y[here]).backward()
        optimiser.step()


def seconds(call: object, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()  # type: ignore[operator]
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def compare(args: argparse.Namespace, augment: str, ema: float | None) -> tuple[float, float, float]:
    """Median images a second of the bare loop and of fit, and the median ratio of a turn."""
    device = torch.device(args.device)
    split = pictures(args.steps * args.batch)
    x, y = split.x.to(device), split.y.to(device)
    plain, ours = fresh(args.depth, device), fresh(args.depth, device)

    def run_bare() -> None:
        bare(plain, x, y, args.batch, augment)

    def run_fit() -> None:
        fit(
            ours,
            split,
            Phase(1, LR, args.batch, augment, DECAY, ema, schedule="constant", momentum=MOMENTUM),
            cross_entropy,
            channels_last=True,
        )

    run_bare(), run_fit()
    turns = []
    for turn in range(args.turns):
        order = (run_bare, run_fit) if turn % 2 == 0 else (run_fit, run_bare)
        took = {call: seconds(call, device) for call in order}
        turns.append((len(split) / took[run_bare], len(split) / took[run_fit]))
    return (
        statistics.median(b for b, _ in turns),
        statistics.median(f for _, f in turns),
        statistics.median(f / b for b, f in turns),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(
        f"ResNet-{args.depth}, batch {args.batch}, {args.steps} steps a turn, {args.turns} turns, {args.device}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'augmentation':<14}{'average':<10}{'bare img/s':>12}{'fit img/s':>12}{'ratio':>8}")
    for augment, ema in (("none", None), ("crop+flip", None), ("none", 0.998)):
        plain, ours, ratio = compare(args, augment, ema)
        print(f"{augment:<14}{'EMA' if ema else '–':<10}{plain:>12.1f}{ours:>12.1f}{ratio:>8.3f}")


if __name__ == "__main__":
    main()
