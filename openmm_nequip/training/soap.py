"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", ICLR 2025, algorithm 3.
"""

import math
from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..nn.linear import EquivariantLinear, SelfConnection

#: Parameters that are not matrices (frequencies, energy shifts and scales) have physical units
#: and not the unit variance that weights have; they take steps this much smaller.
_VECTOR_RATE = 0.1


def matrices(module: nn.Module) -> dict[Tensor, list[tuple[int, ...]]]:
    """Return the shapes of the matrices that follow each other in flat weights.

    There is one for each irrep, since channels of different irreps do not mix; those of a
    self-connection have a third index.
    """
    found: dict[Tensor, list[tuple[int, ...]]] = {}
    for part in module.modules():
        if isinstance(part, EquivariantLinear):
            found[part.weight] = [(m, n) for _, _, m, n, _ in part.paths]
        elif isinstance(part, SelfConnection):
            found[part.weight] = [(m, part.num_attributes, n) for _, _, m, n, _ in part.paths if m]
    return found


class SOAP(Optimizer):
    """Adam whose moments are taken along the principal axes of the gradients.

    The gradient G of a matrix has the averages L of G Gᵀ and R of Gᵀ G. Their eigenvectors Q_L
    and Q_R change slowly; with G' = Q_Lᵀ G Q_R in place of G, Adam scales directions in which the
    loss is stiff or soft, and not single weights. For more indices there is an average for each.

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
        Decoupled from the gradient, as in AdamW.
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
        shapes = self.matrices.get(parameter, [tuple(parameter.shape)])
        state = self.state[parameter]
        if not state:
            state["step"] = -1
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)  # along the eigenvectors
            state["covariances"] = [
                [
                    parameter.new_zeros(n, n) if len(shape) > 1 and n <= self.largest else None
                    for n in shape
                ]
                for shape in shapes
            ]
            state["bases"] = [[None] * len(shape) for shape in shapes]
        state["step"] += 1
        step = state["step"]
        rate = lr
        if parameter.dim() == 1 and parameter not in self.matrices:
            rate *= _VECTOR_RATE

        tensors = parameter, gradient, state["mean"], state["square"]
        for weight, g, mean, square, covariances, bases in zip(
            *(_split(t, shapes) for t in tensors), state["covariances"], state["bases"], strict=True
        ):
            for k, covariance in enumerate(covariances):
                if covariance is not None:
                    rows = g.movedim(k, 0).flatten(1)
                    covariance.lerp_(rows @ rows.T, 1.0 - self.basis_beta)
            if step == 0:
                bases[:] = [None if c is None else _eigenvectors(c) for c in covariances]
                continue
            along = _rotate(g, bases)
            mean.lerp_(g, 1.0 - self.betas[0])
            square.lerp_(along * along, 1.0 - self.betas[1])
            m = _rotate(mean, bases) / (1.0 - self.betas[0] ** step)
            v = square / (1.0 - self.betas[1] ** step)
            change = _rotate(m / (v.sqrt_() + 1e-8), bases, back=True)
            weight.mul_(1.0 - lr * self.weight_decay).sub_(change, alpha=rate)
            if step % self.basis_interval == 0:
                for k, covariance in enumerate(covariances):
                    if covariance is not None:
                        bases[k] = _turned(bases[k], covariance, square, k)


def _split(flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Return views of tensors that follow each other in memory."""
    parts = flat.view(-1).split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _rotate(tensor: Tensor, bases: list[Tensor | None], back: bool = False) -> Tensor:
    """Contract each index in turn with the first one of its basis, or the second to go back."""
    for basis in bases:
        first, *others = tensor.shape
        turned = tensor.reshape(first, -1).T  # the next index comes to the front
        if basis is not None:
            turned = turned @ (basis.T if back else basis)
        tensor = turned.reshape(*others, first)
    return tensor


def _eigenvectors(covariance: Tensor) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(covariance.double())[1]
    return vectors.to(covariance.dtype)


def _turned(basis: Tensor, covariance: Tensor, square: Tensor, k: int) -> Tensor:
    """Return a basis after a step of orthogonal iteration towards the eigenvectors.

    Its vectors are sorted by eigenvalue beforehand, and index k of `square` with them.
    """
    product = covariance @ basis
    order = (basis * product).sum(dim=0).argsort(descending=True, stable=True)
    square.copy_(square.index_select(k, order))
    turned: Tensor = torch.linalg.qr(product[:, order])[0]
    return turned
