"""Configuration files: every mistake is one line that names the key and the remedy."""

import pytest

from openmm_nequip.architectures.nequip import NequIPConfig
from openmm_nequip.config import Config, load_config, parse_config
from openmm_nequip.errors import InputError


class Optimiser(Config):
    learning_rate: float = 0.01


class Settings(Config):
    seed: int = 0
    optimiser: Optimiser = Optimiser()
    name: str
    interval: int | str = 1


def load(tmp_path, text, *overrides):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return load_config(Settings, path, overrides)


def test_values_defaults_and_overrides(tmp_path):
    settings = load(tmp_path, "name: a\n", "optimiser.learning_rate=0.5", "seed=3")
    assert (settings.name, settings.seed, settings.optimiser.learning_rate) == ("a", 3, 0.5)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("name: a\nsead: 1", (), "unknown key 'sead' (did you mean 'seed'?)"),
        (
            "name: a\noptimiser: {learning_rat: 1}",
            (),
            "unknown key 'optimiser.learning_rat' (did you mean 'learning_rate'?)",
        ),
        ("name: a\nxyzzy: 1", (), "unknown key 'xyzzy'"),
        ("seed: 1", (), "required key 'name' is missing"),
        ("name: a\nseed: often", (), "key 'seed': input should be a valid integer"),
        ("name: a\ninterval: 1.5", (), "; key 'interval': input should be a valid string"),
        ("name: a", ("seed",), "override 'seed' is not of the form"),
        ("name: a", ("name.first=1",), "'name' is a value, not a section"),
        ("name: a", ("seed=often",), "settings.yaml with seed=often: key 'seed'"),
        ("- a\n- b", (), "must hold 'key: value' lines"),
        ("name: [", (), "is not valid YAML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, overrides, message):
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_config(Settings, tmp_path / "nothing.yaml")


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        load_config(Settings, tmp_path)


MODEL = {"type_names": ["H", "O"], "avg_num_neighbors": 8.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layer": 3}, "unknown key 'num_layer' (did you mean 'num_layers'?)"),
        ({"num_features": [8, 8, 8]}, "l_max + 1 = 2 numbers, found 3"),
        ({"type_names": ["H", "Q"]}, "'Q' is not a chemical symbol"),
        ({"type_names": ["H", "H"]}, "names of types must differ"),
        ({"per_edge_type_cutoff": {"H": 9.0}}, "exceeds r_max"),
        ({"per_edge_type_cutoff": {"N": 3.0}}, "unknown type 'N'"),
        ({"avg_num_neighbors": {"H": 3.0}}, "must have exactly the keys ['H', 'O']"),
        ({"l_max": 7}, "less than or equal to 4"),
        ({"elements": ["H"]}, "one chemical symbol for each"),
    ],
)
def test_model_configuration_is_checked(change, message):
    with pytest.raises(InputError) as caught:
        parse_config(NequIPConfig, MODEL | change, where="here")
    assert message in str(caught.value)


def test_per_edge_type_cutoffs_are_by_centre_then_neighbour():
    config = NequIPConfig(**MODEL, r_max=5.0, per_edge_type_cutoff={"H": 3.0, "O": {"H": 4.0}})
    assert config.cutoffs().tolist() == [[3.0, 3.0], [4.0, 5.0]]
