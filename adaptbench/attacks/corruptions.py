"""Pictures that nobody optimised: common corruptions at fixed severities, and pictures of one colour.

Strengths are those that CIFAR-10-C was made with (Hendrycks & Dietterich, ICLR 2019, `make_cifar_c.py`).
"""

from __future__ import annotations

import io
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from adaptbench.adaptive import AdaptiveModel
from adaptbench.attacks.activations import densities
from adaptbench.attacks.base import to_bytes
from adaptbench.attacks.constraints import Constraint
from adaptbench.attacks.ranges import count
from adaptbench.attacks.searches import OneDraw


@dataclass(frozen=True, slots=True)
class Corruption(OneDraw):
    """One picture for each clean one, of a strength that the severity names.

    Args:
        severity: 1, hardly seen, to 5.
    """

    strengths: ClassVar[tuple[float, float, float, float, float]]
    severity: Annotated[int, count(1, 5)] = 3

    @property
    def strength(self) -> float:
        """Of the severity."""
        return self.strengths[self.severity - 1]

    def draw(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> Tensor:
        """The corrupted picture, where the constraint lets it be."""
        return constraint.project(self.corrupt(clean).clamp(0.0, 1.0), clean)

    @abstractmethod
    def corrupt(self, clean: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] → the same, perhaps a little outside."""


@dataclass(frozen=True, slots=True)
class Blur(Corruption):
    """Gaussian, of this standard deviation in pixels; the edge goes on beyond itself."""

    name: ClassVar[str] = "blur"
    strengths: ClassVar[tuple[float, float, float, float, float]] = (0.4, 0.6, 0.7, 0.8, 1.0)

    def corrupt(self, clean: Tensor) -> Tensor:
        """Rows, then columns; cut at four standard deviations."""
        reach = int(4 * self.strength + 0.5)
        at = torch.arange(-reach, reach + 1, dtype=torch.float64, device=clean.device)
        bell = torch.exp(-0.5 * (at / self.strength) ** 2)
        bell = bell / bell.sum()
        n, c, h, w = clean.shape
        x = clean.double().reshape(n * c, 1, h, w)
        x = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), bell.view(1, 1, -1, 1))
        x = F.conv2d(F.pad(x, (reach, reach, 0, 0), mode="replicate"), bell.view(1, 1, 1, -1))
        return x.view(n, c, h, w).to(clean)


@dataclass(frozen=True, slots=True)
class Contrast(Corruption):
    """Towards the mean of each channel, by this factor."""

    name: ClassVar[str] = "contrast"
    strengths: ClassVar[tuple[float, float, float, float, float]] = (0.75, 0.5, 0.4, 0.3, 0.15)

    def corrupt(self, clean: Tensor) -> Tensor:
        """Of the picture's own means."""
        mean = clean.mean((2, 3), keepdim=True)
        return mean + (clean - mean) * self.strength


@dataclass(frozen=True, slots=True)
class Brightness(Corruption):
    """Value in the sense of HSV, raised by this much; hue and saturation stay."""

    name: ClassVar[str] = "brightness"
    strengths: ClassVar[tuple[float, float, float, float, float]] = (0.05, 0.1, 0.15, 0.2, 0.3)

    def corrupt(self, clean: Tensor) -> Tensor:
        """Channels grow in proportion; black, which has no hue, becomes grey."""
        value = clean.amax(1, keepdim=True)
        wanted = (value + self.strength).clamp_max(1.0)
        return torch.where(value > 0, clean * (wanted / value.clamp_min(1e-9)), wanted)


@dataclass(frozen=True, slots=True)
class Jpeg(Corruption):
    """Written and read back at this quality."""

    name: ClassVar[str] = "jpeg"
    packages: ClassVar[tuple[str, ...]] = ("Pillow",)
    strengths: ClassVar[tuple[float, float, float, float, float]] = (80, 65, 58, 50, 40)

    def corrupt(self, clean: Tensor) -> Tensor:
        """In colour where there are three channels, else each channel by itself."""
        found = np.stack([self._picture(picture) for picture in to_bytes(clean).cpu().numpy()])
        return torch.from_numpy(found).to(clean) / 255.0

    def _picture(self, picture: np.ndarray) -> np.ndarray:
        if len(picture) == 3:
            return self._written(picture.transpose(1, 2, 0)).transpose(2, 0, 1)
        return np.stack([self._written(channel) for channel in picture])

    def _written(self, pixels: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "JPEG", quality=int(self.strength))
        return np.asarray(Image.open(file, formats=["JPEG"]))


@dataclass(frozen=True, slots=True)
class OneColour(OneDraw):
    """A picture of one colour in the place of each clean one."""

    name: ClassVar[str] = "one-colour"

    def draw(self, clean: Tensor, constraint: Constraint, noise: Tensor) -> Tensor:
        """A sample's own colour."""
        colour = (0.5 + 0.5 * noise[:, :, :1, :1]).expand_as(clean)
        return constraint.project(colour, clean)

    def account(self, model: AdaptiveModel, clean: Tensor, pictures: Tensor) -> dict[str, float]:
        """Density before and after: dense activations are what such pictures were proposed for."""
        return densities(model, clean, pictures)
