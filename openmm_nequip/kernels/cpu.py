"""The whole step on the CPU in compiled code: energies, and their gradient by the edge vectors.

The network runs forwards, keeping what goes into each gate, and then backwards; nothing is kept of
the edges but their harmonics. All large arrays are kept from step to step.
"""

import math
import time
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..architectures.nequip import InteractionBlock, NequIP
from ..nn.linear import EquivariantLinear, SelfConnection, blocks
from . import nodes
from .edges import Edges
from .engine import num_threads
from .form import form, form_key
from .generated import load
from .geometry_source import source as geometry_source
from .network import layers
from .numba_backend import kernels

Array = NDArray[np.floating]

_ATOMS_PER_THREAD = 10  # with fewer, threads wait for each other


class Step:
    """Evaluates a network whose radial functions are splines.

    Parameters
    ----------
    network
        Its parameters are copied.
    tables
        Spline coefficients of every layer, of `network.radial_tables`.

    Attributes
    ----------
    seconds : dict of str to float
        Time spent in each part, added up over all calls.
    """

    def __init__(self, network: NequIP, tables: list[Tensor]):
        self.network = network
        self.dtype = tables[0].numpy().dtype
        l_max = network.harmonics.irreps_out.lmax
        name = str(self.dtype)
        self.geometry = load(f"geometry_{name}", geometry_source(l_max, name))
        self.y_dim = (l_max + 1) ** 2
        num_types = network.scaled_distance.num_types
        cutoffs = network.scaled_distance.inverse_cutoffs.view(num_types, num_types)
        self.inverse_cutoffs = cutoffs.numpy()
        with torch.no_grad():
            embedding = network.type_embedding
            first = layers(network)[0].linear_1(embedding) * network.neighbor_norm
            self.embedding, self.first_sent = embedding.numpy().copy(), first.numpy().copy()
            self.norm = network.neighbor_norm[:, 0].numpy().copy()
            self.layers = [
                _Layer.of(layer, following, embedding, table)
                for layer, following, table in zip(
                    layers(network), [*layers(network)[1:], None], tables, strict=True
                )
            ]
            self.slopes = None
            if len(network.readout.layers) == 1:  # linear: the same gradient at all atoms of a type
                (linear,) = network.readout.layers
                weight = linear.weight[:, 0] * linear.scale  # type: ignore[operator, index]
                slopes = network.scales[:, None] * weight
                self.slopes = slopes.numpy().astype(self.dtype)
        self.workspace = _Workspace(self.dtype)
        self.seconds: dict[str, float] = {}
        self._types = np.zeros(0, np.int64)
        self._blocks = _same_type_blocks(self._types)

    def __call__(self, vectors: Tensor, types: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """Return atomic energies, eV, ``[N]``, and their gradient, eV/Å, ``[E, 3]``, in float64.

        Parameters
        ----------
        vectors, types
            As in `NequIP.forward`.
        edges
            Of the graph.
        """
        limit = min(num_threads() or numba.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(max(1, min(limit, len(types) // _ATOMS_PER_THREAD)))
        try:
            return self._evaluate(vectors, types, edges)
        finally:
            numba.set_num_threads(limit)

    def _evaluate(self, vectors: Tensor, types: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        v, t = vectors.detach().numpy(), types.numpy()
        e = Edges(*(index.numpy() for index in edges))  # type: ignore[arg-type]
        inward = (e.senders, e.by_receiver, e.receiver_start)
        outward = (e.receivers, e.by_sender, e.sender_start)
        ends = (self.inverse_cutoffs, t, e.receivers, e.senders)
        n, num_edges, num_layers = len(t), len(v), len(self.layers)
        if not np.array_equal(t, self._types):
            self._types, self._blocks = t.copy(), _same_type_blocks(t)
        array = self.workspace.array

        clock = _Clock(self.seconds)
        x, y = array("x", num_edges), array("y", num_edges, self.y_dim)
        self.geometry.geometry(v, *ends, x, y)
        clock.note("geometry")
        h, sent = self.embedding[t], self.first_sent[t]
        for k, layer in enumerate(self.layers):
            mid = array("mid", n, layer.mid_dim)
            layer.kernels.radial_convolution(sent, y, x, layer.table, *inward, mid)
            clock.note("convolution")
            pre = array(f"pre {k}", n, layer.pre_dim)
            h_next, sent_next = (
                array(f"h {k}", n, layer.h_dim),
                array(f"sent {k}", n, layer.sent_dim),
            )
            nodes.forward(
                *self._blocks, mid, h, *layer.linear_2, *layer.self_connection, *layer.gate,
                *layer.linear_1, self.norm, pre, h_next, sent_next,
            )  # fmt: skip
            h, sent = h_next, sent_next
            clock.note("atoms")

        energies, g_h = self._read_out(h, types)
        clock.note("readout")
        gx, gy = array("gx", num_layers, num_edges), array("gy", num_layers, num_edges, self.y_dim)
        g_sent = g_pre_next = array("nothing", 0, 0)
        for k in reversed(range(num_layers)):
            layer = self.layers[k]
            g_pre, g_mid = array(f"g_pre {k % 2}", n, layer.pre_dim), array("mid", n, layer.mid_dim)
            nodes.backward(
                *self._blocks, g_h, g_sent, self.norm, *layer.linear_1_back, g_pre_next,
                *layer.self_connection_back, array(f"pre {k}", n, layer.pre_dim), *layer.gate,
                *layer.linear_2_back, g_pre, g_mid,
            )  # fmt: skip
            clock.note("atoms, backward")
            sent = self.first_sent[t] if k == 0 else array(f"sent {k - 1}", n, layer.x_dim)
            layer.kernels.radial_by_receiver(g_mid, sent, y, x, layer.table, *inward, gy[k], gx[k])
            if k > 0:  # the first layer's features depend on the types only
                g_sent, g_pre_next = array("g_sent", n, layer.x_dim), g_pre
                layer.kernels.radial_by_sender(g_mid, y, x, layer.table, *outward, g_sent)
                g_h = array("nothing", 0, self.layers[k - 1].h_dim)
            clock.note("convolution, backward")
        gradient = np.empty((num_edges, 3))
        self.geometry.gradient(v, *ends, gx, gy, gradient)
        clock.note("geometry, backward")
        if self.network.zbl is not None:
            energies = self._add_repulsion(energies, gradient, vectors, types, edges)
            clock.note("repulsion")
        return energies, torch.from_numpy(gradient)

    def _read_out(self, h: Array, types: Tensor) -> tuple[Tensor, Array]:
        """Return atomic energies and their gradient by the last features."""
        features = torch.from_numpy(h)
        if self.slopes is not None:
            with torch.no_grad():
                return self.network.atomic_energies(features, types), self.slopes[types.numpy()]
        with torch.enable_grad():
            energies = self.network.atomic_energies(features.requires_grad_(), types)
            (gradient,) = torch.autograd.grad(energies.sum(), features)
        return energies.detach(), gradient.numpy()

    def _add_repulsion(
        self, energies: Tensor, gradient: Array, vectors: Tensor, types: Tensor, edges: Edges
    ) -> Tensor:
        """Add the pair potential to the energies, which are returned, and to the gradient."""
        network = self.network
        assert network.zbl is not None
        ends = types[edges.receivers], types[edges.senders]
        with torch.enable_grad():
            v = vectors.detach().requires_grad_()
            r = torch.linalg.vector_norm(v, dim=1)
            repulsion = network.zbl(r, network.scaled_distance(r, *ends), *ends)
            (slope,) = torch.autograd.grad(repulsion.sum(), v)
        gradient += slope.numpy()
        return energies.index_add(0, edges.receivers, repulsion.detach())


_NO_PLAN = np.zeros((0, 6), np.int64)


class _Linear(NamedTuple):
    """A linear map as `nodes` takes it: weights (one row for each type, or one) and plan."""

    weight: Array
    plan: NDArray[np.int64]

    def transposed(self) -> "_Linear":
        """Return the map of the derivatives."""
        weight, plan = np.empty_like(self.weight), self.plan[:, [3, 1, 4, 0, 2, 5]]
        for _, _, mul_in, _, mul_out, w in self.plan:
            block = slice(w, w + mul_in * mul_out)
            matrix = self.weight[..., block].reshape(*self.weight.shape[:-1], mul_in, mul_out)
            weight[..., block] = matrix.swapaxes(-1, -2).reshape(*self.weight.shape[:-1], -1)
        return _Linear(weight, np.ascontiguousarray(plan))


class _Layer(NamedTuple):
    """One convolution and what happens at the atoms after it, up to what the next layer sends."""

    kernels: Any
    table: Array
    x_dim: int
    mid_dim: int
    pre_dim: int
    h_dim: int
    sent_dim: int
    linear_2: _Linear
    self_connection: _Linear
    gate: tuple[NDArray[np.int64], int, int, Array]
    linear_1: _Linear
    linear_2_back: _Linear
    linear_1_back: _Linear
    self_connection_back: _Linear

    @classmethod
    def of(
        cls, layer: InteractionBlock, following: InteractionBlock | None, embedding: Tensor,
        table: Tensor
    ) -> "_Layer":  # fmt: skip
        key = form_key(layer.convolution)
        gate = layer.gate
        linear_2 = _linear(layer.linear_2)
        self_connection = _self_connection(layer.self_connection, embedding)
        linear_1 = _linear(None if following is None else following.linear_1)
        return cls(
            kernels=kernels(key, table.dtype),
            table=table.numpy(),
            x_dim=form(key).x_dim,
            mid_dim=form(key).out_dim,
            pre_dim=gate.irreps_in.dim,
            h_dim=gate.irreps_out.dim,
            sent_dim=0 if following is None else gate.irreps_out.dim,
            linear_2=linear_2,
            self_connection=self_connection,
            gate=(
                np.array(gate.blocks, np.int64),
                gate.num_even,
                gate.even_start,
                np.array([gate.silu_scale, gate.tanh_scale], table.numpy().dtype),
            ),
            linear_1=linear_1,
            linear_2_back=linear_2.transposed(),
            linear_1_back=linear_1.transposed(),
            self_connection_back=_self_connection(
                None if following is None else following.self_connection, embedding
            ).transposed(),
        )


def _linear(module: EquivariantLinear | None) -> _Linear:
    if module is None:
        return _Linear(np.zeros(0, np.float32), _NO_PLAN)
    weight = torch.empty_like(module.weight)
    plan = []
    starts = (start for start, _, _ in blocks(module.irreps_out))
    for (start, dim, mul_in, mul_out, w), out_start in zip(module.paths, starts, strict=True):
        plan.append((start, dim, mul_in, out_start, mul_out, w))
        block = slice(w, w + mul_in * mul_out)
        weight[block] = module.weight[block] / math.sqrt(mul_in)
    return _Linear(weight.numpy(), np.array(plan, np.int64))


def _self_connection(module: SelfConnection | None, embedding: Tensor) -> _Linear:
    if module is None:
        return _Linear(np.zeros((len(embedding), 0), np.float32), _NO_PLAN)
    weights, plan, numel = [], [], 0
    num_attributes = module.num_attributes
    starts = (start for start, _, _ in blocks(module.irreps_out))
    for (start, dim, mul_in, mul_out, w), out_start in zip(module.paths, starts, strict=True):
        if mul_in > 0:
            size = mul_in * num_attributes * mul_out
            weight = module.weight[w : w + size].view(mul_in, num_attributes, mul_out)
            weight = torch.einsum("tv,uvo->tuo", embedding, weight)
            weights.append(weight.flatten(1) / math.sqrt(mul_in * num_attributes))
            plan.append((start, dim, mul_in, out_start, mul_out, numel))
            numel += mul_in * mul_out
    return _Linear(torch.cat(weights, dim=1).numpy(), np.array(plan, np.int64))


def _same_type_blocks(types: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide the atoms into blocks of one type; return them, ``[B, 4]``, and their types."""
    atoms, of_type = [], []
    for t in np.unique(types):
        members = np.flatnonzero(types == t)
        missing = -len(members) % nodes.BLOCK
        members = np.concatenate([members, np.repeat(members[-1:], missing)])
        atoms.append(members.reshape(-1, nodes.BLOCK))
        of_type.append(np.full(len(atoms[-1]), t))
    if not atoms:
        return np.zeros((0, nodes.BLOCK), np.int64), np.zeros(0, np.int64)
    return np.concatenate(atoms), np.concatenate(of_type)


class _Workspace:
    """Arrays by name, made larger when needed, never smaller."""

    def __init__(self, dtype: np.dtype):
        self.dtype = dtype
        self.flat: dict[str, Array] = {}

    def array(self, name: str, *shape: int) -> Array:
        """Return the array, with whatever it holds."""
        size = math.prod(shape)
        if name not in self.flat or self.flat[name].size < size:
            self.flat[name] = np.empty(int(1.2 * size), self.dtype)
        return self.flat[name][:size].reshape(shape)


class _Clock:
    """Adds the time since the last note to what is being done."""

    def __init__(self, seconds: dict[str, float]):
        self.seconds = seconds
        self.last = time.perf_counter()

    def note(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] = self.seconds.get(what, 0.0) + now - self.last
        self.last = now
