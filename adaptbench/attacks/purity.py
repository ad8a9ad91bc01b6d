"""The caller's model is a guest: weights, buffers, flags, gradients and random states leave a craft as they came."""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


_TWO_MODES = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, nn.RReLU)


def in_train_mode(model: nn.Module) -> bool:
    """Whether a layer that answers otherwise in training is in train mode."""
    return any(module.training for module in model.modules() if isinstance(module, _TWO_MODES))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Eval mode without weight gradients inside; everything restored outside.

    Restored: parameters and buffers by value, each module's training flag, each parameter's requires_grad and grad,
    and the global random states of torch (CPU and CUDA), NumPy and Python.
    """
    modules = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    parameters = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    tensors = _tensors(model)
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    with random_states_kept():
        try:
            for module, _ in modules:
                module.training = False
            for parameter, _, _ in parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
            yield
        finally:
            for module, training in modules:
                module.training = training
            with torch.no_grad():
                for name, copy in copies.items():
                    if not _same(tensors[name], copy):
                        logger.warning("an attack changed '%s' of the model; it was put back", name)
                        tensors[name].copy_(copy)
            for parameter, wanted, grad in parameters:
                parameter.requires_grad_(wanted)
                parameter.grad = grad


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Global random states of torch, NumPy and Python, the same before and after."""
    python, numpy = random.getstate(), np.random.get_state()  # foreign attacks draw from it
    cuda = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over weights, buffers, training flags, requires_grad flags, gradients and the torch random state."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}".encode())
        digest.update(_bytes(tensor))
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            digest.update(f"{name}.grad".encode())
            digest.update(_bytes(parameter.grad))
    digest.update(repr([(name, getattr(module, "training", None)) for name, module in model.named_modules()]).encode())
    digest.update(_bytes(torch.get_rng_state()))
    return digest.hexdigest()


def weights(model: nn.Module) -> str:
    """SHA-256 over weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(model).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """True where two modules hold equal tensors under equal names."""
    mine, theirs = _tensors(one), _tensors(other)
    return mine.keys() == theirs.keys() and all(
        mine[k].shape == theirs[k].shape and torch.equal(mine[k].cpu(), theirs[k].cpu()) for k in mine
    )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or (one.is_floating_point() and torch.equal(one.nan_to_num(), other.nan_to_num()))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
