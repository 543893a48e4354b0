"""SOAP is Adam in the eigenbasis of the gradients' averages, for every matrix of the weights."""

import math

import pytest
import torch
from e3nn.o3 import Irreps
from torch import nn

from openmm_nequip.nn.linear import EquivariantLinear, SelfConnection
from openmm_nequip.training.soap import SOAP, matrices


class Weights(nn.Module):
    """One parameter, of which a test says the gradients."""

    def __init__(self, values: torch.Tensor):
        super().__init__()
        self.values = nn.Parameter(values.clone())

    def follow(self, optimizer: torch.optim.Optimizer, gradients: list[torch.Tensor]) -> None:
        for gradient in gradients:
            self.values.grad = gradient.clone()
            optimizer.step()


def normal(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradients(*shape: int, count: int = 27) -> list[torch.Tensor]:
    return [normal(*shape, seed=k) for k in range(count)]


def orthogonal(n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed))[0]


@pytest.mark.parametrize("shape", [(5, 5), (5, 3, 4)])
def test_steps_do_not_depend_on_the_basis_of_the_channels(shape):
    """With gradients U G, the steps are U times those with G, whatever the orthogonal U."""
    turns = [orthogonal(n, seed=50 + n) for n in shape]

    def turned(tensor: torch.Tensor) -> torch.Tensor:
        for turn in turns:
            tensor = torch.tensordot(tensor, turn, dims=([0], [1]))
        return tensor

    start = normal(*shape, seed=99)
    plain, other = Weights(start), Weights(turned(start))
    plain.follow(SOAP(plain, lr=0.1), gradients(*shape))
    other.follow(SOAP(other, lr=0.1), [turned(g) for g in gradients(*shape)])
    assert (plain.values - start).abs().max() > 0.5
    torch.testing.assert_close(other.values, turned(plain.values), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("shape", "rate"), [((6,), 0.1), ((6, 5), 1.0)])
def test_without_a_basis_it_is_adam(shape, rate):
    """Vectors, and indices longer than `largest`; the first gradient only starts the averages."""
    ours, reference = Weights(normal(*shape, seed=99)), Weights(normal(*shape, seed=99))
    adam = torch.optim.Adam(reference.parameters(), lr=0.1 * rate, betas=(0.9, 0.99))
    ours.follow(SOAP(ours, lr=0.1, largest=4), gradients(*shape))
    reference.follow(adam, gradients(*shape)[1:])
    torch.testing.assert_close(ours.values, reference.values, rtol=0, atol=1e-9)


def test_weights_decay():
    ours = Weights(normal(6, 5, seed=99))
    before = ours.values.detach().clone()
    zeros = [torch.zeros(6, 5, dtype=torch.float64)] * 5
    ours.follow(SOAP(ours, lr=0.1, weight_decay=0.5), zeros)
    torch.testing.assert_close(ours.values, before * 0.95**4, rtol=1e-12, atol=0)
    energies = Weights(normal(6, seed=99))
    before = energies.values.detach().clone()
    energies.follow(SOAP(energies, lr=0.1, weight_decay=0.5), [torch.zeros(6).double()] * 5)
    assert torch.equal(energies.values, before)


def test_a_skew_valley_is_followed_where_adam_zigzags():
    """f(W) = |A W B|², with condition numbers of 1000 along axes that are not those of W."""
    stiffness = torch.logspace(0, 1.5, 12, dtype=torch.float64)
    a = orthogonal(12, 1) * stiffness @ orthogonal(12, 2)
    b = orthogonal(12, 3) * stiffness @ orthogonal(12, 4)

    def final(kind) -> float:
        weights = Weights(normal(12, 12, seed=9))
        optimizer = kind(weights)
        steps = 200
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            loss = (a @ weights.values @ b).square().sum()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert final(lambda w: SOAP(w, lr=0.1)) < 1e-3 * final(
        lambda w: torch.optim.Adam(w.parameters(), lr=0.1, betas=(0.9, 0.99))
    )


def test_every_weight_of_the_maps_is_in_one_matrix():
    full, some = Irreps("6x0e+4x1o+2x2e"), Irreps("5x0e+3x2e+7x3o")
    maps = nn.ModuleList(
        [EquivariantLinear(full, Irreps("3x0e+8x2e")), SelfConnection(full, 4, some)]
    )
    found = matrices(maps)
    assert [block.shape for block in found[maps[0].weight]] == [(6, 3), (2, 8)]
    assert [block.shape for block in found[maps[1].weight]] == [(6, 4, 5), (2, 4, 3)]
    for weight, blocks in found.items():
        assert sum(math.prod(block.shape) for block in blocks) == weight.numel()
        assert all(span is None for block in blocks for span in block.spans)


