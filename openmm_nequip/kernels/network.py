"""NequIP on the fused operators: the same network as `architectures.nequip.NequIP.forward`."""

from typing import cast

import torch
from torch import Tensor

from ..architectures.nequip import InteractionBlock, NequIP
from ..nn.radial import ScalarMLP
from ..nn.spline import RadialSpline
from . import ops
from .edges import Edges
from .form import form_key
from .linear_ops import ByType, linear, self_connection
from .spline_ops import spline


def forward(
    network: NequIP,
    vectors: Tensor,
    types: Tensor,
    edges: Edges,
    by_type: ByType | None,
    tables: list[Tensor] | None = None,
) -> Tensor:
    """Evaluate the network; differentiable twice, once if `tables` are given.

    Parameters
    ----------
    network
        Whose parameters are used.
    vectors, types
        As in `NequIP.forward`.
    edges
        Of the graph.
    by_type
        The atoms by type; without it a GPU needs ``[N, mul_in, mul_out]`` numbers.
    tables
        Spline coefficients of every layer's radial functions, of `radial_tables`: their values
        are then never in memory.

    Returns
    -------
    Tensor
        Atomic energies, eV, shape ``[N]``, float64.
    """
    i, j = edges.receivers, edges.senders
    r = torch.linalg.vector_norm(vectors, dim=1)
    x = network.scaled_distance(r, types[i], types[j])
    harmonics = network.harmonics(vectors).to(network.dtype)
    if tables is None:
        points = x if network.spline is None else network.spline.grid
        basis = network.basis(points).to(network.dtype)

    h = network.type_embedding[types]
    norm = network.neighbor_norm[types]
    for k, layer in enumerate(layers(network)):
        sent = linear(layer.linear_1, h) * norm
        key = form_key(layer.convolution)
        if tables is not None:
            messages = ops.radial_convolution(
                sent, harmonics, x.to(network.dtype), tables[k], edges, key
            )
        else:
            if network.spline is None:
                weights = layer.radial_mlp(basis)
            else:
                weights = spline(x, fitted(layer.radial_mlp, basis, network.spline))
            messages = ops.convolution(sent, harmonics, weights, edges, key)
        out = linear(layer.linear_2, messages)
        if layer.self_connection is not None:
            out = out + self_connection(
                layer.self_connection, h, network.type_embedding, types, by_type
            )
        h = layer.gate(out)

    energies = network.atomic_energies(h, types)
    if network.zbl is not None:
        energies = energies.index_add(0, i, network.zbl(r, x, types[i], types[j]))
    return energies


def radial_tables(network: NequIP, spline: RadialSpline) -> list[Tensor]:
    """Return the spline coefficients of every layer's radial functions, ``[K + 3, W]`` each."""
    with torch.no_grad():
        basis = network.basis(spline.grid).to(network.dtype)
        return [fitted(layer.radial_mlp, basis, spline) for layer in layers(network)]


def fitted(mlp: ScalarMLP, basis: Tensor, spline: RadialSpline) -> Tensor:
    """Return ``spline(mlp(basis))``, fitted before the last layer: that is linear, and wider."""
    *hidden, last = mlp.layers
    for layer in hidden:
        basis = mlp.activation(layer(basis))
    return last(spline(basis))


def layers(network: NequIP) -> list[InteractionBlock]:
    """Return the layers, which `nn.ModuleList` holds as any modules."""
    return cast(list[InteractionBlock], list(network.layers))
