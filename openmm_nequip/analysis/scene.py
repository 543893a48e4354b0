"""What the report's viewer shows: the ML region as sticks, its surroundings thin."""

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial.distance import cdist

from .conformations import superpose
from .folder import Run
from .molecule import labels

_NEAR = 6.0  # Å from the region, within which solvent is shown
_MOST_NEAR = 450  # atoms of the surroundings
_MOST_STICKS = 900  # atoms; of a larger solute only the backbone
_FRAMES = 40
_STICK, _THIN, _LINE = 0, 1, 2  # as in viewer.js


def scene(run: Run) -> dict[str, Any]:
    """Collect atoms, bonds and some frames of the region from the last frame of a run.

    Returns
    -------
    dict
        As ``viewer.js`` describes it; lengths in 0.01 Å.
    """
    solute = run.followed
    stride = run.stride(len(solute))
    last = (len(run.trajectory) - 1) * stride
    region = run.focus if len(run.focus) else _central(run, solute)
    inside = np.searchsorted(solute, region)
    sticks = run.trajectory.xyz[-1, inside].astype(float) * 10.0

    positions = np.full((len(run.numbers), 3), np.nan)
    positions[solute] = run.trajectory.xyz[-1] * 10.0
    others = np.setdiff1d(solute, region)
    traces: list[np.ndarray] = []
    if len(others) > _MOST_STICKS or not len(run.solute):
        traces = _backbone(run, positions)
        others = others[:0]
    around = _around(run, sticks, positions, last) if run.is_periodic and len(run.solute) else []
    atoms = np.concatenate([region, others, np.array(around, dtype=int)])
    kinds = np.repeat([_STICK, _THIN, _LINE], [len(region), len(others), len(around)])
    turn = _facing(sticks)
    place = {int(atom): k for k, atom in enumerate(atoms)}
    bonds = [(place[i], place[j]) for i, j in run.bonds.tolist() if i in place and j in place]
    names = labels(run, region) + [""] * (len(atoms) - len(region))
    return {
        "elements": [run.topology.atom(int(k)).element.symbol for k in atoms],
        "positions": _packed(positions[atoms] @ turn),
        "kinds": kinds.tolist(),
        "bonds": np.array(bonds, dtype=int).ravel().tolist(),
        "labels": names,
        "traces": [_packed(trace @ turn) for trace in traces],
        "frames": [_packed(f @ turn) for f in _frames(run, sticks)] if len(run.focus) > 1 else [],
    }


def scene_text(run: Run, shown: dict[str, Any]) -> str:
    """Say in words what the viewer shows."""
    what = "the ML region" if run.is_mixed else "the molecule" if len(run.focus) else "the atoms"
    around = ", solvent near it as lines" if _LINE in shown["kinds"] else ""
    rest = ", the rest of the solute thin" if _THIN in shown["kinds"] else ""
    rest += ", the backbone as a tube" if shown["traces"] else ""
    return f"Last frame: {what} as sticks{rest}{around}."


def _central(run: Run, atoms: np.ndarray) -> np.ndarray:
    """Atoms of a liquid or crystal to be shown: all, or the molecules in the middle."""
    if len(atoms) <= _MOST_STICKS:
        return atoms
    positions = run.trajectory.xyz[-1]
    distance = np.linalg.norm(positions - positions.mean(axis=0), axis=1)
    middle = np.unique(run.molecules[np.argsort(distance)[: _MOST_STICKS // 2]])
    return np.flatnonzero(np.isin(run.molecules, middle))[:_MOST_STICKS]


def _around(run: Run, sticks: np.ndarray, positions: np.ndarray, frame: int) -> list[int]:
    """Fill in the positions of solvent near the region, as whole molecules beside it."""
    whole = run.frame(frame)
    box = whole.unitcell_vectors[0].astype(float) * 10.0
    raw = whole.xyz[0].astype(float) * 10.0
    raw += positions[run.solute[0]] - raw[run.solute[0]]
    solvent = np.setdiff1d(np.arange(len(raw)), run.solute)
    starts = solvent[np.unique(run.molecules[solvent], return_index=True)[1]]
    first = dict(zip(run.molecules[starts].tolist(), starts.tolist(), strict=True))
    lead = np.array([first[label] for label in run.molecules[solvent].tolist()], dtype=int)
    middle = sticks.mean(axis=0)
    shift = np.round((raw[lead] - middle) @ np.linalg.inv(box)) @ box
    inner = np.round((raw[solvent] - raw[lead]) @ np.linalg.inv(box)) @ box
    positions[solvent] = raw[solvent] - shift - inner
    distance = cdist(positions[starts], sticks).min(axis=1)
    order = np.argsort(distance)
    near = starts[order[: int((distance < _NEAR).sum())]]
    members = [np.flatnonzero(run.molecules == run.molecules[k]) for k in near[: _MOST_NEAR // 3]]
    found = np.concatenate(members) if members else np.array([], dtype=int)
    return found[run.numbers[found] > 0].tolist()  # no virtual sites


def _facing(points: np.ndarray) -> np.ndarray:
    """Return the rotation after which the points are widest along x and flattest along z."""
    axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=True)[2].T
    return axes * np.array([1, 1, np.linalg.det(axes)])


def _backbone(run: Run, positions: np.ndarray) -> list[np.ndarray]:
    """Smooth lines through the Cα atoms of each chain."""
    found = []
    for chain in run.topology.chains:
        alpha = [a.index for a in chain.atoms if a.name == "CA" and a.residue.is_protein]
        path = positions[alpha]
        if len(path) < 3 or np.isnan(path).any():
            continue
        breaks = np.flatnonzero(np.linalg.norm(np.diff(path, axis=0), axis=1) > 4.5) + 1
        for piece in np.split(path, breaks):
            if len(piece) > 2:
                found.append(_smooth(piece))
    return found


def _smooth(points: np.ndarray, between: int = 4) -> np.ndarray:
    where = np.linspace(0, len(points) - 1, between * (len(points) - 1) + 1)
    return CubicSpline(np.arange(len(points)), points)(where)


def _frames(run: Run, sticks: np.ndarray) -> np.ndarray:
    """Return frames of the region, superposed on where it is shown."""
    moving = run.frames[0]
    chosen = moving[np.unique(np.linspace(0, len(moving) - 1, _FRAMES).astype(int))]
    return superpose(chosen, sticks) if len(sticks) > 2 else chosen


def _packed(positions: np.ndarray) -> list[int]:
    return np.round(positions * 100).astype(int).ravel().tolist()