def test_a_matrix_in_a_flat_weight_is_optimised_as_if_alone():
    linear = EquivariantLinear(Irreps("6x0e+4x1o"), Irreps("5x0e+3x1o")).double()
    alone = Weights(linear.weight[30:].detach().view(4, 3))
    optimizer = SOAP(linear, lr=0.1)
    alone.follow(SOAP(alone, lr=0.1), gradients(4, 3))
    for first, second in zip(gradients(30), gradients(4, 3), strict=True):
        linear.weight.grad = torch.cat([first, second.flatten()])
        optimizer.step()
    torch.testing.assert_close(linear.weight[30:].view(4, 3), alone.values, rtol=0, atol=1e-9)


class Connected(nn.Module):
    """A self-connection of six scalars to four, and the type embedding that it works with."""

    def __init__(self, num_types: int, num_attributes: int):
        super().__init__()
        self.type_embedding = nn.Parameter(normal(num_types, num_attributes, seed=7))
        self.connection = SelfConnection(Irreps("6x0e"), num_attributes, Irreps("4x0e")).double()
        self.weight = self.connection.weight

    def step(self, optimizer: SOAP, by_type: torch.Tensor) -> None:
        """Take a step with the gradients ``[6, T, 4]`` of every type's matrix."""
        gradient = torch.einsum("uto,tv->uvo", by_type, self.type_embedding.detach())
        self.weight.grad = gradient.flatten()
        optimizer.step()

    def tensor(self) -> torch.Tensor:
        return self.weight.detach().view(6, -1, 4).clone()


def test_attributes_take_as_many_directions_as_there_are_types():
    """The steps are those of the same tensor along an orthonormal basis of the embeddings."""
    module = Connected(2, 5)
    start, embedding = module.tensor(), module.type_embedding.detach()
    basis = torch.linalg.qr(embedding.T)[0]
    before = torch.einsum("uvo,vt->uto", start, basis).contiguous()
    alone, by_type = Weights(before), gradients(6, 2, 4)

    optimizer = SOAP(module, lr=0.1)
    for gradient in by_type:
        module.step(optimizer, gradient)
    assert optimizer.state[module.weight]["squares"][0].shape == (6, 2, 4)
    small = torch.einsum("tv,vs->ts", embedding, basis)
    alone.follow(
        SOAP(alone, lr=0.1), [torch.einsum("uto,ts->uso", g, small).contiguous() for g in by_type]
    )

    change = module.tensor() - start
    expected = torch.einsum("uto,vt->uvo", alone.values.detach() - before, basis)
    assert change.abs().max() > 0.5
    torch.testing.assert_close(change, expected, rtol=0, atol=1e-9)


def test_a_rare_type_keeps_its_direction_although_the_embedding_moves():
    """It has no gradient in any step, and the others' embeddings drift through many directions."""
    module = Connected(3, 16)
    optimizer = SOAP(module, lr=0.1)
    first = module.type_embedding.detach().clone()
    for k, gradient in enumerate(gradients(6, 3, 4, count=41)):
        module.type_embedding.data += 0.2 * normal(3, 16, seed=200 + k)
        gradient[:, 2] = 0.0
        module.step(optimizer, gradient)  # the last one updates the bases
    basis = optimizer.state[module.weight]["bases"][0][1]
    embedding = module.type_embedding.detach()
    assert (embedding - first).norm() > 0.5 * first.norm()
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(embedding @ basis @ basis.T, embedding, rtol=0, atol=1e-9)


def test_embeddings_narrower_than_the_number_of_types_have_every_direction():
    module = Connected(5, 3)
    start, optimizer = module.tensor(), SOAP(module, lr=0.1)
    alone, by_type = Weights(start), gradients(6, 5, 4)
    for gradient in by_type:
        module.step(optimizer, gradient)
    embedding = module.type_embedding.detach()
    alone.follow(
        SOAP(alone, lr=0.1),
        [torch.einsum("uto,tv->uvo", g, embedding).contiguous() for g in by_type],
    )
    torch.testing.assert_close(module.tensor(), alone.values.detach(), rtol=0, atol=1e-9)
