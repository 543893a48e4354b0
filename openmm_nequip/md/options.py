"""What a user says when the potential is added to a System, checked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from ase.data import atomic_numbers
from openmm.app import Topology

from ..domain import read_domain
from ..errors import InputError, did_you_mean
from ..kernels.engine import ENGINES, choose_engine
from ..potential import Potential
from .probe import KINDS

_CHOICES: dict[str, tuple[str | None, ...]] = {
    "precision": (None, "single", "double"),
    "force": ("auto", *KINDS),
    "engine": ENGINES,
    "returnEnergyType": ("energy", "interaction_energy"),
}


@dataclass
class ForceOptions:
    """Keywords of `createSystem`; see `openmm_nequip.plugin.NequIPPotentialImpl.addForces`."""

    precision: str | None = None
    device: str | None = None
    force: str = "auto"
    engine: str = "auto"
    atomTypes: Sequence[str | int] | None = None
    returnEnergyType: str = "energy"

    @classmethod
    def from_keywords(
        cls, keywords: dict[str, Any], others: Iterable[str] | None = None
    ) -> "ForceOptions":
        """Take what is ours out of the keywords of a call, and check it.

        Parameters
        ----------
        keywords
            Names and values.
        others
            Names that somebody else reads; `None` lets every name pass.

        Raises
        ------
        InputError
            A name is unknown, a value is not one of those allowed, or there is no such device.
        """
        names = [field.name for field in fields(cls)]
        if others is not None:
            known = [*names, *others]
            for name in keywords:
                if name not in known:
                    raise InputError(f"unknown keyword '{name}'{did_you_mean(name, known)}")
        options = cls(**{name: keywords[name] for name in names if name in keywords})
        for name, allowed in _CHOICES.items():
            value = getattr(options, name)
            if value not in allowed:
                raise InputError(
                    f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}"
                    f"{did_you_mean(str(value), [word for word in allowed if word])}"
                )
        if options.device is not None:
            options.device = _usable_device(options.device)
        choose_engine(options.engine, options.device)
        return options


def _usable_device(device: str | torch.device) -> str:
    try:
        device = torch.device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device='{device}' cannot be used: {reason}") from None
    return str(device)


def atom_types(
    potential: Potential,
    topology: Topology,
    atoms: Iterable[int] | None,
    given: Sequence[str | int] | None = None,
) -> list[int]:
    """Check the atoms that a potential is to describe and return the type index of each.

    Parameters
    ----------
    potential
        Knows the types.
    topology
        Knows the elements.
    atoms
        Indices in the topology; `None` is all.
    given
        Type of each atom by name or index; from the elements if not given.

    Raises
    ------
    InputError
        No atoms, an atom twice or out of range, an unknown type, an atom without an element or
        with one that the potential has never seen.
    """
    members = list(topology.atoms())
    indices = list(range(len(members))) if atoms is None else [int(a) for a in atoms]
    if not indices:
        raise InputError("there are no atoms: give the indices of those the potential describes")
    seen: set[int] = set()
    for index in indices:
        if not 0 <= index < len(members):
            raise InputError(
                f"atom {index} does not exist: the topology has the atoms 0 to {len(members) - 1}"
            )
        if index in seen:
            raise InputError(f"atom {index} is given twice")
        seen.add(index)
    if given is not None:
        if len(given) != len(indices):
            raise InputError(
                f"atomTypes has {len(given)} entries for {len(indices)} atoms; give one for each"
            )
        return [_type_index(potential, value) for value in given]
    for index in indices:
        atom = members[index]
        if atom.element is None:
            raise InputError(
                f"atom {index} ({atom.name} of residue {atom.residue.name}) has no element; set "
                "it in the topology, leave the atom out, or give atomTypes"
            )
    return potential.type_indices([members[k].element.atomic_number for k in indices]).tolist()


def check_domain(
    potential: Potential,
    topology: Topology,
    atoms: Iterable[int] | None,
    types: Sequence[int],
    charge: int | None = None,
) -> None:
    """Check that a potential is meant for the atoms that it is to describe.

    Parameters
    ----------
    potential
        Knows its domain.
    topology
        Knows formal charges, where it does: atoms without one count as neutral if others have one.
    atoms
        Indices in the topology; `None` is all.
    types
        Type index of each of these atoms.
    charge
        Their net charge, e, where the topology does not know it.

    Raises
    ------
    InputError
        As `Domain.check`.
    """
    members = list(topology.atoms())
    chosen = members if atoms is None else [members[k] for k in atoms]
    charges = [atom.formalCharge for atom in chosen if atom.formalCharge is not None]
    numbers = [atomic_numbers[potential.elements[k]] for k in types]
    domain = read_domain(potential.elements, potential.metadata)
    domain.check(numbers, sum(charges) if charges else charge)


def _type_index(potential: Potential, value: str | int) -> int:
    names = potential.type_names
    if isinstance(value, str):
        if value not in names:
            raise InputError(
                f"atomTypes: '{value}' is not a type of this potential"
                f"{did_you_mean(value, names)}; it has {', '.join(names)}"
            )
        return names.index(value)
    if not 0 <= int(value) < len(names):
        raise InputError(f"atomTypes: type {value} does not exist; there are 0 to {len(names) - 1}")
    return int(value)
