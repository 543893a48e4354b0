"""NequIP's configuration and the structure of the network it defines."""

import pytest
import torch
from e3nn.o3 import Irreps

from openmm_nequip import InputError
from openmm_nequip.architectures.nequip import PRESETS, NequIP, NequIPConfig
from openmm_nequip.config import parse_config
from openmm_nequip.potential import Potential


def config(**options) -> NequIPConfig:
    return parse_config(
        NequIPConfig,
        {"type_names": ["H", "C"], "avg_num_neighbors": 9.0} | options,
        where="the test",
    )


def test_defaults_are_those_of_nequip():
    c = config()
    assert (c.num_layers, c.l_max, c.parity, c.num_features) == (4, 1, True, 32)
    assert (c.radial_mlp_depth, c.radial_mlp_width) == (1, 128)
    assert (c.num_bessels, c.bessel_trainable, c.polynomial_cutoff_p) == (8, False, 6.0)
    assert c.elements == ["H", "C"]
    assert c.model_dtype == "float32"


@pytest.mark.parametrize(
    ("size", "layers", "l_max", "features"),
    [
        ("S", 2, 1, [128, 64]),
        ("M", 4, 2, [128, 64, 32]),
        ("L", 6, 3, [128, 64, 32, 32]),
    ],
)
def test_presets(size, layers, l_max, features):
    c = config(**PRESETS[size])
    assert (c.num_layers, c.l_max, c.num_features) == (layers, l_max, features)
    assert not c.parity
    assert c.type_embed_num_features == 32
    network = NequIP(c)
    assert network.type_embedding.shape == (2, 32)
    widths = [layer.weight.shape for layer in network.layers[1].radial_mlp.layers]
    assert widths[0] == (8, 128)


def test_irreps_from_layer_to_layer():
    """What no path reaches is dropped: no odd scalars or even vectors after the first layer."""
    network = NequIP(config(num_features=4, num_layers=4))
    assert [layer.gate.irreps_out for layer in network.layers] == [
        Irreps("4x0e+4x1o"),
        Irreps("4x0e+4x1e+4x1o"),
        Irreps("4x0e+4x0o+4x1e+4x1o"),
        Irreps("4x0e"),
    ]
    assert network.layers[2].gate.irreps_in == Irreps("4x0o+12x0e+4x1o+4x1e")
    natural = NequIP(config(num_features=[5, 4, 3], l_max=2, parity=False, num_layers=3))
    assert [layer.gate.irreps_out for layer in natural.layers] == [
        Irreps("5x0e+4x1o+3x2e"),
        Irreps("5x0e+4x1o+3x2e"),
        Irreps("5x0e"),
    ]


def test_first_layer_has_no_self_connection():
    layers = NequIP(config(num_features=4)).layers
    assert [layer.self_connection is None for layer in layers] == [True, False, False, False]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes(dtype):
    """The network has its dtype; energies, frequencies and geometry are float64."""
    network = NequIP(config(num_features=4, model_dtype=dtype))
    in_float64 = {"basis.frequencies", "scales", "shifts"}
    for name, parameter in network.named_parameters():
        expected = torch.float64 if name in in_float64 else getattr(torch, dtype)
        assert parameter.dtype == expected, name


def test_what_is_trainable():
    def trainable(**options) -> set[str]:
        network = NequIP(config(num_features=4, **options))
        return {name for name, p in network.named_parameters() if p.requires_grad}

    fixed = trainable()
    assert not fixed & {"basis.frequencies", "scales", "shifts"}
    assert trainable(bessel_trainable=True) - fixed == {"basis.frequencies"}
    assert trainable(per_type_energy_scales_trainable=True) - fixed == {"scales"}
    assert trainable(per_type_energy_shifts_trainable=True) - fixed == {"shifts"}


def test_cutoffs_of_ordered_pairs():
    c = config(r_max=5.0, per_edge_type_cutoff={"H": 2.0, "C": {"H": 3.0}})
    assert c.cutoffs().tolist() == [[2.0, 2.0], [3.0, 5.0]]
    assert config(r_max=4.0).cutoffs().tolist() == [[4.0, 4.0], [4.0, 4.0]]


def test_per_type_neighbours_are_those_of_the_sending_atom():
    """Doubling the neighbours of a type scales what it sends, not what it receives."""
    torch.manual_seed(0)
    a = NequIP(config(num_features=4, num_layers=1, model_dtype="float64"))
    b = NequIP(
        config(
            num_features=4,
            num_layers=1,
            model_dtype="float64",
            avg_num_neighbors={"H": 9.0, "C": 18.0},
        )
    )
    b.load_state_dict(a.state_dict())
    vectors = torch.tensor([[1.0, 0.2, 0.1], [-1.0, -0.2, -0.1]], dtype=torch.float64)
    types, edges = torch.tensor([0, 1]), torch.tensor([[0, 1], [1, 0]])
    before, after = a(vectors, types, edges), b(vectors, types, edges)
    assert before[1] == after[1]  # C receives from H
    assert before[0] != after[0]  # H receives from C


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_feature": 16}, "unknown key 'num_feature' .*did you mean 'num_features'"),
        ({"l_max": 5}, "'l_max'"),
        ({"l_max": 2, "num_features": [8, 4]}, "l_max \\+ 1 = 3 numbers, found 2"),
        ({"num_features": [8, 0]}, "num_features"),
        ({"r_max": -1.0}, "'r_max'"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors"),
        ({"avg_num_neighbors": {"H": 9.0}}, "'avg_num_neighbors' must have exactly the keys"),
        ({"per_type_energy_shifts": {"H": 1.0, "N": 2.0}}, "'per_type_energy_shifts' must have"),
        ({"per_edge_type_cutoff": {"H": 9.0}}, "exceeds r_max = 5"),
        ({"per_edge_type_cutoff": {"Hh": 2.0}}, "unknown type 'Hh'.*did you mean 'H'"),
        ({"type_names": ["H", "H"]}, "must differ"),
        ({"type_names": ["H", "Cx"]}, "'Cx' is not a chemical symbol"),
        ({"elements": ["H"]}, "one chemical symbol for each"),
        ({"pair_potential": "lj"}, "pair_potential"),
        ({"readout_mlp_nonlinearity": "tanh"}, "readout_mlp_nonlinearity"),
        ({"model_dtype": "float16"}, "model_dtype"),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(InputError, match=message):
        config(**options)


def test_unknown_element_and_several_types_per_element():
    potential = Potential(config(num_features=4))
    assert potential.type_indices([6, 1, 6]).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="not trained on N, O; it knows H, C"):
        potential.type_indices([1, 8, 7, 8])
    twins = Potential(config(num_features=4, type_names=["C1", "C2"], elements=["C", "C"]))
    with pytest.raises(InputError, match="several atom types for C: give"):
        twins.type_indices([6])


def test_configuration_survives_json():
    c = config(l_max=2, num_features=[8, 4, 2], per_edge_type_cutoff={"H": {"C": 3.0}})
    assert NequIPConfig.model_validate_json(c.model_dump_json()) == c
