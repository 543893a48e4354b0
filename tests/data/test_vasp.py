"""VASP: a vasprun.xml made here, and OUTCARs of the reference data."""

import gzip
import re
from dataclasses import replace

import ase.io
import ase.io.vasp
import numpy as np
import pytest

from openmm_nequip.data.readers import read_frames
from openmm_nequip.errors import InputError

from .make import assert_same, frames, numbers_text

EV_PER_A3_IN_KBAR = 1602.1766208  # ASE's own constant is of CODATA 2014


def rows(name, array):
    lines = "".join(f"<v>{' '.join(repr(float(x)) for x in row)}</v>" for row in array)
    return f'<varray name="{name}">{lines}</varray>'


def vasprun(made, iterations, nelm=8):
    atoms = "".join(f"<rc><c>{s} </c><c>1</c></rc>" for s in ("O", "H", "H"))
    text = (
        '<?xml version="1.0" encoding="ISO-8859-1"?><modeling>'
        '<kpoints><varray name="kpointlist"><v>0 0 0</v></varray>'
        '<varray name="weights"><v>1.0</v></varray></kpoints>'
        f'<parameters><separator><i type="int" name="NELM">{nelm}</i></separator></parameters>'
        f'<atominfo><array name="atoms"><set>{atoms}</set></array></atominfo>'
    )
    for frame, count in zip(made, iterations, strict=True):
        fractional = frame.positions @ np.linalg.inv(frame.cell)
        structure = (
            f"<structure><crystal>{rows('basis', frame.cell)}</crystal>"
            f"{rows('positions', fractional)}</structure>"
        )
        energies = "".join(
            f'<i name="{name}">{value!r}</i>'
            for name, value in (
                ("e_fr_energy", frame.energy),
                ("e_wo_entrp", frame.energy + 0.2),
                ("e_0_energy", frame.energy + 0.1),
            )
        )
        if frame is made[0]:
            text += structure.replace("<structure>", '<structure name="initialpos">')
        steps = f"<scstep><energy>{energies}</energy></scstep>" * count
        forces = rows("forces", frame.forces)
        stress = rows("stress", -frame.stress * EV_PER_A3_IN_KBAR)
        energy = f"<energy>{energies}</energy>"
        text += f"<calculation>{steps}{structure}{forces}{stress}{energy}</calculation>"
    return text + "</modeling>"


def test_vasprun(tmp_path):
    made = frames(3, periodic=True)
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun(made, [3, 7, 1]))
    data = read_frames(path)
    for read, frame in zip(data, made, strict=True):
        np.testing.assert_allclose(read.stress, frame.stress, rtol=1e-8)
        assert_same(read, replace(frame, stress=read.stress))
    assert data.units.energy.origin == "format convention"
    with pytest.raises(InputError, match="VASP is in eV and Å, but 'nm' was declared"):
        read_frames(path, length_unit="nm")


def test_vasprun_agrees_with_ase(tmp_path):
    made = frames(2, periodic=True)
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun(made, [3, 3]))
    for ours, theirs in zip(read_frames(path), ase.io.read(path, index=":"), strict=True):
        assert ours.numbers.tolist() == theirs.numbers.tolist()
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-12)
        np.testing.assert_allclose(ours.cell, theirs.cell.array, atol=1e-12)
        assert ours.energy == theirs.get_potential_energy(force_consistent=True)
        np.testing.assert_allclose(ours.forces, theirs.get_forces(), atol=1e-12)
        np.testing.assert_allclose(ours.stress, theirs.get_stress(voigt=False), rtol=1e-12)


def test_unconverged_and_unfinished_vasprun(tmp_path):
    made = frames(4, periodic=True)
    path = tmp_path / "vasprun.xml"
    text = vasprun(made, [3, 8, 0, 3])
    path.write_text(text[: text.rindex("</varray>")])
    with pytest.raises(InputError, match="frame 1: the electronic steps did not converge within"):
        read_frames(path)
    data = read_frames(path, on_bad="skip")
    assert len(data) == 1
    assert [bad.index for bad in data.bad] == [1, 2, 3]
    assert "NELM = 8" in data.bad[0].reason
    assert "not a DFT result" in data.bad[1].reason
    assert "broken or incomplete" in data.bad[2].reason


def outcar(made, iterations, nelm=8, learned=()):
    """Write an OUTCAR with what a reader needs; steps in `learned` are of VASP's own potential."""
    potcars = " POTCAR:    PAW_PBE O 08Apr2002\n POTCAR:    PAW_PBE H 15Jun2001\n" * 2
    text = (
        f"{potcars}   ions per type =               1   2\n"
        f"   NELM   =     {nelm};   NELMIN=  2; NELMDL= -5     # of ELM steps\n"
        "   ISPIN  =      1    spin polarized calculation?\n"
    )
    for k, (frame, count) in enumerate(zip(made, iterations, strict=True)):
        mark = "ML " if k in learned else ""
        for iteration in range(count):
            text += f"------- Iteration {k + 1:6d}({iteration + 1:4d})  -------\n"
        if count:
            text += "------- aborting loop because EDIFF is reached -------\n"
        xx, xy, xz, _, yy, yz, _, _, zz = (-frame.stress * EV_PER_A3_IN_KBAR).ravel()
        text += f"  in kB  {xx!s} {yy!s} {zz!s} {xy!s} {yz!s} {xz!s}\n"
        text += "      direct lattice vectors                 reciprocal lattice vectors\n"
        text += "".join(f"  {numbers_text(row)}  0 0 0\n" for row in frame.cell)
        text += f" POSITION                        TOTAL-FORCE (eV/Angst) {mark}\n ------\n"
        for row in np.hstack([frame.positions, frame.forces]):
            text += f"  {numbers_text(row)}\n"
        text += (
            f"  {mark}FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ------\n"
            f"  free  energy   {mark}TOTEN  =   {frame.energy!r} eV\n\n"
            f"  energy  without entropy=  -1.0  energy(sigma->0) =   {frame.energy + 0.1!r}\n"
        )
    return text


