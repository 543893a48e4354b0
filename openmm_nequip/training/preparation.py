"""The potential to train: a new one fitted to the figures of the data, or one trained further."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .. import modelfile
from ..architectures import Architecture
from ..architectures.nequip import PRESETS
from ..config import parse_config
from ..data.statistics import Statistics, compute_statistics, least_squares
from ..domain import Domain, read_domain
from ..errors import InputError
from ..kernels.engine import choose_engine
from ..potential import Potential
from .config import TrainConfig
from .evaluation import evaluation_batches, predict
from .sets import Sets, make_dataset, some_frames

#: As accurate as the radial network at every edge, and faster (docs/train.md).
RADIAL = {"radial": "spline", "radial_intervals": 64}
#: Forces smaller than this, over those of all elements and in eV/Å, are noise around symmetry.
_SMALLEST_SHARE, _SMALLEST_FORCE = 0.01, 1e-4
_ENOUGH_FRAMES = 1000  # to find one number for each element


def network(given: dict[str, Any]) -> dict[str, Any]:
    """Return the shape of a new network: what is given of it, else what docs/own-data.md advises.

    Half as many channels for l + 1 as for l, from 64 scalars down to 16.
    """
    features = given.get("num_features")
    l_max = given.get("l_max", len(features) - 1 if isinstance(features, list) else 2)
    automatic = {
        "num_layers": 4,
        "l_max": l_max,
        "parity": False,
        "num_features": [max(64 >> l, 16) for l in range(l_max + 1)],  # noqa: E741
    }
    return {**automatic, **given}


class Preparation:
    """What the configuration says about the potential before the data is read.

    Attributes
    ----------
    start : Potential or None
        The potential to be fine-tuned.
    elements : list of str or None
        Chemical symbols of the types, if the configuration settles them.
    r_max : float
        Cutoff, Å.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        self.start: Potential | None = None
        self.given = _given(config)
        if config.training.fine_tune_from is not None:
            self.start = modelfile.load_file(modelfile.find_model(config.training.fine_tune_from))
            if len(set(self.start.elements)) < len(self.start.elements):
                raise InputError("cannot fine-tune a potential with several types for one element")
            self.elements: list[str] | None = self.start.elements
            self.r_max = self.start.r_max
        else:
            self.elements = self.given.get("elements") or self.given.get("type_names")
            default = Architecture.model_fields["r_max"].default
            self.r_max = float(self.given.get("r_max", default))

    def build(self, sets: Sets) -> tuple[Potential, Statistics]:
        """Return the potential with its start weights, and the figures that went into it.

        Raises
        ------
        InputError
            Configuration or start potential and the data do not go together.
        """
        if self.start is not None:
            return self._fine_tuned(sets)
        architecture, statistics = self._new(sets)
        torch.manual_seed(self.config.seed)
        domain = domain_of(statistics, self.config.charge, self.config.multiplicity)
        _check_electrons(domain, sets)
        metadata = {
            "reference_energies": statistics.reference_energies,
            "reference_source": statistics.reference_source,
            "domain": domain.model_dump(mode="json", exclude_none=True),
        }
        return Potential(architecture, metadata), statistics

    def _new(self, sets: Sets) -> tuple[Architecture, Statistics]:
        in_data = sets.elements()
        elements = list(self.elements or in_data)
        missing = [symbol for symbol in in_data if symbol not in elements]
        if missing:
            raise InputError(f"model.type_names lacks {', '.join(missing)}, which is in the data")
        if len(set(elements)) < len(elements):
            raise InputError("training needs one atom type per element: model.elements repeats one")
        names = list(self.given.get("type_names") or elements)
        if len(names) != len(elements):
            raise InputError("model.elements must give one symbol for each of model.type_names")
        statistics = compute_statistics(
            sets.train,
            elements,
            self.r_max,
            per_edge_type_cutoff=_by_element(
                self.given.get("per_edge_type_cutoff"), dict(zip(names, elements, strict=True))
            ),
            reference_energies=self._references(elements, names, sets),
            isolated_atoms=sets.isolated,
        )
        _check_elements(sets, set(statistics.avg_num_neighbors_per_type))
        if not statistics.min_distances:
            raise InputError(
                f"no two atoms of the training frames are within model.r_max of {self.r_max:g} Å: "
                "it and the positions are in Å"
            )
        scales, notes = _energy_scales(statistics, elements)
        statistics = replace(statistics, notes=[*statistics.notes, *notes])
        automatic = {
            **RADIAL,
            "type_names": names,
            "elements": elements,
            "avg_num_neighbors": statistics.avg_num_neighbors or 1.0,
            "per_type_energy_scales": {
                name: scales[element] for name, element in zip(names, elements, strict=True)
            },
            "per_type_energy_shifts": {
                name: statistics.reference_energies[element]
                for name, element in zip(names, elements, strict=True)
            },
        }
        values = {**automatic, **network(self.given)}
        architecture = parse_config(Architecture, values, "model section")
        return architecture, statistics

    def _fine_tuned(self, sets: Sets) -> tuple[Potential, Statistics]:
        potential, config = self.start, self.config
        assert potential is not None
        missing = [symbol for symbol in sets.elements() if symbol not in potential.elements]
        if missing:
            raise InputError(
                f"cannot fine-tune {config.training.fine_tune_from} on {', '.join(missing)}: it "
                f"knows {', '.join(potential.elements)} only; train a new potential instead"
            )
        shifts_move = config.training.fine_tune_shifts == "estimate" or (
            config.training.fine_tune_shifts is None
            and any(frame.energy is not None for frame in sets.train)
        )
        if "model_dtype" in self.given:
            potential = potential.with_dtype(self.given["model_dtype"])
        for key, value in self.given.items():
            own = getattr(potential.config, key)
            if own != value and not (shifts_move and key == "per_type_energy_shifts"):
                raise InputError(
                    f"model.{key} cannot change in fine-tuning: the file has {own}; remove the key"
                )
        data = config.data
        if isinstance(data.reference_energies, dict) or data.isolated_atoms_file is not None:
            raise InputError(
                "data.reference_energies and data.isolated_atoms_file are for new potentials: "
                "fine-tuning measures by how much the energy shifts have to move; remove them"
            )
        own_shifts = potential.get_parameter("network.shifts")
        statistics = compute_statistics(
            sets.train,
            potential.elements,
            potential.r_max,
            reference_energies=dict(zip(potential.elements, own_shifts.tolist(), strict=True)),
        )
        _check_elements(sets, set(potential.elements))
        references = potential.metadata.get("reference_energies", {})
        source = potential.metadata.get("reference_source")
        if shifts_move:
            trained = set(statistics.avg_num_neighbors_per_type)
            change, notes = _energy_change(potential, sets, trained)
            if untrained := sorted((sets.elements_of("val") | sets.elements_of("test")) - trained):
                notes.append(
                    f"{', '.join(untrained)} is in no training frame: energies of validation and "
                    "test frames with it are partly of the level before"
                )
            statistics = replace(statistics, notes=[*statistics.notes, *notes])
            with torch.no_grad():
                own_shifts.add_(potential.config.per_type(change))
            shifts = dict(zip(potential.type_names, own_shifts.tolist(), strict=True))
            potential.config = potential.config.model_copy(
                update={"per_type_energy_shifts": shifts}
            )
            references = dict(zip(potential.elements, own_shifts.tolist(), strict=True))
            source = "least squares"
        known = read_domain(potential.elements, potential.metadata)
        added = domain_of(statistics, config.charge, config.multiplicity)
        domain = known.extended(added)
        for key in {"charge", "multiplicity"} & config.model_fields_set:
            domain = domain.model_copy(update={key: getattr(config, key)})  # null: any
        _check_electrons(domain, sets)
        if shifts_move:  # energies of the other elements are of the level before
            domain = domain.limited(added.elements)
        potential.metadata = {
            "reference_energies": references,
            "reference_source": source,
            "domain": domain.model_dump(mode="json", exclude_none=True),
        }
        return potential, statistics

    def _references(self, elements: Sequence[str], names: Sequence[str], sets: Sets) -> Any:
        """The request for reference energies in the words of `compute_statistics`."""
        request = self.config.data.reference_energies
        shifts = self.given.get("per_type_energy_shifts")
        if shifts is not None:  # they are the energies of single atoms
            return {
                element: shifts.get(name, 0.0) if isinstance(shifts, dict) else shifts
                for name, element in zip(names, elements, strict=True)
            }
        if request == "auto" and self.config.data.isolated_atoms_file is not None:
            request = "isolated_atoms"
        if isinstance(request, dict):
            in_data = sets.elements()
            return {**{e: 0.0 for e in elements if e not in in_data}, **request}
        return {"isolated_atoms": "isolated", "least_squares": "least-squares"}.get(
            request, request
        )


