"""Systems that hold a potential survive being saved, loaded and copied."""

import copy
import io
import json
import pickle
import zipfile

import numpy as np
import openmm
import pytest
import torch

from openmm_nequip.errors import InputError
from openmm_nequip.md import serialization
from openmm_nequip.md.probe import import_openmmtorch, why_not
from openmm_nequip.md.serialization import load_system, save_system

from .systems import KINDS, context_of, evaluate, random_frame, small_potential, with_potential

ATOMS = [7, 2, 11, 0, 5]


@pytest.fixture(params=KINDS)
def kind(request):
    if reason := why_not(request.param):
        pytest.skip(reason)
    return request.param


@pytest.fixture
def frame():
    return random_frame(periodic=True)


@pytest.fixture
def system(kind, frame):
    """A potential on some atoms between two other forces, in a group of its own."""
    system = with_potential(
        small_potential(), frame, ATOMS, force=kind, returnEnergyType="interaction_energy"
    )
    system.getForce(0).setForceGroup(7)
    system.getForce(0).setName("the potential")
    restraint = openmm.CustomExternalForce("x^2")
    restraint.addParticle(3)
    system.addForce(restraint)
    system.addForce(openmm.CMMotionRemover())
    return system


def assert_same(loaded, system, frame):
    first, second = context_of(loaded, frame.positions), context_of(system, frame.positions)
    for groups in (1 << 7, 1, -1):
        energy, forces = evaluate(first, groups)
        expected_energy, expected_forces = evaluate(second, groups)
        assert energy == pytest.approx(expected_energy, rel=1e-12)
        np.testing.assert_allclose(forces, expected_forces, rtol=0, atol=1e-11)
    assert np.abs(evaluate(first, 1 << 7)[1]).max() > 10


def names(system):
    return [(f.getName(), f.getForceGroup(), type(f)) for f in system.getForces()]


def test_save_and_load(system, frame, tmp_path):
    path = tmp_path / "system.nequip"
    save_system(system, path)
    loaded = load_system(path)
    assert names(loaded) == names(system)
    assert_same(loaded, system, frame)
    # and once more: what was loaded can be saved
    save_system(loaded, path)
    assert_same(load_system(path), system, frame)


@pytest.mark.parametrize("other", KINDS)
def test_load_as_another_force(system, frame, tmp_path, other):
    if reason := why_not(other):
        pytest.skip(reason)
    save_system(system, tmp_path / "system.nequip")
    loaded = load_system(tmp_path / "system.nequip", force=other)
    assert isinstance(loaded.getForce(0), openmm.PythonForce) == (other == "python")
    first, second = context_of(loaded, frame.positions), context_of(system, frame.positions)
    np.testing.assert_allclose(evaluate(first)[1], evaluate(second)[1], atol=1e-9)


def test_saved_kind_is_not_here(system, frame, tmp_path, monkeypatch):
    save_system(system, tmp_path / "system.nequip")
    monkeypatch.setattr(serialization, "why_not", lambda kind: "it is not installed")
    monkeypatch.setattr(serialization, "first_that_works", lambda: "python")
    loaded = load_system(tmp_path / "system.nequip")
    assert isinstance(loaded.getForce(0), openmm.PythonForce)


def test_loading_runs_no_code(system, tmp_path):
    save_system(system, tmp_path / "system.nequip")
    with zipfile.ZipFile(tmp_path / "system.nequip") as archive:
        assert set(archive.namelist()) == {"system.xml", "force-0.json", "force-0.safetensors"}
        xml = archive.read("system.xml").decode()
        settings = json.loads(archive.read("force-0.json"))["settings"]
    assert "PythonForce" not in xml
    assert "TorchForce" not in xml
    assert settings["atoms"] == ATOMS


def test_openmm_xml(system, frame, tmp_path):
    path = tmp_path / "system.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    with pytest.raises(InputError, match=r"can run any code it holds.*trust=True"):
        load_system(path)
    assert_same(load_system(path, trust=True), system, frame)


def test_xml_without_code_needs_no_trust(tmp_path):
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(openmm.CMMotionRemover())
    (tmp_path / "plain.xml").write_text(openmm.XmlSerializer.serialize(system))
    assert load_system(tmp_path / "plain.xml").getNumForces() == 1


def test_python_force_survives_openmm(frame):
    """XML and copies of openmm itself, in another process too, need nothing of ours."""
    system = with_potential(small_potential(), frame, ATOMS, force="python")
    assert_equal = np.testing.assert_array_equal
    reference = evaluate(context_of(system, frame.positions))[1]
    xml = openmm.XmlSerializer.serialize(system)
    for other in (
        openmm.XmlSerializer.deserialize(xml),
        copy.deepcopy(system),
        pickle.loads(pickle.dumps(system)),
    ):
        assert_equal(evaluate(context_of(other, frame.positions))[1], reference)


def test_interpolation_is_saved(kind, frame, tmp_path):
    system = with_potential(small_potential(), frame, interpolate=True, force=kind)
    save_system(system, tmp_path / "system.nequip")
    loaded = context_of(load_system(tmp_path / "system.nequip"), frame.positions)
    full = evaluate(loaded)[0]
    loaded.setParameter("lambda_interpolate", 0.25)
    assert evaluate(loaded)[0] == pytest.approx(0.25 * full, rel=1e-12)


def _foreign(state):
    return 0.0, np.zeros((1, 3))


class _Spring(torch.nn.Module):
    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return positions.square().sum()


@pytest.mark.parametrize("nested", [False, True])
def test_foreign_forces(kind, tmp_path, nested):
    if kind == "python":
        force = openmm.PythonForce(_foreign)
    else:
        force = import_openmmtorch().TorchForce(torch.jit.script(_Spring()))
    if nested:
        outer = openmm.CustomCVForce("2*inner")
        outer.addCollectiveVariable("inner", force)
        force = outer
    system = openmm.System()
    system.addParticle(1.0)
    system.addForce(force)
    path = tmp_path / "system.nequip"
    with pytest.raises(InputError, match="Force does not belong to openmm-nequip"):
        save_system(system, path)
    assert not path.exists()
    if kind == "torch":  # reading it could crash the process
        path.write_text(openmm.XmlSerializer.serialize(system))
        with pytest.raises(InputError, match="holds a TorchForce that does not belong"):
            load_system(path, trust=True)


class _Evil:
    def __reduce__(self):
        return print, ("evil code ran",)


def test_malicious_files(tmp_path, capsys):
    """Neither a hostile pickle nor a force smuggled into our archive is run."""
    system = openmm.System()
    system.addParticle(1.0)
    xml = openmm.XmlSerializer.serialize(system)
    function = pickle.dumps(_Evil()).hex()
    force = f'<Force type="PythonForce" version="2" forceGroup="0" function="{function}"/>'
    hostile = xml.replace("<Forces/>", f"<Forces>{force}</Forces>")
    assert hostile != xml
    (tmp_path / "hostile.xml").write_text(hostile)
    with pytest.raises(InputError, match="trust=True"):
        load_system(tmp_path / "hostile.xml")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("system.xml", hostile)
    (tmp_path / "hostile.nequip").write_bytes(archive.getvalue())
    with pytest.raises(InputError, match="damaged"):
        load_system(tmp_path / "hostile.nequip")
    assert serialization._unpickle(pickle.dumps(_Evil())) is None
    assert "evil" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"<System", b"PK\x03\x04", b"<Other/>", b"\x00\xff"])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "damaged"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged|cannot read") as error:
        load_system(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="cannot read"):
        load_system(tmp_path / "missing")
