"""Policies and data sets in the words of a person: what a study calls ``jei-dnn`` or ``cifar10``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_POLICIES = {
    "softmax-threshold-published": "softmax threshold, as published",
    "msdnet-budget": "MSDNet's budget rule",
    "branchynet-budget": "BranchyNet's budget rule",
    "pabee-budget": "PABEE's budget rule",
    "lebovitz-pair": "Lebovitz's pair",
    "streeter": "Streeter's cascade",
    "dag-selection": "DAG selection",
    "jei-dnn": "JEI-DNN",
    "eenet": "EENet",
    "eenet-published": "EENet, as published",
    "pabee": "PABEE",
    "ebjr": "EBJR",
    "sdn": "SDN",
    "sdn-entropy": "SDN, entropy",
    "skipnet": "SkipNet",
    "skipnet-rnn": "SkipNet, RNN gates",
    "blockdrop": "BlockDrop",
    "act": "ACT",
    "ilfo": "ILFO",
    "ereba": "EREBA",
    "deepsloth": "DeepSloth",
    "gradauto": "GradAuto",
    "gradmdm": "GradMDM",
    "ztw": "Zero Time Waste",
    "fitted-q": "fitted Q",
    "label-free": "label-free",
    "uee-ucb": "UEE-UCB",
    "closed-loop": "closed loop",
}
_DATA = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "fashion-mnist": "Fashion-MNIST",
    "sst2": "SST-2",
    "ag-news": "AG News",
}


def policy_name(code: str) -> str:
    """A policy for reading; an ending tells what it was fitted on.

    >>> policy_name("joint-threshold"), policy_name("softmax-threshold-published@train")
    ('joint threshold', 'softmax threshold, as published, fitted on training samples')
    """
    base, _, fitted = code.partition("@")
    name = _POLICIES.get(base) or base.replace("-", " ")
    if not fitted:
        return name
    return f"{name}, fitted on {'training' if fitted == 'train' else fitted} samples"


def spelled(text: str, codes: Iterable[str]) -> str:
    """``text`` with the code names of policies, where they stand alone, written for reading.

    >>> spelled("exact-budget on exact-budget-2", ["exact-budget"])
    'exact budget on exact-budget-2'
    """
    hyphened = sorted((code for code in codes if "-" in code or "@" in code), key=len, reverse=True)
    if not hyphened:
        return text
    alone = rf"(?<![\w-])(?:{'|'.join(map(re.escape, hyphened))})(?![\w@-])"
    return re.sub(alone, lambda found: policy_name(found[0]), text)


def data_name(code: str) -> str:
    """A data set for reading.

    >>> data_name("cifar10"), data_name("digits")
    ('CIFAR-10', 'digits')
    """
    return _DATA.get(code, code)
