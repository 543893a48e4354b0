"""The Triton kernels without a GPU: results in Triton's interpreter, and that they compile."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from e3nn.o3 import Irreps

from openmm_nequip.kernels import triton_backend, triton_source
from openmm_nequip.kernels.form import form, form_key
from openmm_nequip.kernels.generated import load
from openmm_nequip.nn.convolution import Convolution

from .triton_interpreter import DTYPES, FUNCTIONS

triton = pytest.importorskip("triton")

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> dict:
    process = subprocess.run(
        [sys.executable, "-m", "tests.kernels.triton_interpreter"],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("dtype", "case"), [(dtype, case) for dtype, cases in DTYPES.items() for case in cases]
)
def test_same_as_pytorch(report, dtype, case, function):
    errors = report["errors"][f"{dtype}-{case}-{function}"]
    assert errors
    assert all(error <= TOLERANCE[dtype] for error in errors)  # none is NaN either


@pytest.mark.parametrize("function", FUNCTIONS)
def test_split_into_many_kernels(report, function):
    errors = report["errors"][f"float64-split-{function}"]
    assert errors
    assert all(error <= TOLERANCE["float64"] for error in errors)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_bitwise_repeatable(report, function):
    assert report["repeated"][function]


@pytest.mark.parametrize("writable", [True, False])
def test_a_kernel_is_tried_before_the_engine_is_chosen(tmp_path, writable):
    code = (
        "import os, torch; from openmm_nequip.kernels.triton_backend import why_no_kernel_runs; "
        "print(repr(why_no_kernel_runs(torch.device('cpu')))); "
        "print(os.environ.get('TRITON_CACHE_DIR', 'as usual'))"
    )
    if not writable:
        (tmp_path / "home").touch()  # no folder
    environment = os.environ | {
        "TRITON_INTERPRET": "1", "HOME": str(tmp_path / "home"),
        "OPENMM_NEQUIP_CACHE": str(tmp_path / "kernels"),
    }  # fmt: skip
    environment.pop("TRITON_CACHE_DIR", None)
    environment.pop("TRITON_HOME", None)
    output = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    expected = "as usual" if writable else str(tmp_path / "kernels" / "triton")
    assert output.splitlines() == ["''", expected]


def test_a_kernel_that_cannot_be_launched_is_a_reason(monkeypatch):
    def broken(*_):
        raise RuntimeError("Failed to find C compiler. Please specify via CC")

    monkeypatch.setattr(triton_backend, "load", broken)
    triton_backend.why_no_kernel_runs.cache_clear()
    reason = triton_backend.why_no_kernel_runs(torch.device("cpu"))
    triton_backend.why_no_kernel_runs.cache_clear()
    assert "Failed to find C compiler" in reason
    assert "needs a C compiler and Python's headers" in reason


def test_nan_reaches_the_atoms_that_see_it(report):
    found, expected = report["nan"]
    assert found == expected


@pytest.mark.parametrize("variant", ["weights", "radial", "second"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_compiles_for_nvidia(direction, variant):
    """The interpreter accepts what the compiler does not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    convolution = Convolution(*map(Irreps, ("32x0e+5x1o", "1x0e+1x1o", "1x0e+1x1o")))
    source = triton_source.source(form(form_key(convolution)), direction, variant, words=1)
    for kernel, _ in load(f"{direction}_{variant}", source).LAUNCHES:
        kinds = {"others": "*i64", "order": "*i64", "start": "*i64"}
        kinds |= {"num_edges": "i32", "intervals": "i32"}
        signature = {name: kinds.get(name, "*fp32") for name in kernel.arg_names}
        compiled = triton.compile(
            ASTSource(kernel, signature),
            target=GPUTarget("cuda", 90, 32),
            options={"num_warps": triton_source.NUM_WARPS},
        )
        assert "st.global" in compiled.asm["ptx"]
        assert "atom." not in compiled.asm["ptx"]
