"""NequIP: Batzner et al., Nat. Commun. 13, 2453 (2022); same function as nequip 0.19's models."""

from typing import Any, Literal

import torch
from ase.data import atomic_numbers
from e3nn.o3 import Irrep, Irreps, SphericalHarmonics
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import Tensor, nn

from ..config import Config
from ..errors import did_you_mean
from ..nn.convolution import Convolution
from ..nn.gate import Gate
from ..nn.linear import EquivariantLinear, SelfConnection
from ..nn.radial import BesselBasis, ScalarMLP, ScaledDistance
from ..nn.spline import RadialSpline, evaluate
from ..nn.zbl import ZBL

#: Sizes of NequIP's foundation models.
PRESETS: dict[str, dict[str, Any]] = {
    size: {
        "num_layers": num_layers,
        "l_max": l_max,
        "num_features": num_features,
        "parity": False,
        "type_embed_num_features": 32,
        "radial_mlp_depth": 1,
        "radial_mlp_width": 128,
    }
    for size, num_layers, l_max, num_features in [
        ("S", 2, 1, [128, 64]),
        ("M", 4, 2, [128, 64, 32]),
        ("L", 6, 3, [128, 64, 32, 32]),
    ]
}

PerType = float | dict[str, float]


class NequIPConfig(Config):
    """Everything that defines a NequIP network but its weights; names as in NequIP's own configs.

    Parameters
    ----------
    type_names
        Names of the atom types.
    elements
        Chemical symbol of each type; the type names if not given.
    r_max
        Cutoff, Å.
    per_edge_type_cutoff
        Smaller cutoffs, ``{centre type: cutoff}`` or ``{centre type: {neighbour type: cutoff}}``.
    num_layers, l_max, parity, num_features
        Interaction blocks; highest rotation order; whether both parities are kept for each l;
        channels, one number or one per l.
    type_embed_num_features
        Width of the type embedding; ``num_features[0]`` if not given.
    radial_mlp_depth, radial_mlp_width
        Hidden layers of the radial network and their width.
    radial, radial_intervals
        ``'exact'`` evaluates the radial network at every edge; with ``'spline'`` the model's radial
        functions are cubic splines through it, with this number of intervals up to the cutoff.
    num_bessels, bessel_trainable, polynomial_cutoff_p
        Radial basis and envelope.
    avg_num_neighbors
        Normalises sums over neighbours; one number or one per type (of the sending atom).
    per_type_energy_scales, per_type_energy_shifts
        eV; the shift is the energy of an isolated atom.
    pair_potential
        ``'zbl'`` adds screened nuclear repulsion.
    readout_mlp_hidden_layers_depth, readout_mlp_hidden_layers_width, readout_mlp_nonlinearity
        Perceptron from the last scalars to the atomic energy; depth 0 is linear.
    model_dtype
        Dtype of the network; geometry and energy sums are float64 always.
    """

    architecture: Literal["nequip"] = "nequip"
    type_names: list[str] = Field(min_length=1)
    elements: list[str] = Field(default_factory=list)
    r_max: PositiveFloat = 5.0
    per_edge_type_cutoff: dict[str, PositiveFloat | dict[str, PositiveFloat]] | None = None
    num_layers: PositiveInt = 4
    l_max: int = Field(1, ge=0, le=4)
    parity: bool = True
    num_features: PositiveInt | list[PositiveInt] = 32
    type_embed_num_features: PositiveInt | None = None
    radial_mlp_depth: int = Field(1, ge=0)
    radial_mlp_width: PositiveInt = 128
    radial: Literal["exact", "spline"] = "exact"
    radial_intervals: int = Field(128, ge=8)
    num_bessels: PositiveInt = 8
    bessel_trainable: bool = False
    polynomial_cutoff_p: float = Field(6.0, ge=2.0)
    avg_num_neighbors: PositiveFloat | dict[str, PositiveFloat]
    per_type_energy_scales: PerType = 1.0
    per_type_energy_shifts: PerType = 0.0
    per_type_energy_scales_trainable: bool = False
    per_type_energy_shifts_trainable: bool = False
    pair_potential: Literal["zbl"] | None = None
    readout_mlp_hidden_layers_depth: int = Field(0, ge=0)
    readout_mlp_hidden_layers_width: PositiveInt | None = None
    readout_mlp_nonlinearity: Literal["silu", "mish", "gelu"] | None = "silu"
    model_dtype: Literal["float32", "float64"] = "float32"

    @field_validator("type_names")
    @classmethod
    def _unique(cls, names: list[str]) -> list[str]:
        if len(set(names)) < len(names):
            raise ValueError(f"names of types must differ: {names}")
        return names

    @model_validator(mode="after")
    def _consistent(self) -> "NequIPConfig":
        if not self.elements:
            self.elements = list(self.type_names)
        if len(self.elements) != len(self.type_names):
            raise ValueError("'elements' must give one chemical symbol for each of 'type_names'")
        for symbol in self.elements:
            if atomic_numbers.get(symbol, 0) < 1:
                raise ValueError(
                    f"'{symbol}' is not a chemical symbol{did_you_mean(symbol, atomic_numbers)}; "
                    "give 'elements' where type names are not symbols"
                )
        if isinstance(self.num_features, list) and len(self.num_features) != self.l_max + 1:
            raise ValueError(
                f"'num_features' must be one number or l_max + 1 = {self.l_max + 1} numbers, "
                f"found {len(self.num_features)}"
            )
        for key in ("avg_num_neighbors", "per_type_energy_scales", "per_type_energy_shifts"):
            value = getattr(self, key)
            if isinstance(value, dict) and set(value) != set(self.type_names):
                raise ValueError(f"'{key}' must have exactly the keys {self.type_names}")
        if float(self.cutoffs().max()) > self.r_max:
            raise ValueError(f"'per_edge_type_cutoff' exceeds r_max = {self.r_max}")
        return self

    def cutoffs(self) -> Tensor:
        """Return the cutoff of every (centre, neighbour) pair of types, Å, shape ``[T, T]``."""
        table = torch.full((len(self.type_names),) * 2, self.r_max, dtype=torch.float64)
        for centre, value in (self.per_edge_type_cutoff or {}).items():
            if isinstance(value, dict):
                for neighbour, cutoff in value.items():
                    table[self._index(centre), self._index(neighbour)] = cutoff
            else:
                table[self._index(centre)] = value
        return table

    def _index(self, name: str) -> int:
        if name not in self.type_names:
            raise ValueError(
                f"unknown type '{name}' in 'per_edge_type_cutoff'"
                f"{did_you_mean(name, self.type_names)}"
            )
        return self.type_names.index(name)

    def per_type(self, value: PerType) -> Tensor:
        """Spread a number, or a mapping from type names, over the types; shape ``[T]``."""
        values = [value[t] if isinstance(value, dict) else value for t in self.type_names]
        return torch.tensor(values, dtype=torch.float64)

    def features_per_l(self) -> list[int]:
        """Return the number of channels for l = 0 ... l_max."""
        if isinstance(self.num_features, list):
            return self.num_features
        return [self.num_features] * (self.l_max + 1)


