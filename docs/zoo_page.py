"""Write docs/zoo.md from the cards of the shipped checkpoints; a test holds the page and the cards together.

python docs/zoo_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "adaptbench" / "zoo" / "shipped"
CHARACTERS = ROOT / "adaptbench" / "decoding" / "shipped"
PAGE = ROOT / "docs" / "zoo.md"
TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "fashion-mnist": "Fashion-MNIST",
    "digits": "digits",
    "sst2-minilm": "SST-2, exits on MiniLM",
    "ag-news-minilm": "AG News, exits on MiniLM",
    "sst2": "SST-2, a small encoder",
    "ag-news": "AG News, a small encoder",
    "pasted-digits": "Digits pasted on textures (a made set), mIoU in the place of accuracy",
}
GOALS = {
    ("cifar10", "resnet20"): 91.0,
    ("cifar10", "resnet56"): 92.5,
    ("cifar100", "resnet20"): 66.0,
    ("cifar100", "resnet56"): 70.0,
}

HEAD = """# Zoo

Written by `python docs/zoo_page.py` from the cards of the shipped checkpoints; do not edit.

```console
$ adaptbench list models --data cifar10          # what can be loaded as it is
$ adaptbench train sdn --data cifar10 --out ZOO  # reads back parts that exist, trains the others, fits the policy
$ adaptbench train resnet56 --data cifar10 --recipe full --device cuda --out ZOO   # the literature's length, on a GPU
```

On CIFAR a system is made of parts, each a file with a card: recipe, settings, every epoch's figures, hashes of the
training split and of the tensors, the command that made it and the one for a GPU. Systems share parts. Weights are
stored as float16, statistics and small tensors as float32; accuracies are those of what is stored. Splits of CIFAR:
45 000 to train, 5 000 for calibration, 10 000 to test, cut by a fixed seed.

The shipped CIFAR weights come from the recipe “short”: what some hours on two cores without bfloat16 gave. Nets are
grown from one another and see 24-pixel pictures first. They stay below what 200 epochs reach; the goal column says by
how much. Accuracies are of each exit in order; of gated nets (SkipNet, BlockDrop) with all blocks run and as gated.

Of text ([text.md](text.md)) ship heads on MiniLM, which stays as it is and is fetched elsewhere; heads with the biases
and layer norms of MiniLM that they were tuned together with; and, for SST-2, a small encoder of six layers of 64,
trained here. MACs of text are of rows of 64 pieces. MACs of `a-vit` are those with all tokens, what their
attention costs in pairs included.
"""

Card = dict[str, Any]


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def epochs(settings: Card) -> str:
    if "means" in settings:
        return str(settings["means"])
    phases = settings.get("phases") or [settings["phase"]]
    told = " + ".join(str(phase["epochs"]) for phase in phases)
    if settings.get("grown_from"):
        told += f", grown from ResNet-{settings['grown_from']}"
    if settings.get("backbone") == "frozen":
        told += ", backbone frozen"
    elif settings.get("backbone"):
        told += f", of the backbone {settings['backbone']}"
    return told


def part(file: Path, card: Card) -> str:
    metric = "miou" if "miou_test" in card else "accuracy"
    found = " / ".join(percent(a) for a in card[f"{metric}_test"].values())
    held = " / ".join(percent(a) for a in card[f"{metric}_calibration"].values())
    goal = GOALS.get((file.parent.name, file.stem))
    size = file.with_suffix(".safetensors").stat().st_size / 1024
    macs = (sum(card["node_macs"]) + card.get("pair_macs", 0)) / 1e6
    cells = [
        f"`{card['part']}`",
        f"{macs:.1f} M",
        f"{card['parameters']:,}".replace(",", " "),
        f"{size:.0f}",
        epochs(card["settings"]),
        held,
        found,
        "" if goal is None else f"{goal:g}",
    ]
    return "| " + " | ".join(cells) + " |"


def family(file: Path, card: Card) -> str:
    found = " / ".join(percent(a) for a in card["accuracy_test"].values())
    size = file.with_suffix(".safetensors").stat().st_size / 1024
    cells = [
        f"`{file.stem}`",
        f"{card['parameters']:,}".replace(",", " "),
        f"{size:.0f}",
        found,
        f"`{card['command']}`",
    ]
    return "| " + " | ".join(cells) + " |"


def characters() -> list[str]:
    """The character model of docs/decoding.md: no classifier, so bits in the place of accuracy."""
    lines = [
        "## AG News, character by character ([decoding.md](decoding.md))",
        "",
        "Bits a character at each exit in the place of accuracy, fewer are better; what a character costs, decoder by "
        "decoder, is on that page.",
        "",
        "| weights | parameters | KiB | epochs | calibration, bits | test, bits | made by |",
        "|---|---|---|---|---|---|---|",
    ]
    for file in sorted(CHARACTERS.glob("*/*.json")):
        card = json.loads(file.read_text(encoding="utf-8"))
        bits = [" / ".join(f"{b:.2f}" for b in card[f"bits_per_character_{role}"]) for role in ("calibration", "test")]
        size = file.with_suffix(".safetensors").stat().st_size / 1024
        parameters = f"{card['parameters']:,}".replace(",", " ")
        cells = [
            f"`{card['part']}`",
            parameters,
            f"{size:.0f}",
            epochs(card["settings"]),
            *bits,
            f"`{card['command']}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def page(folder: Path = SHIPPED) -> str:
    lines = [HEAD]
    for data, title in TITLES.items():
        if not (folder / data).is_dir():
            continue
        cards = {
            file: json.loads(file.read_text(encoding="utf-8"))
            for file in sorted((folder / data).glob("*.json"))
            if not file.stem.endswith(".policy")
        }
        lines += [f"## {title}", ""]
        parts = [part(file, card) for file, card in cards.items() if "part" in card]
        families = [family(file, card) for file, card in cards.items() if "part" not in card]
        if parts:
            lines += [
                "| part | MACs of all nodes | parameters | KiB | epochs | calibration % | test % | goal % |",
                "|---|---|---|---|---|---|---|---|",
                *parts,
            ]
        if families:
            lines += [
                *([""] if parts else []),
                "| weights | parameters | KiB | test %, each exit | made by |",
                "|---|---|---|---|---|",
                *families,
            ]
        policies = sorted(f.name.removesuffix(".policy.json") for f in (folder / data).glob("*.policy.json"))
        lines += ["", f"Policies fitted on calibration: {', '.join(f'`{p}`' for p in policies)}.", ""]
    lines += characters()
    total = sum(f.stat().st_size for place in (folder, CHARACTERS) for f in place.rglob("*") if f.is_file())
    lines.append(f"All of it: {total / 2**20:.1f} MiB.")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)}\n")
