"""Small molecules with the complete force field of the OpenFF toolkit, where it is installed."""

from collections.abc import Callable, Sequence

import numpy as np
from openmm import app
from rdkit import Chem

from ..errors import InputError

Generator = Callable[[app.ForceField, app.topology.Residue], bool]


def openff_available() -> bool:
    """Whether both openmmforcefields and the OpenFF toolkit can be imported."""
    try:
        import openff.toolkit  # noqa: F401
        import openmmforcefields.generators  # noqa: F401
    except ImportError:
        return False
    return True


def openff_templates(
    molecules: Sequence[Chem.Mol], charges: Sequence[np.ndarray] | None = None
) -> tuple[Generator, str]:
    """Return a residue-template generator and the name of its force field.

    Parameters
    ----------
    molecules
        With all hydrogens.
    charges
        e, shape ``[N]`` for each molecule; `None` leaves them to the toolkit.

    Raises
    ------
    InputError
        The toolkit refuses a molecule.
    """
    from openff.toolkit import Molecule
    from openmmforcefields.generators import SMIRNOFFTemplateGenerator

    try:
        known = [
            Molecule.from_rdkit(mol, allow_undefined_stereo=True, hydrogens_are_explicit=True)
            for mol in molecules
        ]
        if charges is not None:
            from openff.units import unit

            for molecule, values in zip(known, charges, strict=True):
                molecule.partial_charges = unit.Quantity(values, unit.elementary_charge)
        generator = SMIRNOFFTemplateGenerator(molecules=known)
    except Exception as error:  # the toolkit has exceptions of its own
        reason = " ".join(str(error).split())
        raise InputError(
            f"the OpenFF toolkit refuses a small molecule ({reason}); small_molecules='nonbonded' "
            "does without it"
        ) from None
    return generator.generator, str(generator.forcefield)