def domain_of(statistics: Statistics, charge: int | None, multiplicity: int | None) -> Domain:
    """Return the domain of a potential that was trained on data with these figures."""
    return Domain(
        elements=list(statistics.avg_num_neighbors_per_type),
        charge=charge,
        multiplicity=multiplicity,
        min_distances=statistics.min_distances,
        num_neighbors={e: (a, b) for e, (a, b) in statistics.num_neighbors_range.items()},
        max_force=statistics.max_force,
    )


def _energy_scales(
    statistics: Statistics, elements: Sequence[str]
) -> tuple[dict[str, float], list[str]]:
    """Return the root mean square force of each element, or of all where symmetry makes it zero.

    And a note where there are no forces that could tell.
    """
    whole = statistics.force_rms
    if whole is None or whole < _SMALLEST_FORCE:
        note = [] if whole is None else ["the forces are zero: energy scales are 1 eV"]
        return dict.fromkeys(elements, 1.0), note
    own = statistics.force_rms_per_type
    scales = {e: rms if (rms := own.get(e, 0.0)) > _SMALLEST_SHARE * whole else whole
              for e in elements}  # fmt: skip
    return scales, []


def _check_elements(sets: Sets, trained: set[str]) -> None:
    """Check that the network knows every element that it is tested on.

    Raises
    ------
    InputError
        An element is in validation or test frames only.
    """
    for name, words in (("val", "validation"), ("test", "test")):
        if untrained := sorted(sets.elements_of(name) - trained):
            raise InputError(
                f"{', '.join(untrained)} is in {words} frames and in no training frame, so nothing "
                "can be learnt of it: take other frames (seed, data.split_file), or leave those out"
            )


