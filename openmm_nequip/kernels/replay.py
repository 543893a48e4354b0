"""The whole step of a small system with fixed shapes, so that a CUDA graph can replay it.

A small system's step is some hundred short kernels, which a GPU executes faster than a host can
launch them. Captured as a graph they are launched at once. The lengths of its arrays are fixed, so
the neighbour list has places to spare; when they do not suffice, the step is captured anew with
more of them and repeated: no result of a list that was too short is ever returned. Where CUDA
refuses to capture, the same step is executed kernel by kernel.
"""

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock

import torch
from torch import Tensor

from ..errors import InputError
from .edges import sum_onto_atoms
from .padded import count_edges, padded_edges
from .potential import FusedPotential

#: Atoms of the largest system whose pairs are all looked at in every step.
MOST_ATOMS = 1000
_SPARE = 1.15  # times the edges that were found
_WARM_UP = 4  # evaluations; TorchScript watches two and compiles in the third
_one_capture = Lock()
_log = logging.getLogger(__name__)


class ReplayedStep:
    """Energies and forces of one system, on CUDA by replaying a graph.

    Parameters
    ----------
    potential
        In evaluation mode; its parameters must not change any more.
    types
        Type of each atom, shape ``[N]``, with 0 < N; on the potential's device.

    Attributes
    ----------
    capacity : int
        Places in the neighbour list.
    captures : int
        How often the step has been captured.
    """

    def __init__(self, potential: FusedPotential, types: Tensor):
        self.potential = potential
        self.types = types
        self.capacity = self.captures = 0
        self._can_capture = types.device.type == "cuda"
        self._positions = torch.zeros((len(types), 3), dtype=torch.float64, device=types.device)
        self._box: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._results: tuple[Tensor, ...] = ()

    def __call__(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, ...]:
        """Evaluate.

        Parameters
        ----------
        positions, box
            As of `padded.padded_edges`, float64, on any device.

        Returns
        -------
        energies, forces
            eV, ``[N]``; eV/Å, ``[N, 3]``.
        vectors, gradient
            The edges, Å, and the gradient of the energy by them, eV/Å, ``[E, 3]``; it is zero
            for those that only fill the list.

        Raises
        ------
        InputError
            A coordinate is not finite.
        ValueError
            The box is too narrow for the cutoff, or not reduced.
        """
        with torch.cuda.device_of(self.types):  # which need not be the current one
            return self._step(positions, box)

    def _step(self, positions: Tensor, box: Tensor | None) -> tuple[Tensor, ...]:
        if (box is None) != (self._box is None):
            self._box = None if box is None else torch.zeros_like(self._positions[:1]).repeat(3, 1)
            self.capacity = 0
        self._positions.copy_(positions)
        if self._box is not None:
            self._box.copy_(box)  # type: ignore[arg-type]
        overflow = self.capacity == 0
        if not overflow:
            self._replay()
            overflow = bool(self._results[-1])
        if overflow:
            self._make_room()
            self._capture()
            self._replay()
            if bool(self._results[-1]):
                raise ValueError(
                    "the box is narrower than twice the cutoff of the potential, or not reduced"
                )
        return tuple(result.clone() for result in self._results[:-1])

    def _make_room(self) -> None:
        if not bool(self._positions.isfinite().all()):
            atom = int(self._positions.isfinite().all(1).int().argmin())
            raise InputError(
                f"position of atom {atom} is not finite: {self._positions[atom].tolist()}"
            )
        needed = int(count_edges(self._positions, self._box, self.potential.r_max))
        self.capacity = max(self.capacity, int(_SPARE * needed) + 32)

    def _capture(self) -> None:
        self.captures += 1
        self._graph = None
        if not self._can_capture:
            return
        with _one_capture:  # the stream is shared
            self._capture_on(_stream(self.types.device))

    def _capture_on(self, stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):  # compiles, and finds out what the host has to know
                self._evaluate()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # OpenMM may prepare other forces meanwhile, in another thread
        capture = torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local")
        try:
            # the outer stream context restores the stream where a broken capture does not
            with torch.cuda.stream(stream), _no_collection(), capture:
                self._results = self._evaluate()
        except RuntimeError as error:
            self._can_capture = False
            cause = error.__context__ or error
            _log.warning(
                "CUDA could not capture the step, which is slower now but right: %s",
                " ".join(f"{type(cause).__name__}: {cause}".split())[:300],
            )
        else:
            self._graph = graph

    def _replay(self) -> None:
        if self._graph is None:
            self._results = self._evaluate()
        else:
            self._graph.replay()

    def _evaluate(self) -> tuple[Tensor, ...]:
        """Evaluate for what is in the buffers; nothing here waits for the GPU."""
        edges, vectors, overflow = padded_edges(
            self._positions, self._box, self.potential.r_max, self.capacity
        )
        energies, gradient = self.potential.differentiate_sorted(vectors, self.types, edges)
        assert gradient is not None
        forces = sum_onto_atoms(gradient, edges)
        return energies.detach(), forces, vectors.detach(), gradient, overflow


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for captures: cuBLAS keeps memory for each that it was called on."""
    return torch.cuda.Stream(device)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from freeing what lies on the GPU, which would break a capture."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
