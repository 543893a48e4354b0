"""Convolution, linear maps, self-connection and gate against e3nn's own modules."""

import pytest
import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.o3 import Irreps

from openmm_nequip.nn.convolution import Convolution, convolution_paths
from openmm_nequip.nn.gate import Gate
from openmm_nequip.nn.linear import EquivariantLinear, SelfConnection

from .layout import from_e3nn, random, to_e3nn

IRREPS = [
    (Irreps("4x0e"), Irreps("1x0e+1x1o"), Irreps("6x0e+3x1o")),
    (Irreps("3x0e+2x1o"), Irreps("1x0e+1x1o"), Irreps("3x0e+2x1o")),
    (Irreps("4x0e+3x0o+2x1e+2x1o"), Irreps("1x0e+1x1o"), Irreps("8x0o+8x0e+2x1o+2x1e")),
    (Irreps("4x0e+3x1o+2x2e"), Irreps("1x0e+1x1o+1x2e"), Irreps("9x0e+3x1o+2x2e")),
    (
        Irreps("2x0e+2x0o+3x1e+2x1o+1x2e+2x2o"),
        Irreps("1x0e+1x1o+1x2e"),
        Irreps("1x0o+9x0e+2x1o+2x1e+2x2o+2x2e"),
    ),
    (Irreps("2x0e+2x1o+2x2e+1x3o"), Irreps.spherical_harmonics(3), Irreps("2x0e+1x1o+1x2e+1x3o")),
    (Irreps("1x0e+2x3e+1x4e"), Irreps.spherical_harmonics(4), Irreps("3x0e+1x1e+2x2o+1x4o+1x4e")),
]


@pytest.fixture(autouse=True)
def _float64():
    """e3nn builds its modules in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def random_graph(num_atoms: int, num_edges: int) -> torch.Tensor:
    """Directed edges with repeated pairs, self-images, and an atom that receives nothing."""
    generator = torch.Generator().manual_seed(1)
    edge_index = torch.randint(num_atoms, (2, num_edges), generator=generator)
    edge_index[0] = edge_index[0].clamp(max=num_atoms - 2)
    edge_index[:, -1] = edge_index[:, 0]
    edge_index[1, 0] = edge_index[0, 0]
    return edge_index


@pytest.mark.parametrize(
    ("irreps_in", "irreps_edge", "irreps_out"), IRREPS, ids=[str(i[0]) for i in IRREPS]
)
def test_convolution(irreps_in, irreps_edge, irreps_out):
    """Messages of e3nn's tensor product, path by path, summed in a loop."""
    convolution = Convolution(irreps_in, irreps_edge, irreps_out)
    n, edges = 6, 23
    edge_index = random_graph(n, edges)
    h, harmonics = random(n, irreps_in.dim, seed=2), random(edges, irreps_edge.dim, seed=3)
    weights = random(edges, convolution.weight_numel, seed=4)

    # each irrep's channels side by side, paths in the order: input, harmonic, output
    wanted = {ir for _, ir in irreps_out}
    instructions, middle = [], []
    for i, (mul, ir_in) in enumerate(irreps_in):
        for j, (_, ir_edge) in enumerate(irreps_edge):
            for ir in ir_in * ir_edge:
                if ir in wanted:
                    instructions.append((i, j, len(middle), "uvu", True))
                    middle.append((mul, ir))
    middle, permutation, _ = Irreps(middle).sort()
    instructions = [(i, j, permutation[k], *rest) for i, j, k, *rest in instructions]
    product = o3.TensorProduct(
        irreps_in,
        irreps_edge,
        middle,
        instructions,
        internal_weights=False,
        shared_weights=False,
    )
    assert convolution.weight_numel == product.weight_numel
    assert convolution.irreps_out == middle.simplify()
    messages = product(to_e3nn(h, irreps_in)[edge_index[1]], harmonics, weights)
    expected = torch.zeros(n, middle.dim)
    for edge in range(edges):
        expected[edge_index[0, edge]] += messages[edge]

    value = convolution(h, harmonics, weights, edge_index)
    torch.testing.assert_close(
        value, from_e3nn(expected, middle.simplify()), rtol=1e-12, atol=1e-12
    )
    assert (value[-1] == 0).all()


def test_convolution_without_edges():
    convolution = Convolution(*IRREPS[1])
    value = convolution(
        random(3, 9), torch.zeros(0, 4), torch.zeros(0, convolution.weight_numel),
        torch.zeros(2, 0, dtype=torch.int64),
    )  # fmt: skip
    assert value.shape == (3, convolution.irreps_out.dim)
    assert (value == 0).all()


def test_number_of_paths():
    """The figures of the size-M network: 11 paths and 768 weights in a middle layer."""
    features = Irreps("128x0e+64x1o+32x2e")
    paths = convolution_paths(features, Irreps.spherical_harmonics(2), features)
    assert len(paths) == 11
    assert sum(path.mul for path in paths) == 768


