"""Importing the package is cheap, as openmm-ml does it for everybody."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["openmm_nequip", "openmmml"])
def test_import_brings_neither_torch_nor_e3nn(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'e3nn') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_public_names():
    import openmm_nequip

    assert all(hasattr(openmm_nequip, name) for name in openmm_nequip.__all__)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        openmm_nequip.nothing_like_it  # noqa: B018
