"""Loss, weights, averages and schedules against hand calculations."""

import math

import pytest
import torch

from openmm_nequip.data.dataset import Targets
from openmm_nequip.potential import Output
from openmm_nequip.training.config import LossWeights, TrainingConfig
from openmm_nequip.training.ema import EMA
from openmm_nequip.training.evaluation import Predictions, errors
from openmm_nequip.training.loss import Loss
from openmm_nequip.training.schedule import Schedule

NAN = float("nan")


def batch() -> tuple[Output, Targets]:
    """Two structures, of 2 and 1 atoms; the second has no energy, the third atom no forces."""
    output = Output(
        energy=torch.tensor([3.0, 7.0], dtype=torch.float64, requires_grad=True),
        atomic_energies=torch.zeros(3),
        forces=torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [5.0, 5.0, 5.0]], dtype=torch.float64),
        stress=torch.full((2, 3, 3), 0.25, dtype=torch.float64),
        virial=None,
    )
    stress = torch.full((2, 3, 3), NAN, dtype=torch.float64)
    stress[0] = 0.15
    targets = Targets(
        energy=torch.tensor([2.0, NAN], dtype=torch.float64),
        forces=torch.tensor([[0.0, 0, 0], [0, 0, 0], [NAN, NAN, NAN]], dtype=torch.float64),
        stress=stress,
        num_atoms=torch.tensor([2, 1]),
    )
    return output, targets


def loss_of(config: TrainingConfig, **kinds: bool) -> float:
    loss = Loss(config, **kinds)
    terms = loss.terms(*batch())
    return loss.total(terms.penalty, terms.labels).item()


def test_mse_is_the_weighted_sum_of_means_over_labels():
    weights = LossWeights(energy=3.0, forces=5.0, stress=7.0)
    config = TrainingConfig(loss="mse", loss_weights=weights)
    energy = (1.0 / 2) ** 2
    forces = (1.0 + 4.0) / 6
    stress = 0.1**2
    expected = 3 * energy + 5 * forces + 7 * stress
    assert loss_of(config, has_stress=True) == pytest.approx(expected, rel=1e-12)


def test_huber_is_quadratic_below_delta_and_linear_above():
    config = TrainingConfig(
        loss="huber",
        huber_delta=1.5,
        loss_weights=LossWeights(energy=1.0, forces=1.0, stress=0.0),
    )
    expected = 0.5 * 0.5**2 + (0.5 * 1.0 + 1.5 * (2.0 - 0.75)) / 6
    assert loss_of(config) == pytest.approx(expected, rel=1e-12)


def test_missing_labels_have_no_gradient():
    output, targets = batch()
    loss = Loss(TrainingConfig(loss="mse"))
    terms = loss.terms(output, targets)
    loss.total(terms.penalty, terms.labels).backward()
    assert output.energy.grad.tolist() == [2 * 0.5 / 2, 0.0]


def test_a_batch_in_parts_adds_up():
    loss = Loss(TrainingConfig())
    output, targets = batch()
    whole = loss.terms(output, targets)
    first = loss.terms(
        output._replace(energy=output.energy[:1], forces=output.forces[:2], stress=None),
        Targets(targets.energy[:1], targets.forces[:2], targets.stress[:1], targets.num_atoms[:1]),
    )
    second = loss.terms(
        output._replace(energy=output.energy[1:], forces=output.forces[2:], stress=None),
        Targets(targets.energy[1:], targets.forces[2:], targets.stress[1:], targets.num_atoms[1:]),
    )
    for part in range(2):  # the stress is only in the whole
        for a, b, c in zip(first, second, whole, strict=True):
            assert (a[part] + b[part]).item() == pytest.approx(c[part].item(), rel=1e-12)


def test_errors_by_hand():
    output, targets = batch()
    output = Output(*(None if t is None else t.detach() for t in output))
    found = errors(Predictions(output, targets, torch.tensor([0, 1, 1])), ["H", "O"])
    assert found["frames"] == 2
    assert found["energy_mae_meV"] == pytest.approx(1000.0)
    assert found["energy_per_atom_mae_meV"] == pytest.approx(500.0)
    assert found["forces_mae_meV_per_A"] == pytest.approx(3000 / 6)
    assert found["forces_rmse_meV_per_A"] == pytest.approx(1000 * math.sqrt(5 / 6))
    assert found["forces_by_element"]["H"]["mae_meV_per_A"] == pytest.approx(1000 / 3)
    assert found["forces_by_element"]["O"]["rmse_meV_per_A"] == pytest.approx(1000 * 2 / 3**0.5)
    assert found["stress_mae_meV_per_A3"] == pytest.approx(100.0)


def test_average_follows_the_recursion_and_is_applied_for_a_while():
    module = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(module, decay=0.3)
    expected = module.weight.item()
    for n, value in enumerate([1.0, 2.0, 4.0], start=1):
        torch.nn.init.constant_(module.weight, value)
        ema.update()
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    with ema.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert module.weight.item() == 4.0

    other = EMA(module, decay=0.3)
    other.load_state_dict(ema.state_dict())
    assert torch.equal(other.average[0], ema.average[0])
    assert other.num_updates == 3


def rates(steps: int, max_epochs: int = 10, elapsed: float = 0.0, **keys: object) -> list[float]:
    schedule = Schedule(TrainingConfig(learning_rate=1.0, **keys), 4, max_epochs)
    return [schedule.learning_rate(step, elapsed) for step in range(steps)]


def test_cosine_goes_from_the_full_rate_to_the_smallest():
    found = rates(41, min_learning_rate=0.1)
    assert found[0] == 1.0
    assert found[20] == pytest.approx(0.55)
    assert found[40] == pytest.approx(0.1)
    assert rates(1, elapsed=30.0, max_time="1min", min_learning_rate=0.1)[0] == pytest.approx(0.55)


def test_step_and_constant_and_warm_up():
    found = rates(16, schedule="step", schedule_factor=0.5, schedule_step_epochs=2)
    assert found == [1.0] * 8 + [0.5] * 8
    warm = rates(9, schedule="constant", warmup_epochs=2)
    assert warm == pytest.approx([k / 9 for k in range(1, 9)] + [1.0])


def test_plateau_waits_then_reduces_and_ends():
    config = TrainingConfig(
        schedule="plateau",
        learning_rate=1.0,
        schedule_patience=1,
        schedule_factor=0.1,
        min_learning_rate=0.05,
    )
    schedule = Schedule(config, 4, 100)
    seen = []
    for loss in [3.0, 2.0, 2.5, 2.1, 1.9, 2.0, 2.0]:
        schedule.validated(loss)
        seen.append(schedule.learning_rate(0))
    assert seen == pytest.approx([1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.01])
    assert schedule.exhausted

    other = Schedule(config, 4, 100)
    other.load_state_dict(schedule.state_dict())
    assert other.learning_rate(0) == schedule.learning_rate(0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1.5min", 90), ("2h", 7200), ("1d", 86400), ("01:30:05", 5405), ("40", 40)],
)
def test_durations(text, seconds):
    assert TrainingConfig(max_time=text).max_time == seconds
