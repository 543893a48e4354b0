"""Official NequIP models give the same energies, forces and stress here."""

import random

import numpy as np
import pytest
import torch

pytest.importorskip("nequip")

from openmm_nequip import InputError, load
from openmm_nequip.interop.nequip import from_checkpoint, from_model

from . import upstream


@pytest.mark.filterwarnings("ignore:Found `per_type_energy_s")
@pytest.mark.parametrize("name", upstream.VARIANTS)
def test_energies_and_forces_agree(name):
    model = upstream.build(**upstream.VARIANTS[name])
    potential = from_model(model)
    for what, frame in upstream.structures().items():
        expected = upstream.evaluate(model, frame)
        assert np.abs(expected["forces"]).max() > 1e-3
        output = potential(potential.to_graph(frame), stress="stress" in expected)
        assert abs(output.energy.item() - expected["energy"]) < 1e-9, what
        assert np.abs(output.atomic_energies.numpy() - expected["energies"]).max() < 1e-9, what
        assert np.abs(output.forces.numpy() - expected["forces"]).max() < 1e-8, what
        if "stress" in expected:
            assert np.abs(output.stress[0].numpy() - expected["stress"]).max() < 1e-9


@pytest.mark.parametrize("name", ["l2-no-parity", "edge-cutoffs"])
def test_fused_engine_agrees(name):
    """To rounding in float64, where it is exact; within splines and rounding in float32."""
    model = upstream.build(**upstream.VARIANTS[name])
    exact = from_model(model).with_engine("fused")
    splines = exact.with_dtype("float32")
    for what, frame in upstream.structures().items():
        expected = upstream.evaluate(model, frame)
        graph = exact.to_graph(frame)
        output = exact(graph)
        assert abs(output.energy.item() - expected["energy"]) < 1e-9, what
        assert np.abs(output.forces.numpy() - expected["forces"]).max() < 1e-8, what
        difference = splines(graph).forces.numpy() - expected["forces"]
        assert np.linalg.norm(difference) < 3e-5 * np.linalg.norm(expected["forces"]), what


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype):
    model = upstream.build(dtype=dtype, l_max=2, num_features=4)
    potential = from_model(model)
    assert potential.dtype == getattr(torch, dtype)
    frame = upstream.structures()["triclinic"]
    output = potential(potential.to_graph(frame))
    expected = upstream.evaluate(model, frame)["forces"]
    limit = 1e-8 if dtype == "float64" else 1e-5 * np.abs(expected).max()
    assert np.abs(output.forces.numpy() - expected).max() < limit


def test_preset():
    model = upstream.build(
        builder="PresetNequIPGNNModel", preset="S", num_layers=2, num_features=[128, 64]
    )
    potential = from_model(model)
    assert potential.config.num_features == [128, 64]
    assert potential.config.type_embed_num_features == 32
    frame = upstream.structures()["molecule"]
    expected = upstream.evaluate(model, frame)
    assert abs(potential(potential.to_graph(frame)).energy.item() - expected["energy"]) < 1e-9


def test_compile_mode_and_models_without_derivatives():
    expected = from_model(upstream.build()).state_dict()
    for options in ({"compile_mode": "compile"}, {"do_derivatives": False}):
        converted = from_model(upstream.build(**options)).state_dict()
        assert all(torch.equal(converted[key], expected[key]) for key in expected)


def test_converted_model_survives_its_file(tmp_path):
    potential = from_model(upstream.build(**upstream.VARIANTS["edge-cutoffs"]))
    potential.save(tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    graph = potential.to_graph(upstream.structures()["slab"])
    assert torch.equal(again(graph).forces, potential(graph).forces)


def test_elements_of_types_that_are_not_symbols():
    names = ["Hx", "C1", "O"]
    options = {"type_names": names, "l_max": 0}
    with pytest.raises(InputError, match="'Hx' is not a chemical symbol"):
        from_model(upstream.build(**options))
    potential = from_model(upstream.build(**options), elements={"Hx": "H", "C1": "C"})
    assert potential.elements == ["H", "C", "O"]
    assert potential.type_names == names
    # ZBL knows the elements
    zbl = upstream.build(**options, pair_potential=upstream.ZBL)
    assert from_model(zbl).elements == ["H", "C", "O"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convnet_resnet": True, "parity": False}, "convnet_resnet"),
        ({"convnet_nonlinearity_type": "norm"}, "convnet_nonlinearity_type: norm"),
        (
            {"convnet_nonlinearity_scalars": {"e": "ssp", "o": "tanh"}},
            "convnet_nonlinearity_scalars: shifted_softplus",
        ),
        (
            {"convnet_nonlinearity_gates": {"e": "abs", "o": "tanh"}},
            "convnet_nonlinearity_gates: abs",
        ),
        ({"learnable_shift": True}, "learnable_shift"),
        ({"convnet_sc": False}, "convnet_sc"),
        (
            {"readout_mlp_hidden_layers_depth": 1, "readout_mlp_nonlinearity": "ssp"},
            "readout_mlp_nonlinearity: shiftedsoftplus",
        ),
        (
            {
                "pair_potential": {
                    "_target_": "nequip.nn.pair_potential.LennardJones",
                    "lj_sigma": 1.0,
                    "lj_epsilon": 1.0,
                }
            },
            "pair_potential LennardJones",
        ),
        ({"pair_potential": upstream.ZBL | {"units": "real"}}, "'metal'"),
        ({"pair_potential": upstream.ZBL | {"polynomial_cutoff_p": 4.0}}, "polynomial_cutoff_p: 4"),
        (
            {
                "categorical_graph_field_embed": [
                    {"field": "charge", "num_features": 2, "min": -1, "max": 1}
                ]
            },
            "categorical_graph_field_embed",
        ),
    ],
)
def test_unsupported_option_is_named(options, message):
    if "categorical_graph_field_embed" in options:
        from nequip.data import register_fields

        register_fields(graph_fields=["charge"])
    with pytest.raises(InputError, match=message):
        from_model(upstream.build(**options))


