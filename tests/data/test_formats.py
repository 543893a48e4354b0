"""NPZ, HDF5, DeePMD, ASE databases and ASE's other formats."""

import sys

import ase.db
import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from openmm_nequip.data.readers import read_frames
from openmm_nequip.errors import InputError

from .make import NUMBERS, assert_same, frames

KCAL = 4.184 / 96.48533212
HARTREE = 27.211386245988
BOHR = 0.529177210903


def stacked(made):
    positions = np.array([frame.positions for frame in made])
    energies = np.array([frame.energy for frame in made])
    forces = np.array([frame.forces for frame in made])
    return positions, energies, forces


def atoms_of(frame, fixed=False):
    atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
    results = {"energy": frame.energy, "forces": frame.forces}
    if frame.stress is not None:
        results["stress"] = frame.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
    if fixed:
        atoms.set_constraint(FixAtoms([0, 1]))
    return atoms


def test_a_file_that_is_no_archive_is_said(tmp_path):
    (tmp_path / "x.npz").write_text("coords")
    with pytest.raises(InputError, match=r"x\.npz is not a readable \.npz archive$"):
        read_frames(tmp_path / "x.npz")


def test_rmd17(tmp_path):
    made = frames(3)
    r, e, f = stacked(made)
    np.savez(
        tmp_path / "x.npz",
        nuclear_charges=NUMBERS,
        coords=r,
        energies=e,
        forces=f,
        old_energies=e + 1,
    )
    data = read_frames(tmp_path / "x.npz")
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame, KCAL)
    assert "rMD17, which is in kcal/mol and Å" in data.summary()
    declared = read_frames(tmp_path / "x.npz", energy_unit="eV")
    assert_same(declared[0], made[0])


def test_sgdml(tmp_path):
    made = frames(2)
    r, e, f = stacked(made)
    arrays = {"z": NUMBERS, "R": r, "E": e[:, None], "F": f, "type": "d"}
    np.savez(tmp_path / "with.npz", r_unit="Ang", e_unit="kcal/mol", **arrays)
    data = read_frames(tmp_path / "with.npz")
    assert_same(data[1], made[1], KCAL)
    assert data.units.energy.origin == "file attribute"
    np.savez(tmp_path / "without.npz", **arrays)
    with pytest.raises(InputError, match="give length_unit and energy_unit"):
        read_frames(tmp_path / "without.npz")
    with pytest.raises(InputError, match=r"give energy_unit, for example energy_unit='kcal/mol'$"):
        read_frames(tmp_path / "without.npz", length_unit="bohr")
    data = read_frames(tmp_path / "without.npz", length_unit="bohr", energy_unit="Hartree",
                       on_bad="skip")  # fmt: skip
    assert_same(data[0], made[0], HARTREE, BOHR)


def test_sgdml_lattice_has_vectors_as_columns(tmp_path):
    made = frames(1, periodic=True)
    r, e, f = stacked(made)
    np.savez(
        tmp_path / "x.npz", z=NUMBERS, R=r, E=e, F=f, r_unit="Ang", e_unit="eV",
        lattice=made[0].cell.T,
    )  # fmt: skip
    assert_same(read_frames(tmp_path / "x.npz")[0], made[0])


