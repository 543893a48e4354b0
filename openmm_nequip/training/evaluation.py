"""Predictions for labelled frames and their errors: validation, test and `evaluate` alike."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from ..data.dataset import Targets, collate_batch
from ..data.graph import Graph
from ..potential import Output, Potential

_ATOMS_PER_BATCH = 256


class Predictions(NamedTuple):
    """What a potential says about labelled frames, and the labels; all on the CPU.

    Attributes
    ----------
    output, targets
        Of all frames joined, as for one batch.
    types
        Type index of each atom, shape ``[N]``.
    """

    output: Output
    targets: Targets
    types: Tensor


def evaluation_batches(
    dataset: Any, indices: Sequence[int] | None = None
) -> Iterator[tuple[Graph, Targets]]:
    """Yield all frames of a dataset (or those at `indices`) in batches of similar atom count."""
    items: list[tuple[Graph, Targets]] = []
    atoms = 0
    for index in range(len(dataset)) if indices is None else indices:
        item = dataset[index]
        if items and atoms + len(item[0].types) > _ATOMS_PER_BATCH:
            yield collate_batch(items)
            items, atoms = [], 0
        items.append(item)
        atoms += len(item[0].types)
    if items:
        yield collate_batch(items)


def predict(
    potential: Potential,
    batches: Iterable[tuple[Graph, Targets]],
    forces: bool = True,
    stress: bool = False,
) -> Predictions:
    """Evaluate a potential on batches; its training mode is left as it was."""
    was_training = potential.training
    potential.eval()
    device = potential.device
    outputs, targets, types = [], [], []
    for graph, target in batches:
        output = potential(graph.to(device), forces=forces, stress=stress)
        outputs.append(Output._make(None if t is None else t.detach().cpu() for t in output))
        targets.append(target.to("cpu"))
        types.append(graph.types.cpu())
    potential.train(was_training)
    return _join(outputs, targets, types)


def gather(predictions: Predictions) -> Predictions:
    """Join the predictions of all processes; every process gets the same."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return predictions
    parts: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(parts, predictions)
    parts = [part for part in parts if len(part.types)]
    return _join(*([getattr(part, name) for part in parts] for name in Predictions._fields))


def _join(outputs: list[Output], targets: list[Targets], types: list[Tensor]) -> Predictions:
    if not outputs:
        empty = torch.zeros(0, dtype=torch.float64)
        none = torch.zeros(0, dtype=torch.int64)
        return Predictions(
            Output(empty, empty, empty.view(0, 3), None, None),
            Targets(empty, empty.view(0, 3), empty.view(0, 3, 3), none),
            none,
        )
    return Predictions(
        Output._make(None if t[0] is None else torch.cat(t) for t in zip(*outputs, strict=True)),
        Targets._make(torch.cat(t) for t in zip(*targets, strict=True)),
        torch.cat(types),
    )


def errors(predictions: Predictions, elements: Sequence[str]) -> dict[str, Any]:
    """Return mean absolute and root mean square errors; what has no labels is left out.

    Parameters
    ----------
    predictions
        From `predict`.
    elements
        Chemical symbol of each type.

    Returns
    -------
    dict
        Keys name their units: ``energy_mae_meV``, ``energy_per_atom_rmse_meV``,
        ``forces_mae_meV_per_A``, ``forces_by_element``, ``stress_mae_meV_per_A3``, ...
    """
    output, targets, types = predictions
    result: dict[str, Any] = {"frames": len(targets.energy), "atoms": len(types)}
    energy = output.energy - targets.energy
    result |= _statistics("energy", "meV", energy)
    result |= _statistics("energy_per_atom", "meV", energy / targets.num_atoms)
    if output.forces is not None:
        forces = output.forces - targets.forces
        result |= _statistics("forces", "meV_per_A", forces)
        by_element = {
            symbol: _statistics("", "meV_per_A", forces[types == k])
            for k, symbol in enumerate(elements)
        }
        by_element = {symbol: values for symbol, values in by_element.items() if values}
        if by_element:
            result["forces_by_element"] = by_element
    if output.stress is not None:
        result |= _statistics("stress", "meV_per_A3", output.stress - targets.stress)
    return result


def describe(values: dict[str, Any]) -> str:
    """Put the errors of one set into a line."""
    parts = []
    for name, key, unit in (
        ("energy", "energy", "meV"),
        ("energy per atom", "energy_per_atom", "meV"),
        ("forces", "forces", "meV_per_A"),
        ("stress", "stress", "meV_per_A3"),
    ):
        if f"{key}_mae_{unit}" in values:
            shown = unit.replace("_per_", "/").replace("A3", "Å³").replace("A", "Å")
            mae, rmse = values[f"{key}_mae_{unit}"], values[f"{key}_rmse_{unit}"]
            parts.append(f"{name} MAE {mae:.2f}, RMSE {rmse:.2f} {shown}")
    return f"{'; '.join(parts)} ({values['frames']} frames)"


def _statistics(name: str, unit: str, error: Tensor) -> dict[str, float]:
    """MAE and RMSE over the labels that exist, in thousandths of the internal unit."""
    known = error[~error.isnan()].numpy() * 1000.0
    if known.size == 0:
        return {}
    prefix = f"{name}_" if name else ""
    return {
        f"{prefix}mae_{unit}": float(np.abs(known).mean()),
        f"{prefix}rmse_{unit}": float(np.sqrt(np.square(known).mean())),
    }
