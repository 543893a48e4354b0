"""Extended XYZ: keys, cells, stress and virial, units, broken frames."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from openmm_nequip.data.readers import iter_frames, read_frames
from openmm_nequip.errors import InputError

from .make import assert_same, extxyz, frames, numbers_text

KCAL = 4.184 / 96.48533212


def write(tmp_path, text):
    path = tmp_path / "data.xyz"
    path.write_text(text)
    return path


@pytest.mark.parametrize("periodic", [False, True])
def test_round_trip(tmp_path, periodic):
    made = frames(3, periodic)
    data = read_frames(write(tmp_path, extxyz(made)))
    assert len(data) == 3
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame)
    assert data[1].source.endswith("data.xyz:1")
    assert data.units.energy.origin == "format convention"
    assert "energies in eV (format convention), lengths in Å" in data.summary()


@pytest.mark.parametrize(
    "energy", ["energy", "Energy", "REF_energy", "dft_energy", "total_energy", "TotEnergy"]
)
@pytest.mark.parametrize("forces", ["forces", "force", "REF_forces", "dft_forces", "Forces"])
def test_usual_keys(tmp_path, energy, forces):
    made = frames(1)
    data = read_frames(write(tmp_path, extxyz(made, energy, forces)))
    assert_same(data[0], made[0])


def test_given_keys_and_gradient(tmp_path):
    made = frames(1)
    path = write(tmp_path, extxyz(made, "E_mp2", "slope"))
    with pytest.raises(InputError, match="frame 0: no energy; it has E_mp2, slope"):
        read_frames(path)
    data = read_frames(path, keys={"energy": "E_mp2", "gradient": "slope"})
    np.testing.assert_allclose(data[0].forces, -made[0].forces, rtol=1e-12)


def test_two_different_energies_are_refused(tmp_path):
    path = write(tmp_path, extxyz(frames(1), extra="REF_energy=-1.5"))
    with pytest.raises(InputError, match="both 'REF_energy' and 'energy', which differ"):
        read_frames(path)
    assert read_frames(path, keys={"energy": "REF_energy"})[0].energy == -1.5


def test_unknown_label_in_keys(tmp_path):
    path = write(tmp_path, extxyz(frames(1)))
    with pytest.raises(InputError, match=r"'force' is not one of .* \(did you mean 'forces'\?\)"):
        read_frames(path, keys={"force": "f"})


@pytest.mark.parametrize("key", ["stress", "REF_stress"])
@pytest.mark.parametrize("voigt", [True, False])
def test_stress(tmp_path, key, voigt):
    made = frames(1, periodic=True)
    stress = made[0].stress
    values = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] if voigt else stress
    path = write(tmp_path, extxyz(made, extra=f'{key}="{numbers_text(values)}"'))
    data = read_frames(path, require=("energy", "forces", "stress"))
    np.testing.assert_allclose(data[0].stress, stress, rtol=1e-12)


@pytest.mark.parametrize("key", ["virial", "REF_virial", "virials"])
def test_virial(tmp_path, key):
    made = frames(1, periodic=True)
    virial = -made[0].stress * abs(np.linalg.det(made[0].cell))
    path = write(tmp_path, extxyz(made, extra=f'{key}="{numbers_text(virial)}"'))
    np.testing.assert_allclose(read_frames(path)[0].stress, made[0].stress, rtol=1e-12)


def test_noise_of_a_small_stress_is_no_asymmetry(tmp_path):
    values = "1e-4 2e-5 0 4e-5 1e-4 0 0 0 1e-4"
    path = write(tmp_path, extxyz(frames(1, periodic=True), extra=f'REF_stress="{values}"'))
    np.testing.assert_allclose(read_frames(path)[0].stress[0], [1e-4, 3e-5, 0])


def test_asymmetric_stress(tmp_path):
    values = "1 2 3 4 5 6 7 8 9"
    path = write(tmp_path, extxyz(frames(1, periodic=True), extra=f'REF_stress="{values}"'))
    with pytest.raises(InputError, match="stress is not symmetric"):
        read_frames(path)


def test_fake_cell_is_no_cell(tmp_path):
    text = extxyz(frames(1, periodic=True), extra='stress="0 0 0 0 0 0 0 0 0"')
    data = read_frames(write(tmp_path, text.replace("T T T", "F F F")))
    assert data[0].cell is None
    assert data[0].stress is None
    assert data[0].pbc == (False, False, False)


def test_slab_keeps_its_cell(tmp_path):
    text = extxyz(frames(1, periodic=True)).replace("T T T", "T T F")
    frame = read_frames(write(tmp_path, text))[0]
    assert frame.pbc == (True, True, False)
    assert frame.cell is not None


def test_declared_units(tmp_path):
    made = frames(1, periodic=True)
    path = write(tmp_path, extxyz(made, extra=f'stress="{numbers_text(made[0].stress)}"'))
    data = read_frames(path, energy_unit="kcal/mol", length_unit="nm", index=None)
    assert_same(data[0], made[0], KCAL, 10.0)
    assert data.units.force.name == "kcal/mol/nm"
    assert data.units.force.origin == "declared"
    data = read_frames(path, force_unit="Hartree/bohr")
    factor = 27.211386245988 / 0.529177210903
    np.testing.assert_allclose(data[0].forces, made[0].forces * factor, rtol=1e-12)
    with pytest.raises(InputError, match="unknown energy unit 'kcal/mole'"):
        read_frames(path, energy_unit="kcal/mole")
    with pytest.raises(InputError, match="write it as energy/length"):
        read_frames(path, force_unit="eV")


def damaged(kind):
    made = frames(4)
    blocks = [extxyz([frame]) for frame in made]
    words = blocks[2].splitlines()
    if kind == "nan energy":
        words[1] = words[1].replace(f"energy={made[2].energy!r}", "energy=nan")
    elif kind == "inf force":
        words[3] = " ".join([*words[3].split()[:-1], "inf"])
    elif kind == "not a number":
        words[3] = words[3].replace("H", "H oops", 1)
    elif kind == "unknown element":
        words[3] = words[3].replace("H", "Qq", 1)
    elif kind == "close atoms":
        words[4] = "H 0.1 0.0 0.1 0 0 0"
    elif kind == "no forces":
        words[1] = words[1].replace("forces", "momenta_raw")
    elif kind == "one force component":
        words[1] = words[1].replace("forces:R:3", "forces:R:1")
    blocks[2] = "\n".join(words) + "\n"
    return made, "".join(blocks)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("nan energy", "energy is NaN or infinite"),
        ("inf force", "forces is NaN or infinite"),
        ("not a number", "cannot be parsed"),
        ("unknown element", "cannot be parsed"),
        ("close atoms", "atoms 0 and 2 are 0.14 Å apart"),
        ("no forces", "no forces"),
        ("one force component", "forces has shape"),
    ],
)
def test_bad_frame(tmp_path, kind, reason):
    made, text = damaged(kind)
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=f"frame 2: .*{reason}.*on_bad_frames: skip"):
        read_frames(path)
    data = read_frames(path, on_bad="skip")
    assert [bad.index for bad in data.bad] == [2]
    assert reason in data.bad[0].reason
    assert "1 frames left out:\n  frame 2: " in data.summary()
    assert [frame.source[-1] for frame in data] == ["0", "1", "3"]
    assert_same(data[2], made[3])


def test_atoms_that_have_left_a_slab_are_a_bad_frame(tmp_path):
    slab = 'Lattice="5 0 0 0 5 0 0 0 20" pbc="T T F" energy=-1.0 Properties=species:S:1:pos:R:3'
    text = f"2\n{slab}\nCu 0 0 0\nCu 2 0 {{}}\n"
    path = write(tmp_path, text.format(2) + text.format(1e7) + text.format(3))
    with pytest.raises(InputError, match=r"frame 1: atoms are 1e\+07 Å apart"):
        read_frames(path, require=())
    data = read_frames(path, require=(), on_bad="skip")
    assert [bad.index for bad in data.bad] == [1]
    assert len(data) == 2


def test_periodic_without_a_cell_vector_is_a_bad_frame(tmp_path):
    text = '2\nLattice="9 0 0 0 9 0 0 0 0" {} energy=-1.0\nH 0 0 0\nH 1 0 0\n'
    with pytest.raises(InputError, match="periodic in a direction for which it has no cell vector"):
        read_frames(write(tmp_path, text.format("")), require=())
    slab = read_frames(write(tmp_path, text.format('pbc="T T F"')), require=())[0]
    assert slab.pbc == (True, True, False)


def test_a_comment_in_another_encoding_does_no_harm(tmp_path):
    made = frames(2)
    text = extxyz(made).replace("energy=", "note=Å energy=")
    (tmp_path / "x.xyz").write_bytes(text.encode("latin-1"))
    for read, frame in zip(read_frames(tmp_path / "x.xyz"), made, strict=True):
        assert_same(read, frame)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "x.xyz").write_text(extxyz(frames(2)), encoding="utf-8-sig")
    assert len(read_frames(tmp_path / "x.xyz")) == 2


def test_truncated_file(tmp_path):
    text = extxyz(frames(3))
    data = read_frames(write(tmp_path, text[: text.rindex("H")]), on_bad="skip")
    assert len(data) == 2
    assert data.bad[0].index == 2
    assert "the file ends before atom 3" in data.bad[0].reason


def test_lost_frame_count(tmp_path):
    text = extxyz(frames(3)).split("\n")
    text[5] = "4"
    data = read_frames(write(tmp_path, "\n".join(text)), on_bad="skip")
    assert len(data) == 1
    assert "expected the number of atoms" in data.bad[-1].reason
    assert "nothing after it can be read" in data.bad[-1].reason


def test_more_than_nine_atoms_and_blank_lines(tmp_path):
    rng = np.random.default_rng(1)
    grid = np.stack(np.meshgrid([0, 2], [0, 2], [0, 2, 4]), -1).reshape(-1, 3) + 0.0
    lines = ["12", "Properties=species:S:1:pos:R:3:forces:R:3 energy=1.0"]
    lines += [f"C {numbers_text(x)} {numbers_text(rng.normal(size=3))}" for x in grid]
    data = read_frames(write(tmp_path, "\n".join(lines) + "\n\n" + "\n".join(lines) + "\n\n"))
    assert [len(frame) for frame in data] == [12, 12]


@pytest.mark.parametrize("box", ['pbc="F F F"', 'Lattice="15 0 0 0 15 0 0 0 15" pbc="T T T"'])
def test_single_atom_needs_no_forces(tmp_path, box):
    path = write(tmp_path, f"1\nProperties=species:S:1:pos:R:3 energy=-13.6 {box}\nH 0 0 0\n")
    data = read_frames(path)
    assert data[0].energy == -13.6
    assert data[0].forces is None
    assert read_frames(path, require=("energy", "forces", "stress"))[0].stress is None


def test_required_labels(tmp_path):
    path = write(tmp_path, extxyz(frames(1)).replace("energy=", "other="))
    assert read_frames(path, require=("forces",))[0].energy is None
    with pytest.raises(InputError, match="no energy"):
        read_frames(path)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), "12"),
        (slice(None, None, 3), "03"),
        (slice(-2, None), "34"),
        (slice(None, None, -2), "420"),
    ],
)
def test_index(tmp_path, index, expected):
    path = write(tmp_path, extxyz(frames(5)))
    assert "".join(f.source[-1] for f in read_frames(path, index=index)) == expected


def test_streaming_reads_only_what_is_asked_for(tmp_path):
    stream = iter_frames(write(tmp_path, extxyz(frames(2)) + "garbage\n"))
    assert next(stream).source.endswith(":0")
    assert next(stream).source.endswith(":1")
    assert stream.count == 2
    with pytest.raises(InputError, match="frame 2"):
        next(stream)


def test_missing_empty_and_all_bad(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_frames(tmp_path / "no.xyz")
    with pytest.raises(InputError, match="has no usable frames"):
        read_frames(write(tmp_path, ""))
    path = write(tmp_path, extxyz(frames(2)).replace("energy", "x"))
    with pytest.raises(InputError, match=r"no usable frames: 2 are bad, the first is frame 0: no"):
        read_frames(path, on_bad="skip")


def test_atomic_energies_are_no_total_energy(tmp_path):
    """ASE's own calculators write them beside it."""
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.rattle(0.05, seed=1)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    atoms.write(tmp_path / "cu.xyz")
    assert "energies" in (tmp_path / "cu.xyz").read_text()
    (frame,) = read_frames(tmp_path / "cu.xyz")
    assert frame.energy == pytest.approx(energy, abs=1e-6)
    atom = Atoms("Cu", calculator=EMT())
    energy = atom.get_potential_energy()
    atom.get_forces()
    atom.write(tmp_path / "atom.xyz")
    assert read_frames(tmp_path / "atom.xyz")[0].energy == pytest.approx(energy, abs=1e-6)


def test_a_comment_that_looks_like_a_dictionary_of_labels(tmp_path):
    atoms = Atoms("H2", [[0, 0, 0], [0.74, 0, 0]], info={"data": "train", "energy": -31.7})
    atoms.arrays["forces"] = np.zeros((2, 3))
    atoms.write(tmp_path / "h2.xyz", format="extxyz")
    assert read_frames(tmp_path / "h2.xyz")[0].energy == -31.7