class NequIP(nn.Module):
    """Atomic energies from edge vectors and types.

    Embedding → `num_layers` interaction blocks → readout → scale and shift (→ + ZBL).
    """

    neighbor_norm: Tensor

    def __init__(self, config: NequIPConfig):
        super().__init__()
        features = config.features_per_l()
        num_attributes = config.type_embed_num_features or features[0]
        self.dtype = getattr(torch, config.model_dtype)

        self.type_embedding = nn.Parameter(torch.randn(len(config.type_names), num_attributes))
        irreps_edge = Irreps.spherical_harmonics(config.l_max)
        self.layers = nn.ModuleList()
        irreps = Irreps([(num_attributes, (0, 1))])
        radial_dims = [config.num_bessels] + [config.radial_mlp_width] * config.radial_mlp_depth
        for k in range(config.num_layers):
            last = k == config.num_layers - 1
            wanted = Irreps([(features[0], (0, 1))]) if last else _hidden_irreps(config)
            layer = InteractionBlock(
                irreps,
                irreps_edge,
                wanted,
                radial_dims,
                # without it in the first layer an isolated atom has exactly its shift as energy
                num_attributes=None if k == 0 else num_attributes,
            )
            self.layers.append(layer)
            irreps = layer.gate.irreps_out

        width = config.readout_mlp_hidden_layers_width or features[0]
        self.readout = ScalarMLP(
            [irreps.dim] + [width] * config.readout_mlp_hidden_layers_depth + [1],
            config.readout_mlp_nonlinearity,
        )
        self.to(self.dtype)

        normalisation = config.per_type(config.avg_num_neighbors).rsqrt().to(self.dtype)
        self.register_buffer("neighbor_norm", normalisation.unsqueeze(1), persistent=False)
        # what follows is float64 whatever the network's dtype
        self.harmonics = SphericalHarmonics(
            irreps_edge, normalize=True, normalization="component"
        ).double()
        self.scaled_distance = ScaledDistance(config.cutoffs())
        self.basis = BesselBasis(
            config.r_max, config.num_bessels, config.bessel_trainable, config.polynomial_cutoff_p
        )
        self.spline = RadialSpline(config.radial_intervals) if config.radial == "spline" else None
        self.scales = nn.Parameter(
            config.per_type(config.per_type_energy_scales),
            requires_grad=config.per_type_energy_scales_trainable,
        )
        self.shifts = nn.Parameter(
            config.per_type(config.per_type_energy_shifts),
            requires_grad=config.per_type_energy_shifts_trainable,
        )
        numbers = [atomic_numbers[symbol] for symbol in config.elements]
        self.zbl = ZBL(numbers) if config.pair_potential == "zbl" else None

    def forward(self, vectors: Tensor, types: Tensor, edge_index: Tensor) -> Tensor:
        """Evaluate.

        Parameters
        ----------
        vectors
            From receiving to sending atom, Å, shape ``[E, 3]``, float64.
        types
            Shape ``[N]``.
        edge_index
            Shape ``[2, E]``: receiving, sending atom.

        Returns
        -------
        Tensor
            Atomic energies, eV, shape ``[N]``, float64.
        """
        i, j = edge_index[0], edge_index[1]
        r = torch.linalg.vector_norm(vectors, dim=1)
        x = self.scaled_distance(r, types[i], types[j])
        basis = self.basis(x if self.spline is None else self.spline.grid).to(self.dtype)
        harmonics = self.harmonics(vectors).to(self.dtype)

        h = self.type_embedding[types]
        norm = self.neighbor_norm[types]
        for layer in self.layers:
            weights = layer.radial_mlp(basis)  # type: ignore[operator]
            if self.spline is not None:
                weights = evaluate(x, self.spline(weights))
            h = layer(h, norm, harmonics, weights, self.type_embedding, types, edge_index)

        energies = self.atomic_energies(h, types)
        if self.zbl is not None:
            energies = energies.index_add(0, i, self.zbl(r, x, types[i], types[j]))
        return energies

    def atomic_energies(self, h: Tensor, types: Tensor) -> Tensor:
        """Read the energies, eV, ``[N]``, off the features of the last layer, ``[N, dim]``."""
        energies = self.readout(h).squeeze(1).double()
        return self.shifts[types] + self.scales[types] * energies


