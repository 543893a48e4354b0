"""e3nn's feature layout ``[mul, 2l+1]`` and ours ``[2l+1, mul]``."""

import torch
from e3nn.o3 import Irreps
from torch import Tensor


def from_e3nn(x: Tensor, irreps: Irreps) -> Tensor:
    """Reorder the components of features from e3nn's layout to ours."""
    blocks = [
        x[:, s].view(-1, mul, ir.dim).transpose(1, 2).flatten(1)
        for s, (mul, ir) in zip(irreps.slices(), irreps, strict=True)
    ]
    return torch.cat(blocks, dim=1)


def to_e3nn(x: Tensor, irreps: Irreps) -> Tensor:
    """Reorder the components of features from our layout to e3nn's."""
    blocks = [
        x[:, s].view(-1, ir.dim, mul).transpose(1, 2).flatten(1)
        for s, (mul, ir) in zip(irreps.slices(), irreps, strict=True)
    ]
    return torch.cat(blocks, dim=1)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
