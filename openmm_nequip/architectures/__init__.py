"""Architectures: each maps edge vectors and atom types to atomic energies."""

from torch import nn

from .nequip import NequIP, NequIPConfig

#: Configuration of any architecture; a union once there is a second one.
Architecture = NequIPConfig


def build(config: Architecture) -> nn.Module:
    """Return the network that `config` describes, with random weights."""
    return NequIP(config)
