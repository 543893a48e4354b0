"""What is put through the suite: architectures and engines, and the structures they see."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.data.frame import Frame
from openmm_nequip.potential import Potential

TYPES = ["H", "C", "O"]
NUMBERS = {"H": 1, "C": 6, "O": 8}
R_MAX = 3.5
#: Where the networks compute; what they return is compared on the CPU.
DEVICE = os.environ.get("OPENMM_NEQUIP_TEST_DEVICE", "cpu")


@dataclass(frozen=True)
class Case:
    """A network to test: its configuration, and the pair cutoffs that differ from `R_MAX`."""

    config: Callable[..., Any]
    options: dict[str, Any]
    cutoffs: dict[tuple[str, str], float] = field(default_factory=dict)

    def cutoff(self, a: str, b: str) -> float:
        return self.cutoffs.get((a, b), R_MAX)


def nequip(cutoffs: dict[tuple[str, str], float] | None = None, **options: Any) -> Case:
    shared = {
        "type_names": TYPES,
        "r_max": R_MAX,
        "avg_num_neighbors": 6.0,
        "per_type_energy_scales": {"H": 5.0, "C": 9.0, "O": 7.0},
        "per_type_energy_shifts": {"H": -13.6, "C": -38.1, "O": -75.2},
        "radial_mlp_width": 8,
    }
    return Case(NequIPConfig, shared | options, cutoffs or {})


#: A new architecture is one more entry.
CASES = {
    "l0": nequip(num_layers=2, l_max=0, num_features=8),
    "l1-parity": nequip(num_layers=3, l_max=1, num_features=4),
    "l1-one-layer": nequip(num_layers=1, l_max=1, parity=False, num_features=6),
    "l1-readout-mlp": nequip(
        num_layers=2,
        l_max=1,
        parity=False,
        num_features=[8, 4],
        type_embed_num_features=5,
        radial_mlp_depth=3,
        readout_mlp_hidden_layers_depth=1,
        readout_mlp_hidden_layers_width=6,
    ),
    "l2-parity-zbl": nequip(
        num_layers=2,
        l_max=2,
        num_features=4,
        avg_num_neighbors={"H": 5.0, "C": 7.0, "O": 6.0},
        pair_potential="zbl",
    ),
    "l2-edge-cutoffs": nequip(
        num_layers=3,
        l_max=2,
        parity=False,
        num_features=[6, 4, 4],
        per_edge_type_cutoff={"H": {"H": 2.5}, "C": {"O": 3.0}, "O": {"C": 3.0}},
        bessel_trainable=True,
        polynomial_cutoff_p=5,
        cutoffs={("H", "H"): 2.5, ("C", "O"): 3.0, ("O", "C"): 3.0},
    ),
    "l2-spline": nequip(
        num_layers=2,
        l_max=2,
        parity=False,
        num_features=[5, 3, 4],
        radial="spline",
        radial_intervals=48,
    ),
    "l3-parity": nequip(
        num_layers=2, l_max=3, num_features=[6, 4, 2, 2], radial_mlp_depth=2, num_bessels=5
    ),
    "l4": nequip(num_layers=2, l_max=4, parity=False, num_features=4),
}

#: A new engine is one more entry: it turns a `Potential` into the one that is evaluated.
ENGINES: dict[str, Callable[[Potential], Potential]] = {
    "reference": lambda potential: potential,
    "fused": lambda potential: potential.with_engine("fused"),
}


def build(case: str, dtype: str = "float64", engine: str = "reference") -> Potential:
    """Return the potential of a case with the same random weights in every call."""
    torch.manual_seed(7)
    config = CASES[case].config(model_dtype=dtype, **CASES[case].options)
    return ENGINES[engine](Potential(config).eval()).to(DEVICE)


def random_positions(rng: np.random.Generator, n: int, box: np.ndarray, closest: float):
    """Place n atoms in a box, no two images closer than `closest` Å."""
    images = np.array(np.meshgrid(*[(-1, 0, 1)] * 3)).reshape(3, -1).T @ box
    positions: list[np.ndarray] = []
    while len(positions) < n:
        new = rng.random(3) @ box
        distances = [np.linalg.norm(new + images - old, axis=1).min() for old in positions]
        if min(distances, default=np.inf) > closest:
            positions.append(new)
    return np.array(positions)


def molecule(seed: int = 0, n: int = 9) -> Frame:
    """Random atoms within a few Å, not periodic; some pairs are beyond the cutoff."""
    rng = np.random.default_rng(seed)
    symbols = [TYPES[k % 3] for k in range(n)]
    return Frame(
        numbers=np.array([NUMBERS[symbol] for symbol in symbols]),
        positions=random_positions(rng, n, 4.0 * np.eye(3), 1.0),
    )


def crystal(seed: int = 1, scale: float = 1.0) -> Frame:
    """Four atoms in a triclinic cell that is smaller than the cutoff (for ``scale=1``)."""
    rng = np.random.default_rng(seed)
    cell = scale * np.array([[3.2, 0.0, 0.0], [0.9, 3.0, 0.0], [-0.7, 0.6, 3.3]])
    return Frame(
        numbers=np.array([1, 6, 8, 6]),
        positions=random_positions(rng, 4, cell, 1.1),
        cell=cell,
        pbc=(True, True, True),
    )
