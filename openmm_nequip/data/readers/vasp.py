"""VASP's OUTCAR and vasprun.xml, step by step, with a look at whether each step converged.

The energy is the free energy (TOTEN, ``e_fr_energy``), of which the forces are the derivative.
"""

import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from ase.data import atomic_numbers
from ase.io import ParseError
from ase.io.formats import open_with_compression
from ase.io.vasp_parsers.vasp_outcar_parsers import (
    OutcarChunkParser,
    OutcarHeaderParser,
    build_header,
)
from ase.units import GPa

from ...errors import InputError
from .labels import matrix
from .record import Convention, Keys, Record, Source

_STEP_END = "FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_ITERATION = re.compile(r"Iteration\s+\d+\(\s*(\d+)\)")
_NELM = re.compile(r"^\s*NELM\s*=\s*(\d+)\s*;")
_KBAR = -0.1 * GPa  # VASP's pressure in kbar to ASE's stress in eV/Å³
_CONVENTION = Convention("eV", "Å", reason="VASP is in eV and Å", fixed=True)


def read_outcar(path: Path, keys: Keys) -> Source:
    """Open an OUTCAR."""
    _refuse_keys(path, keys)
    return Source("vasp-outcar", _CONVENTION, _outcar_records(path))


def read_xml(path: Path, keys: Keys) -> Source:
    """Open a vasprun.xml."""
    _refuse_keys(path, keys)
    return Source("vasp-xml", _CONVENTION, _xml_records(path))


def _refuse_keys(path: Path, keys: Keys) -> None:
    if keys:
        raise InputError(f"{path}: VASP's output has no key names to choose; leave keys out")


def _outcar_records(path: Path) -> Iterator[Record]:
    with open_with_compression(path, "rb") as raw:
        file = io.TextIOWrapper(raw, errors="replace")
        try:
            header_lines = build_header(file)
            header = OutcarHeaderParser().build(header_lines)
        except (ParseError, ValueError, IndexError, KeyError) as error:
            raise InputError(f"{path}: its header is not that of an OUTCAR: {error}") from None
        max_iterations = next(
            (int(m[1]) for line in header_lines if (m := _NELM.match(line))), None
        )
        parser = OutcarChunkParser(header=header)
        # the header ends with the first iteration's line, which belongs to the first step
        lines = chain(header_lines[-1:], file)
        step: list[str] = []
        for line in lines:
            step.append(line)
            if _STEP_END in line:
                step.extend(islice(lines, 4))  # the energies
                yield _outcar_step(step, parser, max_iterations)
                step = []
        if any(_ITERATION.search(line) for line in step):
            yield Record(problem="the run ended before this step was finished")


def _outcar_step(
    lines: Sequence[str], parser: OutcarChunkParser, max_iterations: int | None
) -> Record:
    if any(f"ML {_STEP_END}" in line for line in lines):
        return Record(problem="a step of VASP's machine-learned force field, not a DFT result")
    iterations = [int(m[1]) for line in lines if (m := _ITERATION.search(line))]
    problem = _unconverged(iterations[-1] if iterations else 0, max_iterations)
    if any("EDIFF was not reached" in line for line in lines):
        problem = "the electronic steps did not converge (EDIFF was not reached)"
    if problem:
        return Record(problem=problem)
    try:
        atoms = parser.build(lines)
    except Exception as error:  # whatever the text made ASE's parser stumble over
        return Record(problem=f"cannot be parsed: {type(error).__name__}: {error}")
    results = atoms.calc.results
    labels = {"energy": results.get("free_energy"), "forces": results.get("forces")}
    if results.get("stress") is not None:
        labels["stress"] = matrix(results["stress"])
    return Record(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), labels)


def _unconverged(iterations: int, max_iterations: int | None) -> str | None:
    """VASP says 'EDIFF is reached' after the last allowed iteration too, so count them."""
    if max_iterations is not None and iterations >= max_iterations:
        return f"the electronic steps did not converge within NELM = {max_iterations}"
    return None


def _xml_records(path: Path) -> Iterator[Record]:
    numbers: np.ndarray | None = None
    max_iterations: int | None = None
    try:
        with open_with_compression(path, "rb") as file:
            for _, element in ElementTree.iterparse(file):
                if element.tag == "parameters":
                    nelm = element.find(".//i[@name='NELM']")
                    max_iterations = None if nelm is None else int(nelm.text or 0)
                elif element.tag == "atominfo":
                    numbers = _xml_numbers(element, path)
                elif element.tag == "calculation":
                    if numbers is None:
                        raise InputError(f"{path} has no atominfo before the first calculation")
                    yield _xml_step(element, numbers, max_iterations)
                    element.clear()  # long runs are large
    except ElementTree.ParseError as error:
        yield Record(problem=f"the XML is broken or incomplete from here on: {error}")


def _xml_numbers(atominfo: ElementTree.Element, path: Path) -> np.ndarray:
    rows = atominfo.findall("array[@name='atoms']/set/rc")
    symbols = [(row.findtext("c") or "").strip() for row in rows]
    unknown = [symbol for symbol in symbols if symbol not in atomic_numbers]
    if unknown:
        raise InputError(f"{path}: '{unknown[0]}' is not a chemical symbol")
    return np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)


def _xml_step(step: ElementTree.Element, numbers: np.ndarray, max_iterations: int | None) -> Record:
    iterations = len(step.findall("scstep"))
    problem = _unconverged(iterations, max_iterations)
    if iterations == 0:
        problem = "no electronic steps: not a DFT result"
    try:
        cell = _xml_array(step.find("structure/crystal/varray[@name='basis']"))
        fractional = _xml_array(step.find("structure/varray[@name='positions']"))
        forces = _xml_array(step.find("varray[@name='forces']"))
        stress = _xml_array(step.find("varray[@name='stress']"))
        energy = step.find("energy/i[@name='e_fr_energy']")
        if cell is None or fractional is None:
            raise ValueError("no structure")
        labels = {
            "energy": None if energy is None else float(energy.text or "nan"),
            "forces": forces,
            "stress": None if stress is None else stress * _KBAR,
        }
    except ValueError as error:  # '*****' where a number did not fit
        return Record(problem=problem or f"cannot be parsed: {error}")
    return Record(numbers, fractional @ cell, cell, (True, True, True), labels, problem=problem)


def _xml_array(element: ElementTree.Element | None) -> np.ndarray | None:
    if element is None:
        return None
    return np.array([[float(x) for x in (v.text or "").split()] for v in element.findall("v")])