def _check_electrons(domain: Domain, sets: Sets) -> None:
    """Check that the training frames can have the charge and multiplicity of the potential.

    Raises
    ------
    InputError
        The number of electrons of one does not fit; single atoms do not count.
    """
    if domain.charge is None:  # nothing is known; large sets would be read for it
        return
    for frame in sets.train:
        if len(frame) == 1:
            continue
        try:
            domain.check(frame.numbers)
        except InputError as error:
            raise InputError(
                f"{frame.source}: {error}; or give the frames' own charge=... and "
                "multiplicity=..., or multiplicity=null where they differ"
            ) from None


def _given(config: TrainConfig) -> dict[str, Any]:
    """Return the keys of the `model` section that have a value, the preset's included."""
    values = config.model.model_dump(exclude_unset=True)
    size = values.pop("size", None)
    given = {key: value for key, value in values.items() if value is not None}
    return {**PRESETS[size], **given} if size else given


def _by_element(cutoffs: Any, element_of: dict[str, str]) -> Any:
    if not isinstance(cutoffs, dict):
        return cutoffs
    return {
        element_of.get(name, name): _by_element(value, element_of)
        for name, value in cutoffs.items()
    }


def _energy_change(
    potential: Potential, sets: Sets, trained: set[str]
) -> tuple[dict[str, float], list[str]]:
    """Fit, by type, what the data's energies have over those of the potential; with notes."""
    frames = some_frames(sets.train, _ENOUGH_FRAMES, trained)
    if not len(frames):
        raise InputError("fine_tune_shifts: estimate needs energies in the training data")
    dataset = make_dataset(frames, potential.elements, potential.r_max, keep=False)
    potential = potential.with_engine(choose_engine("auto", "cpu"))
    compositions, residuals = [], []
    for graph, targets in evaluation_batches(dataset):
        output, _, _ = predict(potential, [(graph, targets)], forces=False)
        counts = np.zeros((len(targets.num_atoms), len(potential.elements)))
        np.add.at(counts, (graph.batch.numpy(), graph.types.numpy()), 1.0)
        compositions.append(counts)
        residuals.append((targets.energy - output.energy).numpy())
    found, _, notes = least_squares(
        np.concatenate(compositions), np.concatenate(residuals), potential.elements
    )
    return {
        name: found[element]
        for name, element in zip(potential.type_names, potential.elements, strict=True)
    }, notes
