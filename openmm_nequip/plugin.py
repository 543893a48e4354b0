"""`MLPotential('nequip')`: what openmm-ml asks of a potential. Imports neither torch nor e3nn.

Every program that imports openmm-ml loads this file, so nothing here may fail at import.
"""

import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import openmm
from openmm.app import Topology
from openmmml.mlpotential import (
    EmbeddingFactory,
    MLPotential,
    MLPotentialImpl,
    MLPotentialImplFactory,
)

from .errors import InputError, did_you_mean

#: Suffixes of the files that openmm-ml's own 'nequip' potential runs.
UPSTREAM_SUFFIXES = (".ckpt", ".nequip.zip", ".nequip.pth", ".nequip.pt2")
MECHANICAL = "mechanical"
_MIXED_KEYWORDS = (
    "mlLongRange",
    "linkAtomDistances",
    # openmm-ml keeps these to itself; here they serve to spot a misspelt one
    "removeConstraints",
    "forceGroup",
    "interpolate",
    "embedding",
    "returnInfo",
)


class NequIPFactory(MLPotentialImplFactory):
    """Creates the potential behind ``MLPotential('nequip', ...)``."""

    def createImpl(
        self,
        name: str,
        model: str | None = None,
        modelPath: str | Path | None = None,
        lengthScale: float | None = None,
        energyScale: float | None = None,
        **unknown: Any,
    ) -> MLPotentialImpl:
        """Load a potential, or hand upstream NequIP's own files to openmm-ml.

        Parameters
        ----------
        name
            The name the user gave to `MLPotential`.
        model
            Name of a bundled potential; the default one if neither this nor `modelPath` is given.
        modelPath
            A model file (``.safetensors``), or with `lengthScale` and `energyScale` a file of the
            `nequip` package (``.ckpt``, ``.nequip.zip``, ``.nequip.pth``, ``.nequip.pt2``), which
            goes to openmm-ml's own implementation.
        lengthScale, energyScale
            Units of an upstream file in nm and kJ/mol; our model files carry theirs.

        Raises
        ------
        InputError
            The arguments contradict each other, or the file is missing or damaged.
        """
        if unknown:
            word, known = next(iter(unknown)), ["model", "modelPath", "lengthScale", "energyScale"]
            hint = did_you_mean(word, known)
            raise InputError(f"MLPotential('{name}'): unknown argument '{word}'{hint}")
        if model is not None and modelPath is not None:
            raise InputError("give 'model' (a bundled name) or 'modelPath' (a file), not both")
        scaled = lengthScale is not None or energyScale is not None
        if modelPath is not None and str(modelPath).endswith(UPSTREAM_SUFFIXES):
            if lengthScale is None or energyScale is None:
                raise InputError(
                    f"'{modelPath}' is not a model file (.safetensors); if the nequip package "
                    "wrote it, give lengthScale and energyScale (its units in nm and kJ/mol) for "
                    "openmm-ml's implementation, or convert it with openmm_nequip.interop.nequip"
                )
            from openmmml.models.nequippotential import NequIPPotentialImplFactory

            return NequIPPotentialImplFactory().createImpl(
                name, str(modelPath), lengthScale, energyScale
            )
        if scaled:
            raise InputError(
                "lengthScale and energyScale belong to files of the nequip package "
                f"({', '.join(UPSTREAM_SUFFIXES)}); a model file knows its units: leave them out"
            )
        return NequIPPotentialImpl(modelPath if modelPath is not None else model)


