"""Labelled pictures with fixed, disjoint roles: digits (embedded), Fashion-MNIST, CIFAR, image folders."""

from adaptbench.data.load import load_data

__all__ = ["load_data"]
