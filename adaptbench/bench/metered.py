"""Meters for attackers who are told seconds or joules: the house's own, read one inference at a time."""

from __future__ import annotations

from adaptbench.attacks import Attack
from adaptbench.attacks.base import Metering
from adaptbench.meters.inference import metering

__all__ = ["metering", "metering_of"]


def metering_of(attack: Attack | None, device: str) -> Metering | None:
    """What reads the cost that an attack is told; None where that is counted."""
    cost = None if attack is None else attack.settings.get("cost")
    return metering(str(cost), device) if cost in ("seconds", "joules") else None
