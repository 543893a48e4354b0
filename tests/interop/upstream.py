"""Official NequIP models with random weights, and their energies and forces."""

from typing import Any

import numpy as np
import torch

from openmm_nequip.data.frame import Frame
from openmm_nequip.potential import make_graph

TYPES = ["H", "C", "O"]
R_MAX = 4.0
ZBL = {
    "_target_": "nequip.nn.pair_potential.ZBL",
    "chemical_species": TYPES,
    "units": "metal",
}

#: What is compared: every option that changes the function, alone or with others.
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "l0": {"l_max": 0},
    "l1-no-parity": {"parity": False},
    "l2-parity": {"l_max": 2, "num_features": 4},
    "l2-no-parity": {"l_max": 2, "num_features": [6, 4, 3], "parity": False},
    "l3-parity": {"l_max": 3, "num_features": [6, 4, 3, 2]},
    "l3-no-parity": {"l_max": 3, "num_features": [6, 4, 3, 2], "parity": False, "num_layers": 2},
    "l4": {"l_max": 4, "num_features": 3, "num_layers": 2},
    "one-layer": {"num_layers": 1, "l_max": 2},
    "five-layers": {"num_layers": 5},
    "type-embedding": {"type_embed_num_features": 5, "l_max": 2, "num_features": 4},
    "radial-depth-2": {"radial_mlp_depth": 2},
    "radial-depth-3": {"radial_mlp_depth": 3, "radial_mlp_width": 5},
    "radial-depth-0": {"radial_mlp_depth": 0},
    "bessels": {"num_bessels": 5, "polynomial_cutoff_p": 4},
    "bessel-trainable": {"bessel_trainable": True},
    "per-type-neighbors": {"avg_num_neighbors": {"H": 5.0, "C": 13.0, "O": 9.0}, "l_max": 2},
    "per-type-energies": {
        "per_type_energy_scales": {"H": 0.5, "C": 2.0, "O": 1.5},
        "per_type_energy_shifts": {"H": -13.0, "C": -1030.0, "O": -2040.0},
    },
    "energies-trainable": {
        "per_type_energy_scales_trainable": True,
        "per_type_energy_shifts_trainable": True,
    },
    "no-scales": {"per_type_energy_scales": None, "per_type_energy_shifts": None},
    "zbl": {"pair_potential": ZBL, "polynomial_cutoff_p": 5},
    "edge-cutoffs": {
        "per_edge_type_cutoff": {"H": 2.5, "C": {"H": 3.0}, "O": {"O": 3.1}},
        "pair_potential": ZBL,
    },
    "readout-mlp": {"readout_mlp_hidden_layers_depth": 1},
    "readout-mlp-mish": {
        "readout_mlp_hidden_layers_depth": 2,
        "readout_mlp_hidden_layers_width": 7,
        "readout_mlp_nonlinearity": "mish",
    },
    "readout-mlp-gelu": {
        "readout_mlp_hidden_layers_depth": 1,
        "readout_mlp_nonlinearity": "gelu",
    },
    "readout-mlp-linear": {
        "readout_mlp_hidden_layers_depth": 2,
        "readout_mlp_nonlinearity": None,
    },
}


def initialise() -> None:
    """Let nequip set its global state, but keep PyTorch's default dtype for the other tests."""
    from nequip.utils.global_state import set_global_state

    default_dtype = torch.get_default_dtype()
    set_global_state()
    torch.set_default_dtype(default_dtype)


def build(seed: int = 1, dtype: str = "float64", builder: str = "NequIPGNNModel", **options: Any):
    """Build an official model; trainable numbers that start at round values are perturbed."""
    import nequip.model

    initialise()
    values: dict[str, Any] = {
        "type_names": TYPES,
        "r_max": R_MAX,
        "avg_num_neighbors": 9.0,
        "num_layers": 3,
        "num_features": 6,
        "radial_mlp_width": 8,
        "per_type_energy_scales": 1.7,
        "per_type_energy_shifts": -3.0,
    }
    model = getattr(nequip.model, builder)(seed=seed, model_dtype=dtype, **(values | options))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("bessel_weights", "scales", "shifts")):
                noise = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter += 0.1 * noise
    return model.eval()


def structures() -> dict[str, Frame]:
    """Return a molecule, a small triclinic cell, and a slab that is periodic in two directions."""
    rng = np.random.default_rng(5)
    positions = np.argwhere(np.ones((2, 2, 3))) * 1.4 + rng.normal(scale=0.15, size=(12, 3))
    cell = np.array([[3.9, 0.0, 0.0], [0.8, 3.6, 0.0], [-0.9, 0.7, 4.6]])
    numbers = np.array([1, 6, 8, 6, 1, 8, 6, 6, 1, 8, 1, 6])
    return {
        "molecule": Frame(numbers, positions),
        "triclinic": Frame(numbers, positions, cell, (True, True, True)),
        "slab": Frame(numbers, positions, cell, (True, False, True)),
    }


def evaluate(model: torch.nn.Module, frame: Frame) -> dict[str, np.ndarray]:
    """Energy, atomic energies, forces and stress of the official model."""
    types = np.array([TYPES.index({1: "H", 6: "C", 8: "O"}[z]) for z in frame.numbers])
    graph = make_graph(frame, types, R_MAX)
    data = {
        "pos": graph.positions,
        "atom_types": graph.types,
        "edge_index": graph.edge_index,
    }
    if frame.cell is not None:
        data |= {"cell": graph.cell, "edge_cell_shift": graph.shifts}
    output = model(data)
    result = {
        "energy": output["total_energy"].item(),
        "energies": output["atomic_energy"].detach().numpy().ravel(),
        "forces": output["forces"].detach().numpy(),
    }
    if frame.cell is not None and all(frame.pbc):
        result["stress"] = output["stress"].detach().numpy()[0]
    return result