def test_npz_shapes_and_pickles(tmp_path):
    r, e, f = stacked(frames(3))
    path = tmp_path / "x.npz"
    np.savez(path, nuclear_charges=NUMBERS, coords=r, energies=e[:2], forces=f)
    with pytest.raises(InputError, match=r"'energies' has shape \[2\] for 3 frames"):
        read_frames(path)
    f[1, 0, 0] = np.nan
    np.savez(path, nuclear_charges=NUMBERS, coords=r, energies=e, forces=f, junk=np.array([{}]))
    data = read_frames(path, on_bad="skip")
    assert [str(bad) for bad in data.bad] == ["frame 1: forces is NaN or infinite"]
    np.savez(path, nuclear_charges=NUMBERS, coords=r, energies=e, forces=f[:, :2])
    with pytest.raises(InputError, match=r"forces has shape \[2, 3\], expected \[3, 3\]"):
        read_frames(path)
    np.savez(path, a=r)
    with pytest.raises(InputError, match="no atomic numbers"):
        read_frames(path)
    rmd17 = {"coords": r, "energies": e, "forces": f}
    for numbers in (np.array(["O", "H", "H"]), NUMBERS[:2], np.array(8)):
        np.savez(path, nuclear_charges=numbers, **rmd17)
        with pytest.raises(InputError, match=r"expected \[frames, atoms, 3\] and \[atoms\]"):
            read_frames(path)
    np.savez(path, nuclear_charges=NUMBERS[None], **rmd17)
    assert len(read_frames(path, on_bad="skip")) == 2
    np.savez(path, nuclear_charges=NUMBERS, lattice=np.tile(np.eye(3), (3, 1, 1)), **rmd17)
    with pytest.raises(InputError, match=r"'lattice' has shape \[3, 3, 3\]"):
        read_frames(path)
    np.savez(path, nuclear_charges=NUMBERS, cell=np.tile(np.eye(3), (3, 1, 1)), **rmd17)
    with pytest.raises(InputError, match=r"has cells \('cell'\), which are not read"):
        read_frames(path)
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(InputError, match="not a readable"):
        read_frames(path)


@pytest.mark.parametrize("species", ["text", "numbers", "float", "per frame", "one row"])
def test_ani_layout(tmp_path, species):
    made = frames(3)
    r, e, f = stacked(made)
    path = tmp_path / "ani.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("comp6/mol00")
        group["coordinates"], group["energies"], group["forces"] = r, e, f
        group["species"] = {
            "text": np.array([b"O", b"H", b"H"]),
            "numbers": NUMBERS,
            "float": NUMBERS.astype(float),
            "per frame": np.tile(NUMBERS, (3, 1)),
            "one row": NUMBERS[None],
        }[species]
    with pytest.raises(InputError, match=r"units of the file are not known.*Hartree and Å"):
        read_frames(path)
    data = read_frames(path, energy_unit="Hartree", length_unit="Å")
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame, HARTREE)
    flipped = read_frames(
        path,
        energy_unit="Hartree",
        length_unit="Å",
        force_unit="Hartree/bohr",
        keys={"gradient": "forces"},
    )
    np.testing.assert_allclose(flipped[0].forces, -made[0].forces * HARTREE / BOHR, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("energies", 1.0, "1 energy for 2 conformations"),
        ("coordinates", 1.0, "'coordinates' is one number, not positions of atoms"),
        ("energies", np.zeros(3), "3 energy for 2 conformations"),
        ("species", np.tile(NUMBERS, (3, 1)), "elements of 3 conformations, positions of 2"),
        ("species", NUMBERS + 0.5, "'8.5' is not a chemical symbol"),
        ("species", 8, "3 positions|positions"),
        ("species", np.array([b"O", b"H", b"Q"]), "'Q' is not a chemical symbol"),
        ("coordinates", np.zeros((2, 9)), "frame 0: .*positions"),
    ],
)
def test_hdf5_of_wrong_shape_is_one_clear_line(tmp_path, name, content, message):
    r, e, f = stacked(frames(2))
    values = {"coordinates": r, "energies": e, "forces": f, "species": NUMBERS, name: content}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("water")
        for key, value in values.items():
            group[key] = value
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "x.h5", energy_unit="eV", length_unit="Å")


def test_hdf5_groups_of_one_conformation(tmp_path):
    made = frames(2)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for k, frame in enumerate(made):
            group = file.create_group(f"{k}")
            group["coordinates"], group["forces"] = frame.positions, frame.forces
            group["energies"], group["species"] = frame.energy, NUMBERS
    data = read_frames(tmp_path / "x.h5", energy_unit="eV", length_unit="Å")
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame)


