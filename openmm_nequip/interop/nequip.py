"""Official NequIP models (nequip 0.19, ``NequIPGNNModel`` and its presets) as a `Potential`.

The configuration is read off the modules, because a model carries its own only in part; the
weights are copied one by one into this package's layout. What the network of this package cannot
represent is an error that names the option.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor, nn

from ..architectures.nequip import NequIPConfig
from ..config import parse_config
from ..errors import InputError
from ..kernels.accuracy import radial_spline
from ..nn.linear import EquivariantLinear, SelfConnection
from ..potential import Potential


def from_checkpoint(
    path: str | Path, trust: bool = False, elements: Mapping[str, str] | None = None
) -> Potential:
    """Convert a training checkpoint (``.ckpt``) of nequip; EMA weights where it has them.

    nequip's models do not say their units: they must be eV and Å.

    Parameters
    ----------
    path
        The checkpoint.
    trust
        Must be `True`: the file is a pickle, and reading a pickle runs whatever program its
        author put into it.
    elements
        Chemical symbol of each type, where type names are not symbols.

    Raises
    ------
    InputError
        Consent is missing, the file is missing or not a checkpoint, nequip is not installed, or
        the model uses an option that this package does not have.
    """
    if not trust:
        raise InputError(
            f"{path} is a pickle: reading it runs any program that its author put inside. If you "
            "know where it comes from, call from_checkpoint(path, trust=True)"
        )
    path = Path(path)
    if not path.is_file():
        raise InputError(f"checkpoint '{path}' does not exist")
    if path.suffix != ".ckpt":
        raise InputError(
            f"'{path}' is no training checkpoint (.ckpt); a package (.nequip.zip) is converted by "
            "from_model(nequip.model.ModelFromPackage(path)), a compiled model not at all"
        )
    if importlib.util.find_spec("nequip") is None:
        raise InputError(
            "reading a nequip checkpoint needs nequip: pip install 'openmm-nequip[interop]'"
        )
    from lightning.pytorch.utilities.seed import isolate_rng
    from nequip.model import ModelFromCheckpoint
    from nequip.utils.global_state import set_global_state

    default_dtype = torch.get_default_dtype()
    try:
        with isolate_rng():  # nequip seeds every generator and sets the default dtype
            set_global_state()
            model = ModelFromCheckpoint(str(path))
    except Exception as error:
        reason = str(error).strip().splitlines()[:1] or [""]
        raise InputError(
            f"nequip cannot read {path} as a checkpoint: {type(error).__name__}: {reason[0]}"
        ) from error
    finally:
        torch.set_default_dtype(default_dtype)
    potential = from_model(model, elements)
    potential.metadata["description"] = f"converted from the nequip checkpoint {path.name}"
    return potential


def from_model(model: nn.Module, elements: Mapping[str, str] | None = None) -> Potential:
    """Convert an official NequIP model in memory, of eV and Å.

    Parameters
    ----------
    model
        What ``nequip.model.NequIPGNNModel`` and its like return, with or without nequip's
        Lightning module around it, in any compile mode; it is not changed.
    elements
        Chemical symbol of each type, where type names are not symbols.

    Returns
    -------
    Potential
        In evaluation mode, with the model's dtype, on the CPU.

    Raises
    ------
    InputError
        The model uses an option that this package does not have, or is no NequIP model.
    """
    graph_model, stack = _energy_stack(model)
    config = _config(graph_model, stack, elements or {})
    with torch.random.fork_rng(devices=[]):  # every weight is replaced
        potential = Potential(config)
    network: Any = potential.network
    with torch.no_grad():
        network.type_embedding.copy_(stack.type_embed.embed_module.weight)
        network.basis.frequencies.copy_(stack.bessel_encode.bessel_weights.view(-1))
        for layer, upstream in zip(network.layers, _convolution_layers(stack), strict=True):
            _copy_linear(layer.linear_1, upstream.conv.linear_1)
            _copy_linear(layer.linear_2, upstream.conv.linear_2)
            _copy_mlp(layer.radial_mlp, upstream.conv.edge_mlp)
            if layer.self_connection is not None:
                _copy_self_connection(layer.self_connection, upstream.conv.sc)
        _copy_mlp(network.readout, stack.per_atom_energy_readout.mlp_module)
    potential.metadata["radial_spline"] = radial_spline(potential)
    return potential.eval()


def _energy_stack(model: nn.Module) -> tuple[Any, Any]:
    """Unwrap Lightning module, dictionary of models, graph model and derivatives.

    Classes are recognised by what they hold, not by type: a model from a nequip package has
    classes of its own.
    """
    outer: Any = getattr(model, "model", model) if not hasattr(model, "is_graph_model") else model
    if isinstance(outer, nn.ModuleDict):
        if len(outer) != 1:
            raise InputError(f"found several models, {', '.join(outer)}: give one of them")
        outer = next(iter(outer.values()))
    if not hasattr(outer, "is_graph_model"):
        raise InputError(f"{type(model).__name__} is not a model of nequip ('GraphModel')")
    stack: Any = outer.model
    while hasattr(stack, "func"):
        stack = stack.func
    required = ("type_embed", "edge_norm", "bessel_encode", "layer0_convnet")
    if not all(hasattr(stack, name) for name in required):
        raise InputError(
            "not a NequIP network ('NequIPGNNModel'): it consists of "
            + ", ".join(name for name, _ in stack.named_children())
        )
    return outer, stack


def _convolution_layers(stack: Any) -> list[Any]:
    children = dict(stack.named_children())
    return [
        children[f"layer{k}_convnet"]
        for k in range(sum(name.endswith("_convnet") for name in children))
    ]


def _unsupported(option: str) -> InputError:
    return InputError(f"the nequip model uses {option}, which openmm-nequip does not have")


def _config(graph_model: Any, stack: Any, elements: Mapping[str, str]) -> NequIPConfig:
    """Read the configuration off the modules."""
    _refuse_unknown_modules(stack)
    layers = _convolution_layers(stack)
    type_names = list(graph_model.type_names)
    values: dict[str, Any] = {
        "type_names": type_names,
        "r_max": stack.edge_norm.r_max,
        "per_edge_type_cutoff": _cutoffs(stack.edge_norm, type_names),
        "num_layers": len(layers),
        "type_embed_num_features": stack.type_embed.embed_module.weight.shape[1],
        "num_bessels": stack.bessel_encode.num_bessels,
        "bessel_trainable": stack.bessel_encode.trainable,
        "polynomial_cutoff_p": stack.bessel_encode.cutoff.p,
        "model_dtype": str(graph_model.model_dtype).removeprefix("torch."),
        **_feature_options(stack, layers),
        **_mlp_options(stack, layers),
        **_energy_options(stack, type_names),
        "avg_num_neighbors": _avg_num_neighbors(layers, type_names),
    }
    values["elements"] = [
        elements.get(name, species)
        for name, species in zip(type_names, _species(stack, type_names), strict=True)
    ]
    return parse_config(NequIPConfig, values, where="the nequip model")


def _refuse_unknown_modules(stack: Any) -> None:
    if stack.type_embed.do_categorical_graph_field_embed:
        raise _unsupported("categorical_graph_field_embed")
    known = {
        "type_embed",
        "spharm",
        "edge_norm",
        "bessel_encode",
        "factor",
        "per_atom_energy_readout",
        "per_type_energy_scale_shift",
        "total_energy_sum",
    }
    for name, module in stack.named_children():
        if name == "pair_potential":
            if type(module).__name__ != "ZBL":
                raise _unsupported(f"pair_potential {type(module).__name__}")
            continue
        if name not in known and not name.endswith("_convnet"):
            raise _unsupported(f"a module '{name}' ({type(module).__name__})")
    for k, layer in enumerate(_convolution_layers(stack)):
        if layer.resnet:
            raise _unsupported("convnet_resnet: true")
        if type(layer.equivariant_nonlin).__name__ != "Gate":
            raise _unsupported("convnet_nonlinearity_type: norm")
        if k == 0 and layer.conv.sc is not None:
            raise _unsupported("learnable_shift: true")
        if k > 0 and layer.conv.sc is None:
            raise _unsupported("convnet_sc: false")
        _refuse_other_activations(layer.equivariant_nonlin)


def _refuse_other_activations(gate: Any) -> None:
    """Even scalars and gates take SiLU, odd scalars tanh; gates are even."""
    for activation, option in [
        (gate.act_scalars, "convnet_nonlinearity_scalars"),
        (gate.act_gates, "convnet_nonlinearity_gates"),
    ]:
        for (_, irrep), module in zip(activation.irreps_in, activation.acts, strict=True):
            name = getattr(module.f, "__name__", type(module.f).__name__)
            if name != ("silu" if irrep.p == 1 else "tanh"):
                raise _unsupported(f"{option}: {name} for parity {irrep.p:+d}")


def _cutoffs(edge_norm: Any, type_names: list[str]) -> dict[str, dict[str, float]] | None:
    if edge_norm._rmax_recip.numel() == 1:
        return None
    table = edge_norm._rmax_recip.double().reciprocal().view(len(type_names), -1)
    # a reciprocal of a reciprocal may exceed r_max by its last bit
    table = table.clamp(max=edge_norm.r_max)
    return {
        centre: dict(zip(type_names, row.tolist(), strict=True))
        for centre, row in zip(type_names, table, strict=True)
    }


def _feature_options(stack: Any, layers: list[Any]) -> dict[str, Any]:
    """l_max, parity and channels, checked against the irreps of every layer."""
    harmonics = stack.spharm.irreps_edge_sh
    l_max = harmonics.lmax
    if [(mul, ir.l, ir.p) for mul, ir in harmonics] != [
        (1, order, (-1) ** order) for order in range(l_max + 1)
    ]:
        raise _unsupported(f"irreps_edge_sh: {harmonics}")
    hidden = [[(mul, ir.l, ir.p) for mul, ir in layer.feature_irreps_hidden] for layer in layers]
    channels = {order: mul for mul, order, _ in hidden[0]}
    num_features = [channels.get(order, channels[0]) for order in range(l_max + 1)]
    parity = len(layers) > 1 and any(p != (-1) ** order for _, order, p in hidden[0])
    expected = [
        (num_features[order], order, p)
        for order in range(l_max + 1)
        for p in ((1, -1) if parity else ((-1) ** order,))
    ]
    if hidden != [expected] * (len(layers) - 1) + [[(num_features[0], 0, 1)]]:
        raise _unsupported(
            "feature_irreps_hidden: "
            + ", ".join(str(layer.feature_irreps_hidden) for layer in layers)
        )
    return {"l_max": l_max, "parity": parity, "num_features": num_features}


def _mlp_options(stack: Any, layers: list[Any]) -> dict[str, Any]:
    hidden = {tuple(layer.conv.edge_mlp.dims[1:-1]) for layer in layers}
    if len(hidden) > 1:
        raise _unsupported("radial_mlp_depth or radial_mlp_width that differ between layers")
    radial = hidden.pop()
    readout = stack.per_atom_energy_readout.mlp_module
    mlps = [readout, *(layer.conv.edge_mlp for layer in layers)]
    if any(mlp.bias for mlp in mlps):
        raise _unsupported("a bias in a perceptron")
    options: dict[str, Any] = {
        "radial_mlp_depth": len(radial),
        "readout_mlp_hidden_layers_depth": len(readout.dims) - 2,
    }
    if radial:
        options["radial_mlp_width"] = radial[0]
    if len(readout.dims) > 2:
        options["readout_mlp_hidden_layers_width"] = readout.dims[1]
        activation = type(readout.mlp[1]).__name__.lower() if readout.is_nonlinear else None
        if activation not in ("silu", "mish", "gelu", None):
            raise _unsupported(f"readout_mlp_nonlinearity: {activation}")
        options["readout_mlp_nonlinearity"] = activation
    return options


def _energy_options(stack: Any, type_names: list[str]) -> dict[str, Any]:
    module = stack.per_type_energy_scale_shift
    options: dict[str, Any] = {}
    for name, default in (("scales", 1.0), ("shifts", 0.0)):
        values = getattr(module, name).detach().double().flatten().tolist()
        key = f"per_type_energy_{name}"
        options[key] = _per_type(values, type_names) if values else default
        options[f"{key}_trainable"] = bool(getattr(module, f"{name}_trainable"))
    zbl = getattr(stack, "pair_potential", None)
    if zbl is not None:
        if abs(float(zbl._qqr2exesquare) - 0.5 * 14.399645) > 1e-9:
            raise _unsupported("ZBL in units other than 'metal' (eV, Å)")
        if zbl.cutoff.p != 6.0:
            raise _unsupported(f"ZBL with polynomial_cutoff_p: {zbl.cutoff.p:g} (only 6)")
        options["pair_potential"] = "zbl"
    return options


def _avg_num_neighbors(layers: list[Any], type_names: list[str]) -> float | dict[str, float]:
    factors = [layer.conv.avg_num_neighbors_norm.norm_const for layer in layers]
    if any(not torch.equal(factor, factors[0]) for factor in factors):
        raise _unsupported("avg_num_neighbors that differs between layers")
    return _per_type((factors[0].double().flatten() ** -2).tolist(), type_names)


def _species(stack: Any, type_names: list[str]) -> list[str]:
    """Chemical symbols: ZBL knows them, else the types are named after them."""
    zbl = getattr(stack, "pair_potential", None)
    if zbl is None:
        return type_names
    return [chemical_symbols[round(z)] for z in zbl.atomic_numbers.tolist()]


def _per_type(values: list[float], type_names: list[str]) -> float | dict[str, float]:
    return values[0] if len(values) == 1 else dict(zip(type_names, values, strict=True))


def _copy_linear(ours: EquivariantLinear, upstream: Any) -> None:
    """Both scale by 1/√fan_in; e3nn's blocks are ordered by input irrep, ours by output irrep."""
    by_irrep = {
        upstream.irreps_out[instruction.i_out].ir: view
        for _, instruction, view in upstream.weight_views(yield_instruction=True)
    }
    ours.weight.copy_(_join(by_irrep, ours.irreps_out))


def _copy_self_connection(ours: SelfConnection, upstream: Any) -> None:
    by_irrep = {
        upstream.irreps_out[instruction.i_out].ir: view
        for _, instruction, view in upstream.weight_views(yield_instruction=True)
    }
    ours.weight.copy_(_join(by_irrep, ours.irreps_out))


def _join(by_irrep: Mapping[Any, Tensor], irreps: Any) -> Tensor:
    """Concatenate the blocks in the order of `irreps`; a block that has no weights is skipped."""
    return torch.cat([by_irrep[ir].flatten() for _, ir in irreps if ir in by_irrep])


def _copy_mlp(ours: Any, upstream: Any) -> None:
    """Copy the layers; upstream keeps those of a perceptron without nonlinearity in a list."""
    weights = getattr(upstream.mlp, "weights", None)
    if weights is None:
        weights = [module.weight for module in upstream.mlp if hasattr(module, "weight")]
    for layer, weight in zip(ours.layers, weights, strict=True):
        layer.weight.copy_(weight)
