"""Nets that answer every pixel: logits (N, C, H, W) at each exit, one decision an image, by how sure its pixels are.

What a policy sees of such an answer is the image's *profile*: at every pixel the class probabilities are sorted,
largest first, and averaged over the pixels. Its logarithm stands where a classifier's logits stand, so that
`Signals.confidence` is the mean over the pixels of the largest probability (the aggregated confidence), and margin and
entropy are those of the profile. Which class is largest is no longer in it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from adaptbench.adaptive.constructors import MultiExit
from adaptbench.adaptive.log import CalibrationLog
from adaptbench.adaptive.model import AdaptiveModel, frozen
from adaptbench.adaptive.splits import IGNORED, Split
from adaptbench.errors import CapabilityError, UsageError

_LEAST = 1e-12
_NO_CLASS = -1
_CHUNK = 100


def profile(logits: Tensor) -> Tensor:
    """(…, C) log of the mean over pixels of the sorted class probabilities, largest first. logits: (…, C, H, W).

    >>> sure, torn = torch.tensor([9.0, 0.0]), torch.zeros(2)
    >>> profile(torch.stack([sure, torn], 1)[None, :, :, None]).exp()[0]
    tensor([0.7499, 0.2501])
    """
    ordered = logits.softmax(-3).sort(-3, descending=True).values
    return ordered.mean((-2, -1)).clamp_min(_LEAST).log()


def right_pixels(predictions: Tensor, labels: Tensor) -> Tensor:
    """(N,) share of the labelled pixels that are right; 1 where an image has none, as nothing is wrong there.

    Args:
        predictions: (N, H, W) int64. labels: (N, H, W) uint8, `IGNORED` where a pixel does not count.
    """
    counted = labels != IGNORED
    right = ((predictions == labels) & counted).sum((1, 2))
    total = counted.sum((1, 2))
    return torch.where(total > 0, right / total.clamp_min(1), 1.0)


def class_counts(predictions: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """(N, C) int64 each, over the pixels that count: right, labelled and predicted as each class.

    Args:
        predictions: (N, H, W) int64. labels: (N, H, W) uint8. n_classes: C.
    """
    counted = labels != IGNORED
    offsets = torch.arange(len(labels)).view(-1, 1, 1) * n_classes

    def per_class(classes: Tensor, where: Tensor) -> Tensor:
        places = (classes.long() + offsets)[where]
        return places.bincount(minlength=len(labels) * n_classes).view(len(labels), n_classes)

    return (
        per_class(predictions, counted & (predictions == labels)),
        per_class(labels, counted),
        per_class(predictions, counted),
    )


def require_labels_of(model: AdaptiveModel, split: Split) -> None:
    """Refuse a net for pixels on a split with a label an input, and the other way round.

    Raises:
        UsageError: they do not fit together.
    """
    if model.per_pixel != split.per_pixel:
        raise UsageError(
            f"a net that answers {_unit(model.per_pixel)} was given '{split.name}', which has a label for "
            f"{_unit(split.per_pixel)}.",
            why="Neither can be judged by the other's labels.",
            todo="Take data with a label for every pixel (pasted-digits, cityscapes:PATH) for nets that answer pixels.",
        )


def refuse_pixels(model: AdaptiveModel, what: str) -> None:
    """Refuse what judges one answer an input. what: "a study", for the message.

    Raises:
        CapabilityError: the net answers every pixel.
    """
    if model.per_pixel:
        raise CapabilityError(
            f"{what} was asked of a net that answers every pixel.",
            why="It judges one answer an input, right or wrong.",
            todo="Run the net in a suite: `adaptbench run`, which judges it by mIoU.",
        )


def _unit(per_pixel: bool) -> str:
    return "every pixel" if per_pixel else "each input"


class PixelExits(MultiExit):
    """One segmentation net cut into stages, with a head for every pixel after each.

    The image leaves whole, at the first exit whose profile the policy takes. Arguments as of `MultiExit`; heads end in
    logits (N, C, H, W) of the input's own height and width.

    >>> from torch import nn
    >>> heads = [nn.Conv2d(2, 3, 1), nn.Conv2d(4, 3, 1)]
    >>> net = PixelExits([nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1)], heads, input_shape=(1, 4, 4))
    >>> net.infer(torch.rand(5, 1, 4, 4)).logits.shape, net.n_classes
    (torch.Size([5, 3, 4, 4]), 3)
    """

    per_pixel = True

    def shown(self, answer: Tensor) -> Tensor:
        """(n, C) the profile."""
        return profile(answer)

    def answers(self, x: Tensor) -> Tensor:
        """(N, K, C, H, W): every exit's logits on every image, in the caller's train or eval mode; for training."""
        return torch.stack(self._everything(x)[1], 1)

    def log(self, split: Split, *, chunk: int = _CHUNK) -> CalibrationLog:
        """Profiles of every exit on a calibration split, and the share of right pixels of each.

        Raises:
            LeakageError: a split of another role. UsageError: one without a label for every pixel.
        """
        split.require("calibration", purpose="fitting a policy")
        require_labels_of(self, split)
        device = self._blank().device
        shown, quality = [], []
        with frozen(self), torch.no_grad():
            for x, y, _ in split.chunks(chunk):
                answers = self._everything(x.to(device))[1]
                shown.append(torch.stack([self.shown(a) for a in answers], 1).float().cpu())
                quality.append(torch.stack([right_pixels(a.argmax(1).cpu(), y) for a in answers], 1).float())
        return self.logged(torch.cat(shown), split, quality=torch.cat(quality))

    def logged(self, logits: Tensor, split: Split, *, top: int = 1, quality: Tensor | None = None) -> CalibrationLog:
        """The log of profiles (N, K, C) and shares of right pixels (N, K), wherever they were computed."""
        labels = torch.full((len(split),), _NO_CLASS, dtype=torch.int64)
        macs = torch.tensor(self.node_macs)
        return CalibrationLog(
            logits, labels, self.structure, macs, split.name, split.role, split.sha256, top=top, quality=quality
        )
