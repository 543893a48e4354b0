"""Batches, model files, TorchScript: the same function in other clothes."""

import pytest
import torch

from openmm_nequip import load
from openmm_nequip.data.graph import Graph
from openmm_nequip.kernels.potential import FusedPotential
from openmm_nequip.potential import Output, Potential

from . import checks
from .cases import CASES, DEVICE, build, crystal, molecule


def assert_outputs_close(value: Output, expected: Output, relative: float) -> None:
    for name, a, b in zip(Output._fields, value, expected, strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a.isnan(), b.isnan()), name
        checks.assert_close(a.nan_to_num(), b.nan_to_num(), relative, name)


def test_batch_equals_single(potential):
    frames = [molecule(), crystal(), molecule(seed=5, n=1), crystal(scale=2.0), molecule(n=4)]
    batch = checks.evaluate(potential, *frames, stress=True)
    singles = [checks.evaluate(potential, frame, stress=True) for frame in frames]
    joined = Output(*(torch.cat(parts) for parts in zip(*singles, strict=True)))
    # float32 sums in another order
    assert_outputs_close(batch, joined, checks.tolerance(potential))


def test_model_file(potential, tmp_path):
    path = tmp_path / "model.safetensors"
    potential.metadata["description"] = "a test"
    potential.save(path)
    again = load(path).to(DEVICE)
    assert again.config == potential.config
    assert again.metadata == potential.metadata
    assert again.dtype == potential.dtype
    assert not again.training
    ours, theirs = potential.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    engine = "fused" if isinstance(potential, FusedPotential) else "reference"
    for frame in (molecule(), crystal()):
        a = checks.evaluate(potential, frame, stress=True)
        b = checks.evaluate(again.with_engine(engine), frame, stress=True)
        for x, y in zip(a, b, strict=True):
            assert torch.equal(x.nan_to_num(), y.nan_to_num())
    again.save(tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


class Holder(torch.nn.Module):
    """What holds a potential in a force: a module of its own."""

    def __init__(self, potential: Potential):
        super().__init__()
        self.potential = potential

    def forward(self, graph: Graph) -> Output:
        return self.potential(graph, True, True)


@pytest.mark.parametrize("key", [(case, "float64") for case in CASES] + [("l3-parity", "float32")])
def test_torchscript(key, tmp_path):
    potential = build(*key)
    torch.jit.script(Holder(potential)).save(tmp_path / "script.pt")
    script = torch.jit.load(tmp_path / "script.pt")
    # later calls run code that the profiling executor has specialised
    for frame in (molecule(), crystal(), molecule(n=5), crystal(scale=1.7)):
        graph = potential.to_graph(frame)
        expected = checks.on_cpu(potential(graph, forces=True, stress=True))
        found = checks.on_cpu(Output(*script(graph)))
        assert_outputs_close(found, expected, checks.tolerance(potential))


def test_weights_are_found_from_the_seed(potential):
    """Two networks of one configuration differ unless their seeds agree."""
    graph = potential.to_graph(molecule())
    energies = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        other = type(potential)(potential.config).eval().to(DEVICE)
        energies.append(other(graph, forces=False).energy.item())
    assert energies[0] == energies[1]
    assert energies[0] != energies[2]
