"""Who answers to `MLPotential('nequip')`, and with what."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from openmm import OpenMMException
from openmmml import MLPotential
from openmmml.models.nequippotential import NequIPPotentialImpl as UpstreamImpl
from openmmml.models.nequippotential import NequIPPotentialImplFactory as UpstreamFactory

from openmm_nequip.errors import InputError
from openmm_nequip.plugin import NameClaim, NequIPFactory

from .md.systems import (
    context_of,
    evaluate,
    expected,
    random_frame,
    small_potential,
    topology_of,
)

IMPORTS = {
    "before": "import openmm_nequip, openmmml",
    "after": "import openmmml, openmm_nequip",
    "never": "import openmmml",
}
# openmm-ml reads the entry points with `from importlib.metadata import entry_points`
ORDER = """
import importlib.metadata as metadata
original = metadata.entry_points
def ours_first(entry):
    return (entry.value.startswith("openmm_nequip"), entry.name)
def entry_points(**selection):
    return sorted(original(**selection), key=ours_first, reverse={reverse})
metadata.entry_points = entry_points
"""
CHECK = """
import sys
from openmmml import MLPotential
for name in ("nequip", "openmm-nequip"):
    factory = MLPotential._implFactories[name]
    assert type(factory).__module__ == "openmm_nequip.plugin", (name, factory)
heavy = {"torch", "e3nn", "lightning"} & set(sys.modules)
assert not heavy, heavy
"""


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("upstream_last", [False, True], ids=["ours-last", "upstream-last"])
@pytest.mark.parametrize("order", IMPORTS)
def test_the_name_is_ours(order, upstream_last):
    done = run(ORDER.format(reverse=upstream_last) + IMPORTS[order] + CHECK)
    assert done.returncode == 0, done.stderr


def test_upstream_last_would_win_without_the_claim():
    """The order of the test above is really the unlucky one."""
    code = (
        ORDER.format(reverse=True)
        + """
real = entry_points
def entry_points(**selection):
    return [e for e in real(**selection) if not e.value.endswith("NameClaim")]
metadata.entry_points = entry_points
from openmmml import MLPotential
assert type(MLPotential._implFactories["nequip"]).__module__.startswith("openmmml.")
assert type(MLPotential._implFactories["openmm-nequip"]).__module__.startswith("openmm_nequip.")
"""
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def factories(monkeypatch):
    factories = dict(MLPotential._implFactories)
    monkeypatch.setattr(MLPotential, "_implFactories", factories)
    return factories


def test_claim_takes_the_name_from_openmmml_only(factories):
    factories["nequip"] = UpstreamFactory()
    NameClaim()
    assert type(factories["nequip"]) is NequIPFactory

    class SomebodyElse:
        pass

    factories["nequip"] = SomebodyElse()
    NameClaim()
    assert type(factories["nequip"]) is SomebodyElse


def test_a_failing_claim_does_not_break_openmmml(monkeypatch):
    monkeypatch.delattr(MLPotential, "_implFactories")
    with pytest.warns(UserWarning, match=r"use MLPotential\('openmm-nequip'\)"):
        NameClaim()


def test_claim_is_not_an_embedding():
    with pytest.raises(InputError, match="use embedding='mechanical'"):
        MLPotential._embeddingFactories["openmm-nequip"].createEmbedding("openmm-nequip")


@pytest.mark.parametrize("suffix", [".ckpt", ".nequip.zip", ".nequip.pth", ".nequip.pt2"])
def test_upstream_files_go_upstream(suffix):
    potential = MLPotential(
        "nequip", modelPath=f"model{suffix}", lengthScale=0.1, energyScale=96.485
    )
    assert type(potential._impl) is UpstreamImpl
    assert potential._impl.modelPath == f"model{suffix}"
    assert (potential._impl.lengthScale, potential._impl.energyScale) == (0.1, 96.485)
    with pytest.raises(InputError, match="give lengthScale and energyScale"):
        MLPotential("nequip", modelPath=f"model{suffix}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    small_potential().save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modelpath": "x"}, r"unknown argument 'modelpath' \(did you mean 'modelPath'\?\)"),
        ({"model": "a", "modelPath": "b"}, "not both"),
        ({"modelPath": "b.safetensors", "lengthScale": 0.1}, "a model file knows its units"),
        ({"modelPath": "nowhere.safetensors"}, r"model file 'nowhere.safetensors' does not exist"),
        ({"model": "nothing-like-it"}, "no bundled potential is called 'nothing-like-it'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message) as error:
        MLPotential("nequip", **arguments)
    assert "\n" not in str(error.value)


def test_damaged_model_file(model, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        MLPotential("nequip", modelPath=damaged)


@pytest.mark.parametrize("periodic", [False, True])
def test_create_system(model, periodic):
    frame = random_frame(periodic)
    potential = MLPotential("nequip", modelPath=model)
    system = potential.createSystem(topology_of(frame))
    assert [force.getName() for force in system.getForces()] == ["NequIP", "CMMotionRemover"]
    assert system.usesPeriodicBoundaryConditions() == periodic
    assert system.getParticleMass(0)._value == pytest.approx(
        {1: 1.008, 6: 12.011, 8: 15.999}[int(frame.numbers[0])], abs=1e-2
    )
    energy, forces = evaluate(context_of(system, frame.positions))
    expected_energy, expected_forces = expected(small_potential(), frame)
    assert energy == pytest.approx(expected_energy, rel=1e-9)
    np.testing.assert_allclose(forces, expected_forces, atol=1e-9 * np.abs(expected_forces).max())


def test_create_system_keywords(model):
    topology = topology_of(random_frame(False))
    potential = MLPotential("nequip", modelPath=model)
    system = potential.createSystem(
        topology,
        removeCMMotion=False,
        precision="single",
        device="cpu",
        force="python",
        engine="reference",
        atomTypes=None,
        returnEnergyType="energy",
    )
    assert system.getNumForces() == 1
    with pytest.raises(InputError, match=r"unknown keyword 'precison' \(did you mean 'precision'"):
        potential.createSystem(topology, precison="single")
    with pytest.raises(InputError, match="unknown keyword 'mlLongRange'"):
        potential.createSystem(topology, mlLongRange=False)


def test_unseen_element(tmp_path):
    path = tmp_path / "hydrocarbons.safetensors"
    small_potential(type_names=["H", "C"], per_type_energy_shifts=0.0).save(path)
    with pytest.raises(InputError, match="was not trained on O; it knows H, C"):
        MLPotential("nequip", modelPath=path).createSystem(topology_of(random_frame(False)))


def test_runtime_errors_are_openmm_exceptions(model):
    frame = random_frame(True)
    system = MLPotential("nequip", modelPath=model).createSystem(topology_of(frame))
    context = context_of(system, frame.positions)
    context.setPeriodicBoxVectors(*(np.eye(3) * 0.5))
    with pytest.raises(OpenMMException, match="narrower than twice the cutoff"):
        evaluate(context)