def test_outcar_made_here(tmp_path):
    made = frames(3, periodic=True)
    path = tmp_path / "OUTCAR"
    path.write_text(outcar(made, [3, 7, 1]))
    data = read_frames(path, require=("energy", "forces", "stress"))
    assert data.format == "vasp-outcar"
    for read, frame in zip(data, made, strict=True):
        np.testing.assert_allclose(read.stress, frame.stress, rtol=1e-8)
        assert_same(read, replace(frame, stress=read.stress))


def test_compressed_output(tmp_path):
    names = {"OUTCAR": test_outcar_made_here, "vasprun.xml": test_vasprun}
    for name, make in names.items():
        make(tmp_path)
        plain = tmp_path / name
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        there, here = read_frames(plain), read_frames(packed)
        assert len(here) == len(there)
        assert all(a.energy == b.energy for a, b in zip(here, there, strict=True))


def test_bad_steps_of_an_outcar_made_here(tmp_path):
    made = frames(5, periodic=True)
    path = tmp_path / "OUTCAR"
    text = outcar(made, [8, 3, 0, 3, 3], learned=(2,))
    text = text.replace(repr(float(made[3].forces[1, 1])), "********")
    path.write_text(text[: text.rindex("POSITION")])
    with pytest.raises(InputError, match="frame 0: the electronic steps did not converge within"):
        read_frames(path)
    data = read_frames(path, on_bad="skip")
    assert [frame.energy for frame in data] == [made[1].energy]
    assert [bad.index for bad in data.bad] == [0, 2, 3, 4]
    for bad, reason in zip(
        data.bad, ("NELM = 8", "machine-learned", "cannot be parsed", "the run ended"), strict=True
    ):
        assert reason in bad.reason
    path.write_text(
        outcar(made[:1], [5]).replace("EDIFF is reached", "EDIFF was not reached (unconverged)")
    )
    with pytest.raises(InputError, match="EDIFF was not reached"):
        read_frames(path)


def test_not_an_outcar(tmp_path):
    (tmp_path / "OUTCAR").write_text("nothing of use\n")
    with pytest.raises(InputError, match="its header is not that of an OUTCAR"):
        read_frames(tmp_path / "OUTCAR")


def test_outcar(reference_data, tmp_path):
    path = reference_data / "vasp/OUTCAR.h2o.md.10"
    data = read_frames(path, require=("energy", "forces", "stress"))
    assert len(data) == 10
    assert data.format == "vasp-outcar"
    frame = data[3]
    assert frame.energy == -28.42963138
    with path.open() as text:
        theirs = list(ase.io.vasp.read_vasp_out(text, index=slice(None)))
    np.testing.assert_array_equal(frame.numbers, theirs[3].numbers)
    np.testing.assert_array_equal(frame.forces, theirs[3].calc.results["forces"])
    np.testing.assert_array_equal(frame.positions, theirs[3].positions)
    (tmp_path / "calculation.txt").symlink_to(path)
    assert len(read_frames(tmp_path / "calculation.txt", format="vasp-outcar")) == 10
    assert read_frames(path, format="vasp-out").format == "vasp-outcar"
    stress = theirs[3].calc.results["stress"]
    np.testing.assert_array_equal(frame.stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], stress)


def test_energy_is_that_of_the_forces(reference_data):
    """With smearing the free energy and the extrapolated one differ."""
    data = read_frames(reference_data / "vasp/OUTCAR.ch4.unconverged", on_bad="skip")
    assert data[0].energy == -23.94708651


def test_unconverged_outcar(reference_data):
    path = reference_data / "vasp/OUTCAR.ch4.unconverged"
    with pytest.raises(InputError, match="frame 0: the electronic steps did not converge"):
        read_frames(path)
    data = read_frames(path, on_bad="skip")
    assert [bad.index for bad in data.bad] == [0, 1]
    assert data[0].source.endswith(":2")


def test_machine_learned_steps_are_not_used(reference_data):
    data = read_frames(reference_data / "vasp/OUTCAR.ch4.ml_broken", on_bad="skip")
    energies = [frame.energy for frame in data]
    assert energies == [-24.12709802, -24.12724275, -24.12737148, -24.12697674]
    assert len(data.bad) == 9
    assert all("machine-learned" in bad.reason for bad in data.bad)


def test_killed_run(reference_data, tmp_path):
    text = (reference_data / "vasp/OUTCAR.h2o.md.10").read_text(errors="replace")
    path = tmp_path / "OUTCAR"
    path.write_text(re.split(r"Iteration +4\( +3\)", text)[0])
    data = read_frames(path, on_bad="skip")
    assert len(data) == 3
    assert [str(bad) for bad in data.bad] == [
        "frame 3: the run ended before this step was finished"
    ]