def test_layers_that_differ():
    from nequip.model import FullNequIPGNNModel

    upstream.initialise()
    model = FullNequIPGNNModel(
        seed=1,
        model_dtype="float64",
        type_names=upstream.TYPES,
        r_max=upstream.R_MAX,
        avg_num_neighbors=9.0,
        irreps_edge_sh="1x0e+1x1o",
        type_embed_num_features=4,
        feature_irreps_hidden=["4x0e+3x1o", "5x0e+3x1o", "4x0e"],
        radial_mlp_depth=[1, 1, 1],
        radial_mlp_width=[8, 8, 8],
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    with pytest.raises(InputError, match="feature_irreps_hidden: 4x0e"):
        from_model(model)


def test_other_modules_are_refused():
    with pytest.raises(InputError, match="Linear is not a model of nequip"):
        from_model(torch.nn.Linear(2, 2))


def write_checkpoint(path, ema: bool) -> torch.nn.Module:
    """Save a checkpoint by nequip's own Lightning module; return the model it stands for."""
    import lightning
    from nequip.train import EMALightningModule, NequIPLightningModule

    upstream.initialise()
    module_class = EMALightningModule if ema else NequIPLightningModule
    module = module_class(
        model={
            "_target_": "nequip.model.NequIPGNNModel",
            "seed": 1,
            "model_dtype": "float64",
            "type_names": upstream.TYPES,
            "r_max": upstream.R_MAX,
            "avg_num_neighbors": 9.0,
            "num_layers": 2,
            "num_features": 4,
            "radial_mlp_width": 8,
            "bessel_trainable": True,
            "per_type_energy_scales": 1.7,
            "per_type_energy_shifts": {"H": -13.0, "C": -1030.0, "O": -2040.0},
        },
        num_datasets={"train": 1, "val": 0, "test": 0, "predict": 0},
        info_dict={
            "versions": {},
            "training_module": {"_target_": f"nequip.train.{module_class.__name__}"},
        },
        **({"ema_decay": 0.9} if ema else {}),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.rand_like(parameter)
    trainer = lightning.Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu"
    )
    trainer.strategy.connect(module)
    if ema:
        module.ema.update_parameters(module.model)
        trainer.save_checkpoint(path)
        with torch.no_grad():
            for k, parameter in enumerate(module.model.parameters()):
                assert not torch.equal(parameter, getattr(module.ema, f"ema_weight_{k}"))
                parameter.copy_(getattr(module.ema, f"ema_weight_{k}"))
    else:
        trainer.save_checkpoint(path)
    return module.model["sole_model"]


@pytest.mark.parametrize("ema", [True, False])
def test_checkpoint(tmp_path, ema):
    path = tmp_path / "last.ckpt"
    model = write_checkpoint(path, ema)
    before = torch.get_default_dtype(), torch.get_rng_state(), random.getstate()
    potential = from_checkpoint(path, trust=True)
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]
    frame = upstream.structures()["triclinic"]
    expected = upstream.evaluate(model, frame)
    output = potential(potential.to_graph(frame))
    assert abs(output.energy.item() - expected["energy"]) < 1e-9
    assert np.abs(output.forces.numpy() - expected["forces"]).max() < 1e-8
    assert "last.ckpt" in potential.metadata["description"]


def test_checkpoint_needs_consent_and_exists(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"is a pickle: reading it runs any program.*trust=True"):
        from_checkpoint(path)
    with pytest.raises(InputError, match=r"cannot read .* as a checkpoint"):
        from_checkpoint(path, trust=True)
    with pytest.raises(InputError, match="does not exist"):
        from_checkpoint(tmp_path / "absent.ckpt", trust=True)
