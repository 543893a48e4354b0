"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", ICLR 2025, algorithm 3.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..nn.linear import EquivariantLinear, SelfConnection

#: Parameters that are not matrices (frequencies, energy shifts and scales) have physical units
#: and not the unit variance that weights have; they take steps this much smaller.
_VECTOR_RATE = 0.1


class Matrix(NamedTuple):
    """A matrix, or a tensor of three indices, in flat weights.

    Attributes
    ----------
    shape
        Lengths of its indices.
    spans
        For each index the vectors, ``[K, length]``, between which all gradients lie; `None` where
        they can point anywhere.
    """

    shape: tuple[int, ...]
    spans: tuple[Tensor | None, ...]


def matrices(module: nn.Module) -> dict[Tensor, list[Matrix]]:
    """Return the matrices that follow each other in flat weights.

    There is one for each irrep, since channels of different irreps do not mix. Those of a
    self-connection have a third index, of attributes: of that, gradients have the direction of
    every type's embedding, and no others.
    """
    found: dict[Tensor, list[Matrix]] = {}
    embedding = None
    for part in module.modules():
        own = getattr(part, "type_embedding", None)
        if isinstance(own, Tensor) and own.shape[0] < own.shape[1]:
            embedding = own
        if isinstance(part, EquivariantLinear):
            found[part.weight] = [Matrix((m, n), (None, None)) for _, _, m, n, _ in part.paths]
        elif isinstance(part, SelfConnection):
            found[part.weight] = [
                Matrix((m, part.num_attributes, n), (None, embedding, None))
                for _, _, m, n, _ in part.paths
                if m
            ]
    return found


class SOAP(Optimizer):
    """Adam whose moments are taken along the principal axes of the gradients.

    The gradient G of a matrix has the averages L of G Gᵀ and R of Gᵀ G. Their eigenvectors Q_L
    and Q_R change slowly; with G' = Q_Lᵀ G Q_R in place of G, Adam scales directions in which the
    loss is stiff or soft, and not single weights. For more indices there is an average for each.
    Directions in which no gradient can point are left out.

    Parameters
    ----------
    module
        Whose trainable parameters are optimised.
    lr
        Learning rate: about the change of a weight of unit variance per step.
    betas
        Decay of the averages of the gradient and of its square.
    basis_beta
        Decay of the averages L and R.
    basis_interval
        Steps between updates of the eigenvectors.
    largest
        Indices longer than this keep their basis, because its cost grows with the third power.
    weight_decay
        Of matrices; decoupled from the gradient, as in AdamW.
    """

    def __init__(
        self,
        module: nn.Module,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        basis_beta: float = 0.95,
        basis_interval: int = 10,
        largest: int = 256,
        weight_decay: float = 0.0,
    ):
        self.matrices = matrices(module)
        self.betas = betas
        self.basis_beta = basis_beta
        self.basis_interval = basis_interval
        self.largest = largest
        self.weight_decay = weight_decay
        super().__init__([p for p in module.parameters() if p.requires_grad], {"lr": lr})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; the first one only finds the eigenvectors."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"])
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        shape = tuple(parameter.shape)
        found = self.matrices.get(parameter, [Matrix(shape, (None,) * len(shape))])
        state = self.state[parameter]
        if not state:
            state.update(self._start(found, parameter))
        state["step"] += 1
        step = state["step"]
        rate, decay = lr, lr * self.weight_decay
        if parameter.dim() == 1 and parameter not in self.matrices:
            rate, decay = lr * _VECTOR_RATE, 0.0

        tensors = (split(t, found) for t in (parameter, gradient))
        states = (state[name] for name in ("means", "squares", "covariances", "bases"))
        for (_, spans), weight, g, mean, square, covariances, bases in zip(
            found, *tensors, *states, strict=True
        ):
            order = sorted(range(g.dim()), key=lambda k: spans[k] is None)  # least work
            for k in order:
                if covariances[k] is not None:
                    # the same whatever the axes of the other indices
                    rows = g.movedim(k, 0).flatten(1)
                    covariances[k].lerp_(rows @ rows.T, 1.0 - self.basis_beta)
                    if step == 0:
                        bases[k] = _eigenvectors(covariances[k], spans[k]).to(g.dtype)
                    g = _turn(g, bases[k], k)
            if step == 0:
                continue
            mean.lerp_(g, 1.0 - self.betas[0])
            square.lerp_(g * g, 1.0 - self.betas[1])
            m = mean / (1.0 - self.betas[0] ** step)
            v = square / (1.0 - self.betas[1] ** step)
            change = m / (v.sqrt_() + 1e-8)
            for k in reversed(order):
                change = _turn(change, bases[k], k, back=True)
            weight.mul_(1.0 - decay).sub_(change, alpha=rate)
            if step % self.basis_interval == 0:
                for k, covariance in enumerate(covariances):
                    if covariance is not None:
                        before = bases[k]
                        bases[k] = _turned(before, covariance, spans[k], square, k)
                        mean.copy_(_turn(_turn(mean, before, k, back=True), bases[k], k))

    def _start(self, found: list[Matrix], like: Tensor) -> dict[str, Any]:
        """Return the state before the first step."""
        lengths = [
            [n if span is None else len(span) for n, span in zip(*matrix, strict=True)]
            for matrix in found
        ]
        return {
            "step": -1,
            "means": [like.new_zeros(n) for n in lengths],  # along the eigenvectors
            "squares": [like.new_zeros(n) for n in lengths],
            "covariances": [
                [
                    None
                    if len(shape) == 1 or (n > self.largest and span is None)
                    else like.new_zeros(n, n)
                    for n, span in zip(shape, spans, strict=True)
                ]
                for shape, spans in found
            ],
            "bases": [[None] * len(shape) for shape, _ in found],
        }


def split(flat: Tensor, found: list[Matrix]) -> list[Tensor]:
    """Return views of the matrices in flat weights, or in their gradient."""
    parts = flat.view(-1).split([math.prod(matrix.shape) for matrix in found])
    return [part.view(matrix.shape) for part, matrix in zip(parts, found, strict=True)]


def _turn(tensor: Tensor, basis: Tensor | None, k: int, back: bool = False) -> Tensor:
    """Take index k of a tensor to a basis, or back."""
    if basis is None:
        return tensor
    matrix = basis if back else basis.T
    if k == tensor.dim() - 1:
        return tensor @ matrix.T
    before, after = tensor.shape[:k], tensor.shape[k + 1 :]
    turned = matrix @ tensor.reshape(math.prod(before), tensor.shape[k], -1)
    return turned.view(*before, -1, *after)


def _eigenvectors(covariance: Tensor, span: Tensor | None) -> Tensor:
    """Return the eigenvectors between the vectors of a span."""
    covariance = covariance.double()
    if span is None:
        return torch.linalg.eigh(covariance)[1]
    within = torch.linalg.qr(span.T.double())[0]
    return within @ torch.linalg.eigh(within.T @ covariance @ within)[1]


def _turned(
    basis: Tensor, covariance: Tensor, span: Tensor | None, square: Tensor, k: int
) -> Tensor:
    """Return a basis after a step of orthogonal iteration towards the eigenvectors.

    Its vectors are sorted by eigenvalue beforehand, and index k of `square` with them.
    """
    product = covariance @ basis
    order = (basis * product).sum(dim=0).argsort(descending=True, stable=True)
    square.copy_(square.index_select(k, order))
    product = product[:, order]
    if span is None:
        return torch.linalg.qr(product)[0]
    within = torch.linalg.qr(span.T)[0]
    return within @ torch.linalg.qr(within.T @ product)[0]
