"""What is put in an attacker's way: transformations of the picture, hardened thresholds. See docs/defences.md."""

from adaptbench.defences.base import Defence, InFront
from adaptbench.defences.harden import Harden, Hardened
from adaptbench.defences.quantise import Quantise
from adaptbench.defences.smooth import Smooth

__all__ = ["Defence", "Harden", "Hardened", "InFront", "Quantise", "Smooth"]
