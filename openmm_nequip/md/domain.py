"""Whether a run is still where its potential has been trained."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
from openmm import app

from ..data.neighbors import pair_distances
from ..domain import Domain, pair_name, read_domain
from ..modelfile import DEFAULT_MODEL, find_model, read_header

CONTACT = 0.9  # of the smallest distance in training: nearer is outside
CROWDED, LONELY = 1.25, 0.75  # times the largest and the smallest number of neighbours
FORCE = 2.0  # times the largest force in training: more is outside


class Departure(NamedTuple):
    """That a run has left the domain, in words.

    Its kind is ``'contact'`` (atoms too close), ``'pair'`` (elements that were never together),
    ``'neighbors'`` (too many or too few, as after the loss of an atom) or ``'force'``.
    """

    kind: str
    message: str


class DomainCheck:
    """Finds what did not occur in training, once for each kind of departure.

    Parameters
    ----------
    domain
        Of the potential.
    r_max
        Cutoff of the potential, Å.
    topology
        Of the System.
    atoms
        Indices of those that the potential describes; `None` is all.
    """

    def __init__(
        self,
        domain: Domain,
        r_max: float,
        topology: app.Topology,
        atoms: Sequence[int] | None = None,
    ):
        self.domain, self.r_max = domain, r_max
        members = list(topology.atoms())
        #: rows of the arrays that belong to the potential
        self.rows = np.arange(len(members)) if atoms is None else np.array(atoms)
        self.atoms = [members[k] for k in self.rows]
        symbols = [atom.element.symbol for atom in self.atoms]
        present, self.types = np.unique(symbols, return_inverse=True)
        #: by kind, the distance of each pair of types below which two atoms are outside, Å
        self.limits: dict[str, np.ndarray] = {}
        if domain.min_distances is not None:
            contact, pair = np.zeros((2, len(present), len(present)))
            for a, b in combinations_with_replacement(range(len(present)), 2):
                known = domain.min_distances.get(pair_name(present[a], present[b]))
                if known is None:
                    pair[a, b] = pair[b, a] = r_max
                else:
                    contact[a, b] = contact[b, a] = CONTACT * known
            self.limits = {"contact": contact, "pair": pair}
        #: numbers of neighbours of each atom between which it is inside, [2, N]
        self.range: np.ndarray | None = None
        if domain.num_neighbors is not None:
            known_range = [domain.num_neighbors.get(symbol, (0, np.inf)) for symbol in symbols]
            self.range = np.array(known_range).T * [[LONELY], [CROWDED]]
        self.needs_forces = domain.max_force is not None

    def __call__(
        self, positions: np.ndarray, box: np.ndarray | None, forces: np.ndarray | None
    ) -> list[Departure]:
        """Return what is outside for the first time.

        Parameters
        ----------
        positions
            Å, shape ``[N, 3]``.
        box
            Lattice vectors as rows, Å, shape ``[3, 3]``; `None` for no box.
        forces
            Of the potential, eV/Å, shape ``[N, 3]``; `None` unless `needs_forces`.
        """
        found: list[Departure] = []
        positions = positions[self.rows]
        reach = max((float(limit.max()) for limit in self.limits.values()), default=0.0)
        if self.range is not None:
            reach = self.r_max
        if reach > 0:
            i, j, distances = pair_distances(positions, box, (box is not None,) * 3, reach)
            found += self._near(i, j, distances)
            found += self._crowded(np.bincount(i, minlength=len(self.atoms)))
        if forces is not None:
            found += self._strong(forces[self.rows])
        self.forget(departure.kind for departure in found)
        return found

    def forget(self, kinds: Iterable[str]) -> None:
        """Stop looking for these kinds."""
        for kind in kinds:
            self.limits.pop(kind, None)
            self.needs_forces &= kind != "force"
            if kind == "neighbors":
                self.range = None

    def _near(self, i: np.ndarray, j: np.ndarray, distances: np.ndarray) -> Iterator[Departure]:
        for kind, limit in self.limits.items():
            excess = limit[self.types[i], self.types[j]] - distances
            if not (excess > 0).any():
                continue
            worst = int(np.argmax(excess))
            first, second = self.atoms[i[worst]], self.atoms[j[worst]]
            pair = pair_name(first.element.symbol, second.element.symbol)
            where = f"{atom_name(first)} and {atom_name(second)} are {distances[worst]:.2f} Å apart"
            if kind == "pair":
                reason = f"no {pair} pair within the cutoff of {self.r_max:g} Å occurred"
            else:
                assert self.domain.min_distances is not None
                reason = f"{pair} came no closer than {self.domain.min_distances[pair]:.2f} Å"
            yield Departure(kind, f"{where}; {reason} in the potential's training data")

    def _crowded(self, counts: np.ndarray) -> Iterator[Departure]:
        if self.range is None:
            return
        outside = np.maximum(self.range[0] - counts, counts - self.range[1])
        worst = int(np.argmax(outside))
        if outside[worst] > 0:
            atom = self.atoms[worst]
            assert self.domain.num_neighbors is not None
            fewest, most = self.domain.num_neighbors[atom.element.symbol]
            known = f"{fewest} to {most}" if fewest < most else f"{fewest}"
            yield Departure(
                "neighbors",
                f"{atom_name(atom)} has {counts[worst]} neighbours within {self.r_max:g} Å; "
                f"{atom.element.symbol} had {known} in the potential's training data",
            )

    def _strong(self, forces: np.ndarray) -> Iterator[Departure]:
        assert self.domain.max_force is not None
        sizes = np.linalg.norm(forces, axis=1)
        worst = int(np.argmax(sizes))
        if sizes[worst] > FORCE * self.domain.max_force:
            yield Departure(
                "force",
                f"the force on {atom_name(self.atoms[worst])} is {sizes[worst]:.1f} eV/Å; the "
                f"largest in the potential's training data was {self.domain.max_force:.1f} eV/Å",
            )


def domain_and_cutoff(model: str | None) -> tuple[Domain, float]:
    """Return domain and cutoff (Å) of a model file or a bundled potential, `None`: the default."""
    header = read_header(find_model(model or DEFAULT_MODEL))
    domain = read_domain(header["config"]["elements"], header["metadata"])
    return domain, float(header["config"]["r_max"])


def atom_name(atom: app.topology.Atom) -> str:
    """Return what a user knows an atom by: index, name and residue."""
    return f"atom {atom.index} ({atom.name} of residue {atom.residue.name} {atom.residue.id})"
