"""The teacher: the ensemble of eight ANI-2x networks (Devereux et al., JCTC 16, 4192, 2020)."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers
from ase.units import Hartree
from torchani.arch import ANI
from torchani.neurochem import load_aev_computer_and_symbols, load_ensemble, load_sae

from openmm_nequip.errors import InputError

#: Elements of ANI-2x.
ELEMENTS = ("H", "C", "N", "O", "F", "S", "Cl")
_MEMBERS = 8


class Labels(NamedTuple):
    """Of one configuration of N atoms.

    Attributes
    ----------
    energy
        Mean over the members, eV.
    forces
        Its negative gradient, eV/Å, shape ``[N, 3]``.
    spread
        Standard deviation of the members' energies over √N, eV.
    """

    energy: float
    forces: np.ndarray
    spread: float


class Teacher:
    """Evaluates the ensemble, many configurations at once.

    The networks run in float32; the energies of the atoms, which are large, are added in float64.

    Parameters
    ----------
    folder
        With ``ani-2x_8x/``; left out, ``$OPENMM_NEQUIP_DATA/ani2x``.

    Raises
    ------
    InputError
        The networks are not there.
    """

    def __init__(self, folder: Path | None = None):
        if folder is None:
            folder = Path(os.environ.get("OPENMM_NEQUIP_DATA", "")) / "ani2x"
        folder = folder / "ani-2x_8x"
        constants = sorted(folder.glob("*.params"))
        if not constants:
            raise InputError(
                f"{folder} has no ANI-2x networks; get them from github.com/aiqm/ani-model-zoo "
                "and set OPENMM_NEQUIP_DATA to the folder that holds ani2x/"
            )
        aev, symbols = load_aev_computer_and_symbols(constants[0])
        networks = load_ensemble(symbols, folder / "train", _MEMBERS)
        atoms = load_sae(folder / "sae_linfit.dat")
        self.atom_energies = dict(
            zip((atomic_numbers[s] for s in symbols), atoms.self_energies.tolist(), strict=True)
        )
        self.model = ANI(symbols, aev, networks, atoms).float().requires_grad_(False)
        self.model.set_enabled("energy_shifter", False)

    def label(self, numbers: list[np.ndarray], positions: list[np.ndarray]) -> list[Labels]:
        """Evaluate configurations.

        Parameters
        ----------
        numbers
            Atomic numbers of each.
        positions
            Å, shape ``[N, 3]`` each.
        """
        size = max(map(len, numbers))
        species = torch.full((len(numbers), size), -1, dtype=torch.int64)
        points = torch.zeros(len(numbers), size, 3)
        for k, (z, r) in enumerate(zip(numbers, positions, strict=True)):
            species[k, : len(z)] = torch.as_tensor(z)
            points[k, : len(z)] = torch.as_tensor(r)
        points.requires_grad_()
        members = self.model((species, points), ensemble_values=True).energies
        (gradient,) = torch.autograd.grad(members.mean(dim=0).sum(), points)
        values = members.detach().double().numpy()
        return [
            Labels(
                (values[:, k].mean() + sum(self.atom_energies[n] for n in z.tolist())) * Hartree,
                -gradient[k, : len(z)].double().numpy() * Hartree,
                values[:, k].std(ddof=1) * Hartree / np.sqrt(len(z)),
            )
            for k, z in enumerate(numbers)
        ]
