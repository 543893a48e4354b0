"""An ASE calculator for any `Potential`: optimisers, molecular dynamics, phonons, NEB."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.stress import full_3x3_to_voigt_6_stress

from .. import load
from ..data.frame import Frame
from ..domain import net_charge, read_domain
from ..errors import InputError
from ..kernels.engine import choose_engine
from ..potential import Potential


class NequIPCalculator(Calculator):
    """Energies, forces and stress of a potential, for ASE.

    Parameters
    ----------
    model
        Path of a model file, name of a bundled potential, or a `Potential`.
    engine
        ``'fused'``: compiled kernels, on a copy of the potential, with a neighbour list that lasts
        for many steps; ``'reference'``: the PyTorch network; ``'auto'``: fused where it works.
    device
        Where to evaluate, as PyTorch names it (``'cpu'``, ``'cuda'``, ``'cuda:1'``). By default
        a `Potential` stays where it is, and a model file goes to a CUDA GPU if there is one.

    Raises
    ------
    InputError
        No such model, engine or device; in a calculation: an element that the potential does not
        know, a charge that it is not meant for, positions or a cell that are not finite, a periodic
        direction without a cell vector.

    Notes
    -----
    ``energies`` are the atomic energies, eV; they add up to the energy. The stress (eV/Å³,
    tension positive, Voigt order) exists for structures that are periodic in all three
    directions. Directions of `atoms.pbc` that are off see no images. The charge of a structure is
    ``atoms.info['charge']``, or else the sum of its initial charges; without either it is unknown.

    Examples
    --------
    >>> atoms.calc = NequIPCalculator("aspirin.safetensors")
    >>> atoms.get_potential_energy()
    """

    implemented_properties = ("energy", "free_energy", "energies", "forces", "stress")

    def __init__(
        self,
        model: str | Path | Potential,
        engine: str = "auto",
        device: str | torch.device | None = None,
    ):
        super().__init__()
        if not isinstance(model, Potential):
            model = load(model)
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if device is not None:
            try:
                model = model.to(device)
            except (RuntimeError, AssertionError) as error:
                raise InputError(
                    f"device '{device}' cannot be used: {str(error).splitlines()[0]}"
                ) from None
        self._fused = None
        if choose_engine(engine, model.device) == "fused":
            from ..md.fused import FusedEngine

            self._fused = FusedEngine(model, model.device)
            model = self._fused.potential
        self.potential = model.eval()
        self._domain = read_domain(model.elements, model.metadata)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the potential and the results; a copy has neighbour lists of its own."""
        engine = "reference" if self._fused is None else "fused"
        state = {"results": self.results, "atoms": self.atoms}
        return type(self), (self.potential, engine, self.potential.device), state

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute every property at once; ASE calls this when a result is missing."""
        super().calculate(atoms, properties, system_changes)
        has_stress = bool(self.atoms.pbc.all())
        if "stress" in (properties or ()) and not has_stress:
            raise PropertyNotImplementedError(
                "stress is defined for structures that are periodic in all three directions"
            )
        frame = _frame(self.atoms)
        self._domain.check(frame.numbers, net_charge(self.atoms))
        if self._fused is None:
            output = self.potential(self.potential.to_graph(frame), stress=has_stress)
            energy, energies, forces = output.energy, output.atomic_energies, output.forces
            stress = output.stress[0] if has_stress else None
        else:
            device = self.potential.device
            found = self._fused(
                torch.tensor(frame.positions, dtype=torch.float64, device=device),
                torch.tensor(self.potential.type_indices(frame.numbers), device=device),
                frame.cell,
                frame.pbc,
            )
            energies, forces, virial = found.energies, found.forces, found.virial
            energy = energies.sum()
            stress = (virial + virial.T) / (2 * self.atoms.get_volume()) if has_stress else None
        self.results = {
            "energy": energy.item(),
            "free_energy": energy.item(),
            "energies": energies.cpu().numpy(),
            "forces": forces.cpu().numpy(),
        }
        if stress is not None:
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress.cpu().numpy())


def _frame(atoms: Atoms) -> Frame:
    """Take the geometry from ASE; cell vectors of directions without images do not matter."""
    if not np.isfinite(atoms.cell.array).all():
        raise InputError(f"the cell is not finite: {atoms.cell.array.tolist()}")
    if (atoms.pbc & ~atoms.cell.any(axis=1)).any():
        raise InputError(
            f"pbc is {atoms.pbc.tolist()} but a periodic direction has no cell vector: "
            "set atoms.cell, or atoms.pbc = False"
        )
    x, y, z = (bool(periodic) for periodic in atoms.pbc)
    return Frame(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions,
        cell=atoms.cell.complete().array if (x or y or z) else None,
        pbc=(x, y, z),
        source="ASE",
    )
