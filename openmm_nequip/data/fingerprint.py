"""Exact hashes of frames: which data a model saw, and which configurations occur twice."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .frame import Frame


def geometry_hash(frame: Frame) -> bytes:
    """Return a SHA-256 digest of the species, positions, cell and periodicity of a frame.

    Two frames have the same hash where these are equal to the last bit, in the same atom order.
    """
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(frame.numbers, dtype="<i8").tobytes())
    _update(digest, frame.positions)
    _update(digest, frame.cell)
    digest.update(bytes(frame.pbc))
    return digest.digest()


def geometry_hashes(frames: Any) -> list[bytes]:
    """Return the `geometry_hash` of every frame of a sequence or store, which has them at hand."""
    stored: NDArray[np.uint8] | None = getattr(frames, "geometry_hashes", None)
    if stored is not None:
        return [row.tobytes() for row in stored]
    return [geometry_hash(frame) for frame in frames]


class Fingerprint:
    """A running hash over frames, for data that is never in memory as a whole."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, frame: Frame) -> None:
        """Add one frame: its geometry and its labels."""
        self._digest.update(geometry_hash(frame))
        energy = None if frame.energy is None else np.array(frame.energy)
        for label in (energy, frame.forces, frame.stress):
            _update(self._digest, label)

    def hexdigest(self) -> str:
        """Return the fingerprint of the frames added so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()


def fingerprint(frames: Any) -> str:
    """Return the fingerprint of a sequence or store: geometries and labels in their order."""
    stored: str | None = getattr(frames, "fingerprint", None)
    if isinstance(stored, str):
        return stored
    running = Fingerprint()
    for frame in frames:
        running.update(frame)
    return running.hexdigest()


def _update(digest: "hashlib._Hash", array: np.ndarray | None) -> None:
    if array is None:
        digest.update(b"none")
    else:  # adding zero turns -0.0 into 0.0, so that both hash alike
        digest.update((np.asarray(array, dtype="<f8") + 0.0).tobytes())
