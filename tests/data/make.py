"""Small frames and files for the tests, made on the fly."""

import numpy as np

from openmm_nequip.data.frame import Frame

SYMBOLS = ("O", "H", "H")
NUMBERS = np.array([8, 1, 1])
WATER = np.array([[0.0, 0.0, 0.0], [0.9572, 0.0, 0.0], [-0.24, 0.9266, 0.0]])


def frames(count: int = 4, periodic: bool = False, seed: int = 0) -> list[Frame]:
    """Return distorted water molecules with random labels, in vacuum or in a triclinic box."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.0, 0.0, 0.0], [0.5, 5.5, 0.0], [0.3, -0.4, 5.0]])
    made = []
    for k in range(count):
        stress = rng.normal(size=(3, 3)) * 0.01
        made.append(
            Frame(
                numbers=NUMBERS.copy(),
                positions=WATER + 0.05 * rng.normal(size=(3, 3)),
                cell=cell + 0.01 * k if periodic else None,
                pbc=(periodic,) * 3,
                energy=float(rng.normal()) - 2000.0,
                forces=rng.normal(size=(3, 3)),
                stress=(stress + stress.T) / 2 if periodic else None,
                source=f"made:{k}",
            )
        )
    return made


def extxyz(
    made: list[Frame],
    energy: str = "energy",
    forces: str = "forces",
    extra: str = "",
) -> str:
    """Write frames as extended XYZ by hand, at full precision."""
    lines = []
    for frame in made:
        lines.append(str(len(frame)))
        lattice = ""
        if frame.cell is not None:
            lattice = f'Lattice="{numbers_text(frame.cell)}" pbc="T T T" '
        properties = f"Properties=species:S:1:pos:R:3:{forces}:R:3"
        lines.append(f"{lattice}{properties} {energy}={frame.energy!r} {extra}")
        for symbol, position, force in zip(SYMBOLS, frame.positions, frame.forces, strict=True):
            lines.append(f"{symbol} {numbers_text(position)} {numbers_text(force)}")
    return "\n".join(lines) + "\n"


def numbers_text(array: np.ndarray) -> str:
    """Write numbers at full precision, separated by blanks."""
    return " ".join(repr(float(x)) for x in array.ravel())


def assert_same(read: Frame, made: Frame, factor: float = 1.0, length: float = 1.0) -> None:
    """Assert that a frame was read as it was made, times the factors of its units."""
    tight = {"rtol": 1e-12, "atol": 1e-12}
    assert read.numbers.tolist() == made.numbers.tolist()
    np.testing.assert_allclose(read.positions, made.positions * length, **tight)
    np.testing.assert_allclose(read.energy, made.energy * factor, **tight)
    np.testing.assert_allclose(read.forces, made.forces * factor / length, **tight)
    assert read.pbc == made.pbc
    assert (read.cell is None) == (made.cell is None)
    if made.cell is not None:
        np.testing.assert_allclose(read.cell, made.cell * length, **tight)
        if read.stress is not None:
            np.testing.assert_allclose(read.stress, made.stress * factor / length**3, **tight)
