"""Conformers of the region or molecule: one number means the same one in every replica."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .conformations import clusters, rmsd_matrix, rotatable_bonds, torsion_matrix, torsions
from .folder import Run

TORSION = 60.0  # degrees: frames whose torsions differ by less are one conformer
RMSD = 1.0  # Å, where torsions are too many
MOST_TORSIONS = 10  # that tell conformers apart; with more of them every frame would be one
_FRAMES = 2000  # of all runs: the distances of all pairs are held


@dataclass(frozen=True)
class Conformers:
    """The conformers that a run visits.

    Attributes
    ----------
    times
        Of the frames that were looked at, ps, shape ``[F]``.
    labels
        Conformer of each frame, shape ``[F]``; 0 is the most populated one of all runs together.
    names
        For people: the torsions of each conformer, or its central frame.
    criterion
        For people: what frames of one conformer have in common.
    """

    times: np.ndarray
    labels: np.ndarray
    names: list[str]
    criterion: str


def rotatable(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Torsions that can turn, by place among the atoms of `run.focus`, and their periods."""
    return rotatable_bonds(run.numbers[run.focus], run.bonds_within(run.focus))


def conformers(runs: Sequence[Run]) -> list[Conformers | None]:
    """Tell conformers apart in runs of one system, by torsions or, where these are many, by shape.

    Frames of all runs are grouped together, so that numbers and names are the same in each.

    Returns
    -------
    list
        For each run; `None` where nothing can turn.

    Raises
    ------
    InputError
        The runs are not of the same molecule.
    """
    first = runs[0]
    for run in runs:
        if not np.array_equal(run.numbers[run.focus], first.numbers[first.focus]):
            raise InputError(
                f"'{run.folder}' has other atoms in its region or molecule than '{first.folder}': "
                "replicas are runs of one system; analyse these one by one"
            )
    quadruples, periods = rotatable(first)
    if len(quadruples) == 0:
        return [None] * len(runs)
    stride = -(-sum(len(run.frames[0]) for run in runs) // _FRAMES)
    times = [run.frames[1][::stride] for run in runs]
    positions = np.concatenate([run.frames[0][::stride] for run in runs])
    if len(quadruples) <= MOST_TORSIONS:
        angles = torsions(positions, quadruples)
        labels, centres = clusters(torsion_matrix(angles, periods), TORSION)
        names = [", ".join(f"{angle:.0f}°" for angle in angles[centre]) for centre in centres]
        criterion = f"no torsion differs by more than {TORSION:.0f}° on average"
    else:
        heavy = first.numbers[first.focus] > 1
        labels, centres = clusters(rmsd_matrix(positions[:, heavy]), RMSD)
        where = [
            f"frame at {time:.4g} ps" + (f" of {run.folder.name}" if len(runs) > 1 else "")
            for run, part in zip(runs, times, strict=True)
            for time in part
        ]
        names = [where[centre] for centre in centres]
        criterion = f"the RMSD of their heavy atoms is less than {RMSD:g} Å on average"
    parts = np.split(labels, np.cumsum([len(part) for part in times])[:-1])
    return [Conformers(*found, names, criterion) for found in zip(times, parts, strict=True)]
