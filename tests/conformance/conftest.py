"""Every test that asks for `potential` runs for each architecture, engine and dtype."""

import os

import pytest
import torch

from openmm_nequip.potential import Potential

from .cases import CASES, DEVICE, ENGINES, build

if DEVICE != "cpu":  # where PyTorch's own sums have a fixed order only if asked
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=True)

_built: dict[tuple[str, str, str], Potential] = {}


#: Kernels take seconds to compile: float32 has the same source but for the dtype's name.
_FUSED_IN_FLOAT32 = ("l1-parity", "l2-parity-zbl", "l2-spline", "l3-parity")


def _parameters(dtypes: list[str]) -> list:
    return [
        pytest.param(
            (case, dtype, engine),
            id=f"{case}-{engine}-{dtype}",
            marks=pytest.mark.xdist_group(case),  # one process compiles what its tests need
        )
        for case in CASES
        for engine in ENGINES
        for dtype in dtypes
        if (engine, dtype) != ("fused", "float32") or case in _FUSED_IN_FLOAT32
    ]


def _cached(key: tuple[str, str, str]) -> Potential:
    if key not in _built:
        _built[key] = build(*key)
    return _built[key].eval()


@pytest.fixture(params=_parameters(["float32", "float64"]))
def potential(request: pytest.FixtureRequest) -> Potential:
    return _cached(request.param)


@pytest.fixture(params=_parameters(["float64"]))
def potential64(request: pytest.FixtureRequest) -> Potential:
    """For derivatives by finite differences, which need float64."""
    return _cached(request.param)


@pytest.fixture
def case(request: pytest.FixtureRequest):
    """The case behind `potential` or `potential64`."""
    name = next(f for f in ("potential", "potential64") if f in request.fixturenames)
    return CASES[request.node.callspec.params[name][0]]
