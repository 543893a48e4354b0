"""Frames as a PyTorch dataset of (graph, targets), and how a batch is made of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ..errors import InputError, did_you_mean
from ..potential import make_graph
from .fingerprint import fingerprint
from .frame import Frame, IntArray
from .graph import Graph, collate


class Targets(NamedTuple):
    """What the reference calculation says about the G structures of a batch with N atoms in all.

    A label that a structure does not have is NaN throughout: ``torch.isnan`` gives the mask.

    Attributes
    ----------
    energy
        Total energy, eV, shape ``[G]``, float64.
    forces
        eV/Å, shape ``[N, 3]``, float64.
    stress
        eV/Å³ with ASE's sign, shape ``[G, 3, 3]``, float64.
    num_atoms
        Shape ``[G]``, int64.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    num_atoms: Tensor

    def to(self, device: torch.device | str) -> "Targets":
        """Return the targets with every tensor on `device`."""
        return Targets(*(tensor.to(device) for tensor in self))


class TypeMap:
    """Atomic numbers to type indices, for a list of elements in the order of the types.

    Parameters
    ----------
    elements
        Chemical symbols, each once.

    Raises
    ------
    InputError
        A symbol is not an element, or occurs twice.
    """

    def __init__(self, elements: Sequence[str]):
        if len(set(elements)) < len(elements):
            raise InputError(f"elements must differ from each other, got {', '.join(elements)}")
        self.elements = list(elements)
        self._index = np.full(len(chemical_symbols), -1, dtype=np.int64)
        for k, symbol in enumerate(elements):
            if symbol not in atomic_numbers or symbol == "X":
                hint = did_you_mean(symbol, chemical_symbols[1:])
                raise InputError(f"'{symbol}' is not a chemical symbol{hint}")
            self._index[atomic_numbers[symbol]] = k

    def __call__(self, numbers: IntArray, source: str = "") -> IntArray:
        """Return the type index of each atom, shape ``[N]``.

        Raises
        ------
        InputError
            An element is not in the list.
        """
        types = self._index[numbers]
        if types.min(initial=0) < 0:
            missing = sorted({chemical_symbols[z] for z in np.asarray(numbers)[types < 0]})
            raise InputError(
                f"{source or 'a frame'} contains {', '.join(missing)}, which is not among the "
                f"elements: {', '.join(self.elements)}"
            )
        return types


class FrameDataset(Dataset[tuple[Graph, Targets]]):
    """Frames in memory, each with its neighbour list once it was asked for.

    Parameters
    ----------
    frames
        Labelled configurations.
    elements
        Chemical symbols in the order of the potential's types.
    r_max
        Cutoff of the neighbour lists, Å.
    keep
        Whether neighbour lists stay in memory; processes that load data keep none, because each
        would come to hold all.

    Raises
    ------
    InputError
        A frame contains an element that the list lacks.
    """

    def __init__(
        self, frames: Sequence[Frame], elements: Sequence[str], r_max: float, keep: bool = True
    ):
        self.keep = keep
        self.frames = list(frames)
        self.elements = list(elements)
        self.r_max = float(r_max)
        type_map = TypeMap(elements)
        self._types = [type_map(frame.numbers, frame.source) for frame in self.frames]
        self._items: list[tuple[Graph, Targets] | None] = [None] * len(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Graph, Targets]:
        item = self._items[index]
        if item is None:
            frame = self.frames[index]
            item = make_graph(frame, self._types[index], self.r_max), make_targets(frame)
            if self.keep and get_worker_info() is None:
                self._items[index] = item
        return item

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the contents of the frames."""
        return fingerprint(self.frames)


def make_targets(frame: Frame) -> Targets:
    """Return the labels of one frame, NaN where it has none."""
    nan = float("nan")
    n = len(frame)
    return Targets(
        energy=torch.tensor([nan if frame.energy is None else frame.energy], dtype=torch.float64),
        forces=_or_nan(frame.forces, (n, 3)),
        stress=_or_nan(frame.stress, (1, 3, 3)),
        num_atoms=torch.tensor([n]),
    )


def collate_batch(items: Sequence[tuple[Graph, Targets]]) -> tuple[Graph, Targets]:
    """Join items of a dataset into one batch; the `collate_fn` of a `DataLoader`."""
    graphs, targets = zip(*items, strict=True)
    joined = Targets(*(torch.cat(tensors) for tensors in zip(*targets, strict=True)))
    return collate(graphs), joined


def _or_nan(array: np.ndarray | None, shape: tuple[int, ...]) -> Tensor:
    if array is None:
        return torch.full(shape, float("nan"), dtype=torch.float64)
    return torch.tensor(array, dtype=torch.float64).view(shape)