def test_hdf5_cells_of_any_group_are_refused(tmp_path):
    r, e, f = stacked(frames(2))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in ("a", "b"):
            group = file.create_group(name)
            group["coordinates"], group["species"] = r, NUMBERS
            group["energies"], group["forces"] = e, f
        group["cell"] = np.tile(10 * np.eye(3), (2, 1, 1))
    with pytest.raises(InputError, match=r"/b has cells \('cell'\)"):
        read_frames(tmp_path / "x.h5", energy_unit="eV", length_unit="Å")


def test_hdf5_groups_in_different_units_are_refused(tmp_path):
    path = tmp_path / "spice.hdf5"
    write_spice(path, frames(2))
    with h5py.File(path, "a") as file:
        file.copy("water", "z")
        file["z"]["dft_total_energy"].attrs["units"] = "eV"
    with pytest.raises(InputError, match="/z is in other units than the groups before"):
        read_frames(path)


def test_ani_padding(tmp_path):
    made = frames(2)
    r, e, f = stacked(made)
    pad = np.zeros((2, 1, 3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("003")
        group["coordinates"] = np.concatenate([r, pad], axis=1)
        group["forces"] = np.concatenate([f, pad], axis=1)
        group["energies"] = e
        group["species"] = np.tile([*NUMBERS, -1], (2, 1))
    data = read_frames(tmp_path / "x.h5", energy_unit="eV", length_unit="Å")
    assert_same(data[1], made[1])


def write_spice(path, made, smiles=None):
    r, e, f = stacked(made)
    with h5py.File(path, "w") as file:
        group = file.create_group("water")
        group["conformations"] = r
        group["conformations"].attrs["units"] = "bohr" if smiles is None else "nanometers"
        if smiles is not None:
            group["smiles"] = [smiles]
            return
        group["atomic_numbers"] = NUMBERS
        group["dft_total_energy"], group["dft_total_gradient"] = e, -f
        group["dft_total_energy"].attrs["units"] = "hartree"
        group["dft_total_gradient"].attrs["units"] = "hartree/bohr"


def test_spice_layout(tmp_path):
    made = frames(2)
    path = tmp_path / "spice.hdf5"
    write_spice(path, made)
    data = read_frames(path)
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame, HARTREE, BOHR)
    assert data.units.force.origin == "file attribute"


def test_spice_conformations(tmp_path):
    made = frames(2)
    path = tmp_path / "spice.hdf5"
    write_spice(path, made, smiles="[O:1]([H:3])[H:2]")
    with pytest.raises(InputError, match="frame 0: no energy; it has conformations, smiles"):
        read_frames(path)
    data = read_frames(path, require=())
    assert data[0].numbers.tolist() == [8, 1, 1]
    np.testing.assert_allclose(data[1].positions, made[1].positions * 10, rtol=1e-12)
    assert data.units.energy is None
    path.unlink()
    write_spice(path, made, smiles="O")
    with pytest.raises(InputError, match="SMILES does not number every atom: O"):
        read_frames(path, require=())


def test_smiles_symbols(tmp_path):
    from openmm_nequip.data.readers.hdf5 import _from_smiles

    smiles = b"[13C@@H:2]([Cl-:1])([Br:4])[c:3]1[nH+:5][Na+:6].[H:7]"
    assert _from_smiles(smiles).tolist() == [17, 6, 6, 35, 7, 11, 1]


def test_hdf5_without_h5py(tmp_path, monkeypatch):
    (tmp_path / "x.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"pip install openmm-nequip\[train\]"):
        read_frames(tmp_path / "x.h5")


def test_damaged_hdf5(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"not hdf5")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        read_frames(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["a"] = [1]
    with pytest.raises(InputError, match="no group with coordinates"):
        read_frames(tmp_path / "y.h5")


def write_deepmd(folder, made, sets=2):
    folder.mkdir(parents=True)
    (folder / "type_map.raw").write_text("H\nO\n")
    (folder / "type.raw").write_text("1\n0\n0\n")
    periodic = made[0].cell is not None
    if not periodic:
        (folder / "nopbc").touch()
    for k, part in enumerate(np.array_split(np.arange(len(made)), sets)):
        chosen = [made[i] for i in part]
        r, e, f = stacked(chosen)
        place = folder / f"set.{k:03d}"
        place.mkdir()
        np.save(place / "coord.npy", r.reshape(len(part), -1))
        np.save(place / "energy.npy", e)
        np.save(place / "force.npy", f.reshape(len(part), -1))
        if periodic:
            box = np.array([frame.cell for frame in chosen])
            stress = np.array([frame.stress for frame in chosen])
            virial = -stress * abs(np.linalg.det(box))[:, None, None]
            np.save(place / "box.npy", box.reshape(len(part), -1))
            np.save(place / "virial.npy", virial.reshape(len(part), -1))


@pytest.mark.parametrize("periodic", [False, True])
def test_deepmd(tmp_path, periodic):
    made = frames(5, periodic)
    write_deepmd(tmp_path / "water", made)
    data = read_frames(tmp_path / "water")
    assert data.format == "deepmd"
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame)
        assert (read.stress is None) == (not periodic)


def test_deepmd_several_systems_and_errors(tmp_path):
    made = frames(4)
    write_deepmd(tmp_path / "all/a", made[:2])
    write_deepmd(tmp_path / "all/b", made[2:], sets=1)
    data = read_frames(tmp_path / "all")
    assert [frame.energy for frame in data] == [frame.energy for frame in made]
    (tmp_path / "all/b/type.raw").write_text("1\n0\n2\n")
    data = read_frames(tmp_path / "all", on_bad="skip")
    assert [str(bad) for bad in data.bad] == [
        f"frame {k}: type 2 is not in type_map.raw" for k in (2, 3)
    ]
    (tmp_path / "all/a/type_map.raw").unlink()
    with pytest.raises(InputError, match=r"lacks type_map\.raw"):
        read_frames(tmp_path / "all")
    with pytest.raises(InputError, match="without a DeePMD system"):
        read_frames(tmp_path / "all/a/set.000")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("type.raw", "O H H\n", "type.raw must have the number of a type for each atom"),
        ("type.raw", "1 -1 0\n", "type.raw has the type -1; types count from 0"),
        ("coord.npy", np.zeros((4, 10)), r"coord.npy has shape \[4, 10\]; it must have one row"),
        (
            "coord.npy",
            np.zeros(()),
            r"coord.npy has shape \[\]; it must have one row per frame",
        ),
        ("type.raw", "1 0 0.5\n", "type.raw must have .* no whole numbers"),
        ("real_atom_types.npy", np.full((4, 3), 0.5), "real_atom_types.npy has no types"),
        ("energy.npy", np.zeros(()), r"energy has shape \[\], coord has 4 frames"),
        ("coord.npy", np.zeros((0, 9)), r"box has shape \[4, 9\], coord has 0 frames"),
        ("coord.npy", np.zeros((3, 9)), r"box has shape \[4, 9\], coord has 3 frames"),
        ("box.npy", np.zeros((4, 6)), r"box.npy has shape \[4, 6\]; .* with 9 numbers"),
        ("energy.npy", np.zeros(5), r"energy has shape \[5\], coord has 4 frames"),
        ("coord.npy", None, "set.000 has no coord.npy"),
        ("force.npy", np.zeros((4, 6)), r"frame 0: forces has shape"),
    ],
)
def test_deepmd_of_wrong_shape_is_one_clear_line(tmp_path, file, content, message):
    write_deepmd(tmp_path / "water", frames(4, periodic=True), sets=1)
    path = tmp_path / "water" / ("" if file == "type.raw" else "set.000") / file
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / "water")


