"""Batches depend on seed and epoch alone, and the shares of processes make up the whole."""

import pytest
import torch

from openmm_nequip.training.sampler import EpochBatches


def batches(epoch: int = 0, start: int = 0, **keys: int) -> list[list[int]]:
    sampler = EpochBatches(11, 4, **{"seed": 5, **keys})
    sampler.epoch, sampler.start = epoch, start
    return list(sampler)


def test_an_epoch_has_every_frame_once():
    assert sorted(frame for batch in batches() for frame in batch) == list(range(11))
    assert [len(batch) for batch in batches()] == [4, 4, 3]


def test_order_is_a_function_of_seed_and_epoch():
    torch.manual_seed(1)
    first = batches(epoch=3)
    torch.manual_seed(2)
    assert first == batches(epoch=3)
    assert first != batches(epoch=4)
    assert first != batches(epoch=3, seed=6)
    assert first[1:] == batches(epoch=3, start=1)


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_shares_make_up_the_batch(world_size):
    shares = [batches(rank=rank, world_size=world_size) for rank in range(world_size)]
    for k, whole in enumerate(batches()):
        parts = [share[k] for share in shares]
        labelled = [frame for part in parts for frame in part if frame >= 0]
        assert sorted(labelled) == sorted(whole)
        assert all(parts)  # every process takes the step, if need be with an unlabelled frame
