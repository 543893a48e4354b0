"""How many intervals a potential's radial splines need."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.frame import Frame
from ..data.graph import Graph
from ..potential import Potential, make_graph

#: Largest error of forces that splines may cause, relative to the forces (root mean squares).
TOLERANCE = 1e-5

_INTERVALS = (64, 128, 256, 512, 1024)
_ATOMS = 32
_DENSITY = 0.1  # atoms/Å³, that of water
_CLOSEST = 0.9  # Å


def radial_spline(potential: Potential) -> dict[str, Any]:
    """Find the smallest number of intervals that keeps the forces.

    Parameters
    ----------
    potential
        With exact radial functions.

    Returns
    -------
    dict
        ``intervals``, and ``force_error``: what they do to the forces on a dense cluster of random
        atoms, relative to the forces. It belongs into the potential's metadata as
        ``radial_spline``, where the fused engine looks for it.
    """
    graph = _cluster(len(potential.type_names), potential.r_max)
    exact = _forces(potential, graph, {"radial": "exact"})
    for intervals in _INTERVALS:
        forces = _forces(potential, graph, {"radial": "spline", "radial_intervals": intervals})
        error = float((forces - exact).norm() / exact.norm())
        if error < TOLERANCE:
            break
    return {"intervals": intervals, "force_error": float(f"{error:.2g}")}


def _forces(potential: Potential, graph: Graph, radial: dict[str, Any]) -> Tensor:
    # what is not made of splines would only hide their error
    update = {"model_dtype": "float64", "pair_potential": None, **radial}
    config = potential.config.model_copy(update=update)
    with torch.random.fork_rng(devices=[]):  # every weight is replaced
        copy = Potential(config)
    copy.load_state_dict({name: t.detach().cpu() for name, t in potential.state_dict().items()})
    forces = copy.eval()(graph).forces
    assert forces is not None
    return forces


def _cluster(num_types: int, r_max: float) -> Graph:
    rng = np.random.default_rng(0)
    edge = (_ATOMS / _DENSITY) ** (1 / 3)
    positions = np.zeros((0, 3))
    while len(positions) < _ATOMS:
        new = edge * rng.random(3)
        if np.linalg.norm(positions - new, axis=1).min(initial=np.inf) > _CLOSEST:
            positions = np.vstack([positions, new])
    types = np.arange(_ATOMS) % num_types
    return make_graph(Frame(numbers=types + 1, positions=positions), types, r_max)
