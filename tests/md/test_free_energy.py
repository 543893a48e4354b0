"""From a force field to a potential: the whole way from a configuration to the number."""

import json

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from openmm_nequip.analysis.free_energy import GAS_CONSTANT
from openmm_nequip.cli import app, commands  # noqa: F401
from openmm_nequip.data.frame import Frame
from openmm_nequip.errors import InputError
from openmm_nequip.md.protocol import run_windows

from .systems import expected, small_potential

LENGTH, STIFFNESS, TEMPERATURE = 0.18, 3000.0, 300.0  # nm, kJ/mol/nm², K
DUMBBELL = f"""<ForceField>
 <AtomTypes><Type name="CC" class="CC" element="C" mass="12.0"/></AtomTypes>
 <Residues><Residue name="DUM">
  <Atom name="C1" type="CC"/><Atom name="C2" type="CC"/><Bond atomName1="C1" atomName2="C2"/>
 </Residue></Residues>
 <HarmonicBondForce><Bond class1="CC" class2="CC" length="{LENGTH}" k="{STIFFNESS}"/>
 </HarmonicBondForce>
 <NonbondedForce coulomb14scale="0.83" lj14scale="0.5">
  <Atom type="CC" charge="0" sigma="0.1" epsilon="0"/>
 </NonbondedForce>
</ForceField>"""
PDB = """HETATM    1  C1  DUM A   1       0.000   0.000   0.000  1.00  0.00           C
HETATM    2  C2  DUM A   1       1.800   0.000   0.000  1.00  0.00           C
CONECT    1    2
END
"""


@pytest.fixture(scope="module")
def potential():
    return small_potential(per_type_energy_scales=2.0)


@pytest.fixture
def dumbbell(tmp_path, potential):
    """Two atoms with a harmonic bond, of which the potential describes both."""
    potential.save(tmp_path / "small.safetensors")
    (tmp_path / "dumbbell.xml").write_text(DUMBBELL)
    (tmp_path / "dumbbell.pdb").write_text(PDB)
    values = {
        "structure": "dumbbell.pdb", "force_field": [str(tmp_path / "dumbbell.xml")],
        "ml_region": "all", "potential": "small.safetensors", "temperature": TEMPERATURE,
        "friction": 20, "timestep": 3, "steps": 3000, "heating": 20, "equilibration": 250,
        "log_interval": 10, "trajectory_interval": 500, "force": "python",
        "platform": "Reference", "minimise": False, "output": str(tmp_path / "out"),
    }  # fmt: skip
    path = tmp_path / "dumbbell.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def exact(potential, value: float) -> float:
    """Free energy at λ = `value` less that at 0, from the integral over the distance, kJ/mol."""
    distances = np.linspace(0.08, 0.30, 441)  # nm
    energies = []
    for r in distances:
        frame = Frame(np.array([6, 6]), np.array([[0.0, 0, 0], [10 * r, 0, 0]]))
        energies.append(expected(potential, frame)[0])
    force_field = 0.5 * STIFFNESS * (distances - LENGTH) ** 2
    thermal = GAS_CONSTANT * TEMPERATURE

    def of(share: float) -> float:
        energy = (1 - share) * force_field + share * np.array(energies)
        weights = distances**2 * np.exp(-(energy - energy.min()) / thermal)
        return energy.min() - thermal * np.log(np.trapezoid(weights, distances))

    return of(value) - of(0.0)


def test_a_dumbbell_has_its_analytic_free_energy(dumbbell, potential):
    arguments = ["free-energy", str(dumbbell), "--windows", "0 0.25 0.5"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    out = dumbbell.parent / "out"
    found = json.loads((out / "free_energy.json").read_text())
    value, error = found["free_energy_kJ_mol"]["value"], found["free_energy_kJ_mol"]["error"]
    assert 0 < error < 0.5
    assert abs(value - exact(potential, 0.5)) < 3 * error
    assert f"{value:.1f}"[:6] in outcome.output

    # finished windows stay as they are; one more is run
    before = (out / "lambda-0.2500" / "state.csv").read_bytes()
    outcome = CliRunner().invoke(app, [*arguments[:-1], "0 0.25 0.375 0.5"])
    assert outcome.exit_code == 0, outcome.output
    assert (out / "lambda-0.2500" / "state.csv").read_bytes() == before
    assert len(json.loads((out / "free_energy.json").read_text())["windows"]) == 4


def test_short_windows_have_reports_too(dumbbell):
    """And finished windows are made longer."""
    arguments = ["free-energy", str(dumbbell), "--windows", "0 0.5", "equilibration=0"]
    outcome = CliRunner().invoke(app, [*arguments, "steps=100"])
    assert outcome.exit_code == 0, outcome.output
    out = dumbbell.parent / "out"
    folders = [out / "lambda-0.0000", out / "lambda-0.5000"]
    assert sorted(out.glob("lambda-*/report.html")) == [f / "report.html" for f in folders]
    before = [(folder / "state.csv").read_bytes() for folder in folders]
    outcome = CliRunner().invoke(app, [*arguments, "steps=200"])
    assert outcome.exit_code == 0, outcome.output
    for folder, bytes_before in zip(folders, before, strict=True):
        log = (folder / "state.csv").read_bytes()
        assert log.startswith(bytes_before)
        assert log.splitlines()[-1].startswith(b"200,")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_interpolate": 0.5}, "have their own λ"),
        ({"replicas": 2}, "have their own λ"),
        ({"ensemble": "nve"}, "set 'ensemble' to nvt or npt"),
        ({"temperature": 0}, "'temperature' to more than 0"),
        ({"force_field": None, "ml_region": None}, "needs the key 'force_field'"),
    ],
)
def test_configurations_without_windows_are_refused(changes, message, tmp_path):
    from openmm_nequip.config import parse_config
    from openmm_nequip.md.config import SimulationConfig

    values = {"structure": "ethanol", "steps": 1, "force_field": "x.xml", "ml_region": "all"}
    config = parse_config(SimulationConfig, values | changes, where="test")
    with pytest.raises(InputError, match=message):
        run_windows(config, [0.0, 1.0], tmp_path, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("windows", ["0", "1 0", "0 2", "a b", ""])
def test_windows_are_ascending_numbers(windows, dumbbell):
    outcome = CliRunner().invoke(app, ["free-energy", str(dumbbell), "--windows", windows])
    assert isinstance(outcome.exception, InputError)
    assert "ascending numbers from 0 to 1" in str(outcome.exception)
