"""Write `fixture.npz`: what official NequIP models compute, for machines without nequip.

Run ``python -m tests.interop.make_fixture`` from the root of the checkout, with nequip installed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from openmm_nequip.interop.nequip import from_model

from . import upstream

PATH = Path(__file__).with_name("fixture.npz")

#: Between them they use every option that changes the function.
MODELS: dict[str, dict[str, Any]] = {
    "parity": {"l_max": 2, "num_features": [4, 3, 2], "num_layers": 2},
    "no-parity": {
        "l_max": 3,
        "num_features": [4, 3, 2, 2],
        "num_layers": 2,
        "parity": False,
        "type_embed_num_features": 3,
        "radial_mlp_depth": 2,
        "avg_num_neighbors": {"H": 5.0, "C": 13.0, "O": 9.0},
        "per_type_energy_scales": {"H": 0.5, "C": 2.0, "O": 1.5},
        "per_type_energy_shifts": {"H": -13.0, "C": -1030.0, "O": -2040.0},
        "readout_mlp_hidden_layers_depth": 1,
    },
    "cutoffs": {
        "l_max": 1,
        "num_features": 4,
        "bessel_trainable": True,
        "polynomial_cutoff_p": 5,
        "per_edge_type_cutoff": {"H": 2.5, "C": {"H": 3.0}, "O": {"O": 3.1}},
        "pair_potential": upstream.ZBL,
    },
}


def main() -> None:
    """Build the models, evaluate them with nequip, store inputs, weights and results."""
    content: dict[str, Any] = {}
    for name, frame in upstream.structures().items():
        content[f"{name}/numbers"] = frame.numbers
        content[f"{name}/positions"] = frame.positions
        content[f"{name}/pbc"] = np.array(frame.pbc)
        if frame.cell is not None:
            content[f"{name}/cell"] = frame.cell
    for model_name, options in MODELS.items():
        model = upstream.build(**options)
        potential = from_model(model)
        config = potential.config.model_dump()
        content[f"{model_name}/config"] = np.array(json.dumps(config))
        for key, weight in potential.state_dict().items():
            content[f"{model_name}/weights/{key}"] = weight.numpy()
        for name, frame in upstream.structures().items():
            for key, value in upstream.evaluate(model, frame).items():
                content[f"{model_name}/{name}/{key}"] = value
    np.savez_compressed(PATH, **content)
    print(f"{PATH}: {PATH.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