def test_deepmd_of_one_frame_as_a_row(tmp_path):
    made = frames(1, periodic=True)
    write_deepmd(tmp_path / "water", made, sets=1)
    for file in (tmp_path / "water/set.000").glob("*.npy"):
        np.save(file, np.load(file)[0])
    np.savetxt(tmp_path / "water/type.raw", [1, 0, 0])  # as 1.000000e+00
    with (tmp_path / "water/type_map.raw").open("ab") as file:
        file.write("C\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"type_map\.raw: .* is not a chemical symbol"):
        read_frames(tmp_path / "water")
    (tmp_path / "water/type_map.raw").write_text("H\nO\n")
    (read,) = read_frames(tmp_path / "water")
    assert_same(read, made[0])


def test_deepmd_mixed_types(tmp_path):
    made = frames(2)
    write_deepmd(tmp_path / "mixed", made, sets=1)
    place = tmp_path / "mixed/set.000"
    np.save(place / "real_atom_types.npy", np.array([[1.0, 0, 0], [1, 0, -1]]))
    data = read_frames(tmp_path / "mixed")
    assert_same(data[0], made[0])
    assert data[1].numbers.tolist() == [8, 1]
    np.testing.assert_array_equal(data[1].forces, made[1].forces[:2])


def test_ase_database(tmp_path):
    made = frames(3, periodic=True)
    with ase.db.connect(tmp_path / "x.db") as database:
        for frame in made:
            database.write(atoms_of(frame, fixed=True))
    data = read_frames(tmp_path / "x.db")
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame)
        assert read.stress is not None
    (tmp_path / "bad.db").write_bytes(b"x" * 5000)
    with pytest.raises(InputError, match="not an ASE database"):
        read_frames(tmp_path / "bad.db")


