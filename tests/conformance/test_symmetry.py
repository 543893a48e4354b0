"""Rotation, inversion, translation and permutation."""

import numpy as np
import pytest

from . import checks
from .cases import crystal, molecule

FRAMES = pytest.mark.parametrize("frame", [molecule(), crystal()], ids=["molecule", "crystal"])
AXIS = np.array([1.0, 2.0, -2.0]) / 3.0


@FRAMES
@pytest.mark.parametrize(
    "matrix",
    [
        checks.random_rotation(1),
        -np.eye(3),
        np.eye(3) - 2.0 * np.outer(AXIS, AXIS),
        -checks.random_rotation(2),
    ],
    ids=["rotation", "inversion", "reflection", "rotoinversion"],
)
def test_isometry(potential, frame, matrix):
    checks.check_isometry(potential, frame, matrix)


@FRAMES
def test_translation(potential, frame):
    checks.check_translation(potential, frame)


@FRAMES
def test_permutation(potential, frame):
    checks.check_permutation(potential, frame)


@FRAMES
def test_evaluation_is_deterministic(potential, frame):
    a, b = (checks.evaluate(potential, frame, stress=True) for _ in range(2))
    assert (a.energy == b.energy).all()
    assert (a.forces == b.forces).all()