class NequIPPotentialImpl(MLPotentialImpl):
    """A loaded potential that adds itself to OpenMM Systems.

    Parameters
    ----------
    model
        Path of a model file or name of a bundled potential; `None` is the default potential.
    """

    def __init__(self, model: str | Path | None = None):
        from .modelfile import DEFAULT_MODEL, find_model, load_file

        self.potential = load_file(find_model(DEFAULT_MODEL if model is None else model))

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        """Add the potential to `system`; called by `MLPotential.createSystem` and embeddings.

        Parameters
        ----------
        topology, system, atoms, forceGroup
            As openmm-ml defines them; `atoms` may be in any order, `None` is all.
        precision : {None, 'single', 'double'}
            Precision of the network; `None` keeps that of the model file.
        device : str, optional
            Where torch computes, such as ``'cuda:0'``; by default the device on which OpenMM
            keeps the positions (`PythonForce`: a GPU if there is one).
        force : {'auto', 'torch', 'python-torch', 'python'}
            OpenMM force that carries the potential; ``'auto'`` is the fastest that works here.
        engine : {'auto', 'fused', 'reference'}
            Implementation of the network: compiled kernels, or plain PyTorch; ``'auto'`` takes
            the kernels wherever they work.
        atomTypes : list of str or int, optional
            Type of each atom by name or index, for potentials with several types per element.
        returnEnergyType : {'energy', 'interaction_energy'}
            Total energy, or less the energy shifts of the atoms, a constant.

        Raises
        ------
        InputError
            Bad atoms, elements or a charge outside the potential's domain, a box too small for
            the cutoff, or a bad keyword.
        """
        from .md.force import add_force
        from .md.options import ForceOptions, atom_types, check_domain

        indices = None if atoms is None else [int(atom) for atom in atoms]
        # createSystem's keywords are all ours; an embedding passes on what others read
        others = ("removeCMMotion",) if indices is None else None
        options = ForceOptions.from_keywords(args, others)
        types = atom_types(self.potential, topology, indices, options.atomTypes)
        check_domain(self.potential, topology, indices, types)
        add_force(self.potential, topology, system, indices, types, forceGroup, options)

    def createMixedSystem(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: list[int],
        forceGroup: int,
        interpolate: bool,
        embedding: str,
        returnInfo: bool = False,
        **args: Any,
    ) -> openmm.System | dict[str, Any]:
        """Embed the potential mechanically in a System of a conventional force field.

        openmm-ml prepares the force field; this adds the potential. Beside the keywords of
        `addForces` there are those of openmm-ml's embedding: `mlLongRange` (default False: the
        potential ends at its cutoff) and `linkAtomDistances`. The System may hold potentials for
        other atoms already, from earlier calls. Bonds of zero strength let the region's molecules
        still be molecules to a barostat and to whoever wraps them into the box.

        Raises
        ------
        InputError
            As `addForces`; an atom has a potential already; a bond that is to be interpolated has
            no energy; the force field is polarisable or has other terms that cannot be divided.
        """
        from .md.bonded import check_interpolation
        from .md.force import add_force
        from .md.mixed import (
            check_force_field,
            keep_molecules,
            name_sites,
            net_charge,
            put_back,
            remove_constraints,
            restraints,
            take_out,
            unname_sites,
            virtual_sites,
            without,
        )
        from .md.options import ForceOptions, atom_types, check_domain

        options = ForceOptions.from_keywords(args, others=_MIXED_KEYWORDS)
        if system.getNumParticles() != topology.getNumAtoms():
            raise InputError(
                f"the System has {system.getNumParticles()} particles and the topology "
                f"{topology.getNumAtoms()} atoms: they must be of one structure, and behind a "
                "region with link atoms those of returnInfo=True"
            )
        atoms = [int(atom) for atom in atoms]
        types = atom_types(self.potential, topology, atoms, options.atomTypes)
        sites_of_region = virtual_sites(system, topology, atoms)
        check_force_field(system, [*atoms, *sites_of_region])
        if interpolate:
            check_interpolation(topology, system, atoms)
        system, others = take_out(system, atoms)
        kinds = {other.settings.kind for other in others if other.settings.interpolate}
        if interpolate and kinds:  # of some kinds OpenMM would report a part of dE/dλ
            options.force = min(kinds) if options.force == "auto" else options.force
            if not kinds <= {options.force}:
                raise InputError(
                    f"the System has an interpolated potential in a force of kind '{kinds.pop()}': "
                    "give all of them the same kind (force=...)"
                )
        system, biases = without(system, restraints(system, topology))
        named, sites = name_sites(topology)
        force_field = _ForceFieldPart(bool(args.pop("mlLongRange", False)))
        info = (
            MLPotential._embeddingFactories[MECHANICAL]
            .createEmbedding(MECHANICAL)
            .createMixedSystem(
                force_field,
                named,
                system,
                [*atoms, *sites_of_region],
                forceGroup,
                interpolate,
                returnInfo=True,
                **args,
            )
        )
        unname_sites(info["topology"], sites)
        # hydrogens that cap cut bonds
        link_atoms = force_field.atoms[len(atoms) + len(sites_of_region) :]
        described = [*atoms, *link_atoms]
        if link_atoms:
            types += atom_types(self.potential, info["topology"], link_atoms)
        # of a part of a molecule the force field's charges mean little
        charge = None if link_atoms else net_charge(system, [*atoms, *sites_of_region])
        check_domain(self.potential, info["topology"], described, types, charge)
        add_force(
            self.potential,
            info["topology"],
            info["system"],
            described,
            types,
            forceGroup,
            options,
            interpolate=interpolate,
        )
        for bias in biases:
            info["system"].addForce(bias)
        put_back(info["system"], others)
        keep_molecules(info["system"], topology, atoms)
        if _atoms_are_spent(sys._getframe(1)):
            remove_constraints(info["system"], atoms)
        return info if returnInfo else info["system"]

    def getSupportedEmbeddings(self) -> list[str]:
        """Mechanical embedding is ours: interpolation must not copy a `TorchForce`."""
        return [MECHANICAL]

    def getMLLongRange(self) -> bool:
        """Return False: nothing reaches beyond the cutoff."""
        return False


def _atoms_are_spent(caller: FrameType) -> bool:
    """Tell whether openmm-ml is about to look for constraints between no atoms at all.

    `MLPotential.createMixedSystem` goes through the caller's atoms twice, the second time to
    remove constraints: of a generator nothing is left by then.
    """
    atoms = caller.f_locals.get("atoms")
    return isinstance(atoms, Iterator) and bool(caller.f_locals.get("removeConstraints"))


class _ForceFieldPart(MLPotentialImpl):
    """Stands for the potential while an embedding prepares the force field; adds nothing.

    Remembers the atoms: the embedding appends link atoms to them.
    """

    def __init__(self, long_range: bool):
        self.long_range = long_range
        self.atoms: list[int] = []

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args: Any,
    ) -> None:
        self.atoms = list(atoms or [])

    def getMLLongRange(self) -> bool:
        return self.long_range


class NameClaim(EmbeddingFactory):
    """Claims the name 'nequip' for this package; not an embedding.

    openmm-ml registers potentials in an undefined order and the last one wins, so its own
    'nequip' may replace ours. Embeddings are loaded after all potentials: by then it is settled
    who has the name, and this takes it over from openmm-ml's class, but from nobody else.
    """

    def __init__(self) -> None:
        try:
            current = MLPotential._implFactories.get("nequip")
            if type(current).__module__.startswith("openmmml."):
                MLPotential.registerImplFactory("nequip", NequIPFactory())
        except Exception as error:  # must not break `import openmmml`
            warnings.warn(
                f"openmm-nequip could not register MLPotential('nequip'): {error}; "
                "use MLPotential('openmm-nequip')",
                stacklevel=2,
            )

    def createEmbedding(self, name: str) -> Any:
        raise InputError(f"'{name}' is not an embedding; use embedding='{MECHANICAL}'")