def test_schnetpack_database(tmp_path):
    made = frames(1)
    with ase.db.connect(tmp_path / "x.db") as database:
        database.metadata = {
            "_distance_unit": "Ang",
            "_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/Ang"},
        }
        atoms = Atoms(NUMBERS, made[0].positions)
        labels = {"energy": np.array([made[0].energy]), "forces": made[0].forces}
        database.write(atoms, data=labels)
    data = read_frames(tmp_path / "x.db")
    assert_same(data[0], made[0], KCAL)
    assert data.units.force.origin == "file attribute"


DUMP = """ITEM: TIMESTEP
{step}
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 20
0 20
0 20
ITEM: ATOMS id type {element}x y z fx fy fz
{atoms}
"""


@pytest.mark.parametrize("unit", [None, "kcal/mol"])
def test_lammps_dumps_tell_their_elements_and_have_no_energies(tmp_path, unit):
    made = frames(2)
    path = tmp_path / "dump.lammpstrj"

    def write(element):
        path.write_text("".join(
            DUMP.format(
                step=k,
                element="element " if element else "",
                atoms="\n".join(
                    " ".join(map(str, [n + 1, kind, *([symbol] if element else []), *r, *f]))
                    for n, (kind, symbol, r, f) in enumerate(
                        zip([2, 1, 1], "OHH", frame.positions + 5, frame.forces, strict=True)
                    )
                ),
            )
            for k, frame in enumerate(made)
        ))  # fmt: skip

    write(element=False)
    with pytest.raises(InputError, match="does not tell its elements: write a text dump"):
        read_frames(path, require=["forces"])
    write(element=True)
    data = read_frames(path, require=["forces"], energy_unit=unit)
    factor = 1.0 if unit is None else KCAL
    for read, frame in zip(data, made, strict=True):
        assert read.energy is None
        assert read.numbers.tolist() == NUMBERS.tolist()
        np.testing.assert_allclose(read.forces, factor * frame.forces, rtol=1e-6)
    assert "taken to be in metal units unless others are declared" in data.summary()
    with pytest.raises(InputError, match="no energy"):
        read_frames(path)


def test_other_format_of_ase(tmp_path):
    made = frames(3, periodic=True)
    ase.io.write(tmp_path / "x.traj", [atoms_of(frame, fixed=True) for frame in made])
    data = read_frames(tmp_path / "x.traj")
    assert data.format == "traj"
    for read, frame in zip(data, made, strict=True):
        assert_same(read, frame)
    with pytest.raises(InputError, match="'kcal/mol' was declared; leave it out"):
        read_frames(tmp_path / "x.traj", energy_unit="kcal/mol")
    (tmp_path / "x.unknown").write_text("?")
    with pytest.raises(InputError, match="its format is not recognised"):
        read_frames(tmp_path / "x.unknown")
    with pytest.raises(InputError, match="format 'exyz' is unknown"):
        read_frames(tmp_path / "x.traj", format="exyz")