class InteractionBlock(nn.Module):
    """Self-connection + linear ∘ convolution ∘ linear, then the gate (paper, fig. 1d).

    Parameters
    ----------
    irreps_in, irreps_edge
        Of the features and the harmonics.
    irreps_wanted
        Of the features after the gate; what no path reaches is dropped.
    radial_dims
        Widths of the radial network but for its last layer.
    num_attributes
        Width of the type embedding, for the self-connection; `None` leaves it out.
    """

    def __init__(
        self,
        irreps_in: Irreps,
        irreps_edge: Irreps,
        irreps_wanted: Irreps,
        radial_dims: list[int],
        num_attributes: int | None,
    ):
        super().__init__()
        reachable = {o for _, i in irreps_in for _, e in irreps_edge for o in i * e}
        self.gate = Gate(Irreps([(mul, ir) for mul, ir in irreps_wanted if ir in reachable]))
        self.linear_1 = EquivariantLinear(irreps_in, irreps_in)
        self.convolution = Convolution(irreps_in, irreps_edge, self.gate.irreps_in)
        self.radial_mlp = ScalarMLP([*radial_dims, self.convolution.weight_numel])
        self.linear_2 = EquivariantLinear(self.convolution.irreps_out, self.gate.irreps_in)
        self.self_connection = (
            None
            if num_attributes is None
            else SelfConnection(irreps_in, num_attributes, self.gate.irreps_in)
        )

    def forward(
        self,
        h: Tensor,
        norm: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        type_attributes: Tensor,
        types: Tensor,
        edge_index: Tensor,
    ) -> Tensor:
        """Update the features ``[N, dim]``.

        `norm` normalises them as they are sent, `weights` are those of the convolution; see
        `NequIP.forward` for the other arguments.
        """
        messages = self.convolution(self.linear_1(h) * norm, harmonics, weights, edge_index)
        out = self.linear_2(messages)
        if self.self_connection is not None:
            out = out + self.self_connection(h, type_attributes, types)
        return self.gate(out)


def _hidden_irreps(config: NequIPConfig) -> Irreps:
    """Both parities of every l, or the natural one, (-1)^l, only."""
    return Irreps(
        [
            (mul, Irrep(l, p))
            for l, mul in enumerate(config.features_per_l())  # noqa: E741 - the field's symbol
            for p in ((1, -1) if config.parity else ((-1) ** l,))
        ]
    )