@pytest.mark.parametrize("improper", [False, True])
def test_convolution_is_equivariant(improper):
    irreps_in, irreps_edge, irreps_out = IRREPS[4]
    convolution = Convolution(irreps_in, irreps_edge, irreps_out)
    torch.manual_seed(0)
    rotation = o3.rand_matrix() * (-1 if improper else 1)
    edge_index = random_graph(5, 14)
    h, vectors = random(5, irreps_in.dim), random(14, 3, seed=1)
    weights = random(14, convolution.weight_numel, seed=2)

    def harmonics(v):
        return o3.spherical_harmonics(irreps_edge, v, True, "component")

    def rotate(x, irreps):
        turned = to_e3nn(x, irreps) @ irreps.D_from_matrix(rotation).T
        return from_e3nn(turned, irreps)

    value = convolution(h, harmonics(vectors), weights, edge_index)
    turned = convolution(rotate(h, irreps_in), harmonics(vectors @ rotation.T), weights, edge_index)
    expected = rotate(value, convolution.irreps_out)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)
    assert (turned - value).abs().max() > 0.1


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out"),
    [
        ("3x0e", "5x0e"),
        ("3x0o+2x0e+4x1o+1x1e+2x2e", "2x0o+7x0e+3x1o+2x1e+5x2e"),
        ("4x0e+2x1e+3x1o", "3x1o+4x0e"),
    ],
)
def test_linear(irreps_in, irreps_out):
    irreps_in, irreps_out = Irreps(irreps_in), Irreps(irreps_out)
    linear, reference = EquivariantLinear(irreps_in, irreps_out), o3.Linear(irreps_in, irreps_out)
    blocks = {
        irreps_out[instruction.i_out].ir: view
        for _, instruction, view in reference.weight_views(yield_instruction=True)
    }
    linear.weight.data = torch.cat([blocks[ir].flatten() for _, ir in irreps_out])
    x = random(6, irreps_in.dim)
    expected = from_e3nn(reference(to_e3nn(x, irreps_in)), irreps_out)
    torch.testing.assert_close(linear(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("irreps_in", "irreps_out"),
    [
        ("3x0e", "5x0e+2x1o"),
        ("2x0e+3x0o+1x1e+4x1o+2x2e", "2x0o+7x0e+3x1o+2x1e+5x2o+5x2e"),
        ("4x0e+2x1e+3x1o", "3x0e"),
    ],
)
def test_self_connection(irreps_in, irreps_out):
    irreps_in, irreps_out = Irreps(irreps_in), Irreps(irreps_out)
    num_attributes, types = 3, torch.tensor([0, 1, 1, 0, 2, 1])
    connection = SelfConnection(irreps_in, num_attributes, irreps_out)
    reference = o3.FullyConnectedTensorProduct(irreps_in, f"{num_attributes}x0e", irreps_out)
    blocks = {
        irreps_out[instruction.i_out].ir: view
        for _, instruction, view in reference.weight_views(yield_instruction=True)
    }
    connection.weight.data = torch.cat(
        [blocks[ir].flatten() for _, ir in irreps_out if ir in blocks]
    )
    x, attributes = random(6, irreps_in.dim), random(3, num_attributes, seed=1)
    expected = from_e3nn(reference(to_e3nn(x, irreps_in), attributes[types]), irreps_out)
    torch.testing.assert_close(connection(x, attributes, types), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "irreps",
    [
        "4x0e",
        "4x0e+3x1o",
        "4x0e+3x0o",
        "4x0e+3x0o+2x1e+3x1o+1x2e+2x2o",
        "2x0e+4x1o+1x2e+3x3o+2x4e",
    ],
)
def test_gate(irreps):
    """Even scalars SiLU, odd ones tanh, the others times SiLU of even gates."""
    irreps = Irreps(irreps)
    scalars = Irreps([(mul, ir) for mul, ir in irreps if ir.l == 0])
    gated = Irreps([(mul, ir) for mul, ir in irreps if ir.l > 0])
    gates = Irreps([(mul, (0, 1)) for mul, _ in gated])
    silu = torch.nn.functional.silu
    reference = e3nn_nn.Gate(
        scalars,
        [silu if ir.p == 1 else torch.tanh for _, ir in scalars],
        gates,
        [silu for _ in gates],
        gated,
    )
    gate = Gate(irreps)
    assert gate.irreps_in == reference.irreps_in
    assert gate.irreps_out == reference.irreps_out
    x = random(9, gate.irreps_in.dim)
    expected = from_e3nn(reference(to_e3nn(x, gate.irreps_in)), irreps)
    # e3nn draws its constants from a million random numbers; ours are those numbers
    torch.testing.assert_close(gate(x), expected, rtol=1e-12, atol=1e-12)
