"""Which frames form which batch: a function of seed and epoch alone, so that runs can resume."""

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Dataset, Sampler

from ..data.dataset import Targets
from ..data.graph import Graph


class EpochBatches(Sampler[list[int]]):
    """Batches of frame indices of one epoch, the share of one process.

    Deliberately without a length: after a resume the first epoch has fewer batches than others.

    Parameters
    ----------
    num_frames
        Size of the training set.
    batch_size
        Frames per optimizer step, over all processes.
    seed
        Seed of the shuffling.
    rank, world_size
        Index of this process and number of processes.

    Attributes
    ----------
    epoch : int
        Epoch whose batches the next iteration yields.
    start : int
        First batch of the next iteration.
    """

    def __init__(
        self, num_frames: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ):
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    @property
    def num_batches(self) -> int:
        """Batches in a whole epoch; the last one may be smaller than the others."""
        return math.ceil(self.num_frames / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_frames)
        for batch in range(self.start, self.num_batches):
            frames = order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()
            share = frames[self.rank :: self.world_size]
            # Every process must take every step; one without a frame takes an unlabelled one.
            yield share or [-1 - frames[0]]


class Unlabelled(Dataset[tuple[Graph, Targets]]):
    """A dataset in which index ``-1 - k`` is frame k without its labels."""

    def __init__(self, dataset: Dataset[tuple[Graph, Targets]]):
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[Graph, Targets]:
        if index >= 0:
            return self.dataset[index]
        graph, targets = self.dataset[-1 - index]
        nan = float("nan")
        return graph, targets._replace(
            energy=targets.energy * nan, forces=targets.forces * nan, stress=targets.stress * nan
        )
