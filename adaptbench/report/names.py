"""Names for reading: what a suite calls ``torchattacks/PGD`` or ``dag-selection`` in the words of a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SPELLED = {
    "act": "ACT", "blockdrop": "BlockDrop", "dag": "DAG", "densenet121": "DenseNet-121", "eenet": "EENet",
    "msdnet": "MSDNet", "rnn": "RNN", "sdn": "SDN", "skipnet": "SkipNet", "jpeg": "JPEG", "ilfo": "ILFO",
    "ereba": "EREBA", "deepsloth": "DeepSloth", "gradauto": "GradAuto", "gradmdm": "GradMDM", "spsa": "SPSA",
}  # fmt: skip
_RESNET = re.compile(r"resnet(\d+)$")
_PARTS = re.compile(r"[-_\s]+")


def plain_name(code: str) -> str:
    """A code name as a person writes it.

    >>> plain_name("dag-selection"), plain_name("softmax-threshold+quantise"), plain_name("resnet20")
    ('DAG selection', 'Softmax threshold + quantise', 'ResNet-20')
    """
    parts = [" ".join(map(_word, _PARTS.split(part.strip()))) for part in code.split("+")]
    text = " + ".join(parts)
    return text[:1].upper() + text[1:]


def model_name(code: str, about: Mapping[str, Any]) -> str:
    """A model's own title; where that is its code name, the code name spelled out."""
    title = str(about.get("title") or code)
    return plain_name(title) if title == code else title


def surrogate_name(code: str, about: Mapping[str, Any]) -> str:
    """A net that inputs were crafted on; with the data set that it was trained on, where that is another one.

    >>> surrogate_name("cifar100/sdn", {}), surrogate_name("sdn", {})
    ('SDN, trained on cifar100', 'SDN')
    """
    data, _, net = code.rpartition("/") if ":" not in code else ("", "", code)
    return f"{plain_name(net)}, trained on {data}" if data else model_name(code, about)


def condition_name(code: str, about: Mapping[str, Any]) -> str:
    """A condition's own title; where that is its code name, what its summary calls it, or the code name spelled out.

    >>> condition_name("torchattacks/PGD", {"title": "torchattacks/PGD", "summary": "PGD (torchattacks)"})
    'PGD'
    >>> condition_name("deepsloth", {"summary": "DeepSloth, every internal head undecided"})
    'DeepSloth'
    >>> condition_name("chance", {"settings": {"search": "best-of", "queries": 100}})
    'Best of 100 random draws'
    """
    title = str(about.get("title") or code)
    if title != code:
        return title
    settings = about.get("settings") or {}
    if settings.get("search") == "best-of" and settings.get("queries"):
        return f"Best of {settings['queries']} random draws"
    tail = code.rsplit("/", 1)[-1]
    lead = re.split(r"[,(]", str(about.get("summary") or ""), maxsplit=1)[0].strip()
    if lead and _bare(lead) == _bare(tail):
        return lead[:1].upper() + lead[1:]
    return "clean" if tail == "clean" else plain_name(tail)


def _bare(text: str) -> str:
    return re.sub(r"[\W_]", "", text).lower()


def _word(part: str) -> str:
    if resnet := _RESNET.match(part):
        return f"ResNet-{resnet[1]}"
    return _SPELLED.get(part, part)


def spelled_out(text: str, told: Mapping[str, str]) -> str:
    """``text`` with code names replaced, where they stand alone.

    >>> spelled_out("ereba on dag-selection, not dag-selection-2", {"dag-selection": "DAG selection"})
    'ereba on DAG selection, not dag-selection-2'
    """
    if not told:
        return text
    codes = "|".join(re.escape(code) for code in sorted(told, key=len, reverse=True))
    return re.sub(rf"(?<![\w/+-])(?:{codes})(?![\w/+-])", lambda match: told[match[0]], text)
