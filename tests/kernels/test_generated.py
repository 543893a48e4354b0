"""Generated modules: what runs is what was generated."""

import inspect
import os
import sys

import pytest

from openmm_nequip.kernels import generated

SOURCE = 'def answer():\n    return "{}"\n'


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_CACHE", str(tmp_path / "cache"))
    generated.folder.cache_clear()
    yield
    generated.folder.cache_clear()


def load(source: str, forget: bool = False):
    module = generated.load("test", source)
    if forget:
        del sys.modules[module.__name__]
    return module


def test_source_can_be_inspected_and_is_in_the_file(tmp_path):
    source = SOURCE.format("inspected")
    module = load(source)
    assert module.answer() == "inspected"
    assert inspect.getsource(module.answer) == source
    [file] = (tmp_path / "cache").iterdir()
    assert file.read_text() == source
    assert str(file) == module.answer.__code__.co_filename
    assert load(source) is module


def test_equal_file_is_left_alone_and_another_replaced(tmp_path):
    source = SOURCE.format("right")
    load(source, forget=True)
    [file] = (tmp_path / "cache").iterdir()
    os.utime(file, (1, 1))
    load(source, forget=True)
    assert file.stat().st_mtime == 1
    file.write_text(SOURCE.format("wrong"))
    module = load(source)
    assert module.answer() == "right"
    assert file.read_text() == source
    file.write_text(SOURCE.format("wrong"))
    assert inspect.getsource(module.answer) == source


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENMM_NEQUIP_CACHE", str(tmp_path / "file" / "cache"))
    generated.folder.cache_clear()
    assert load(SOURCE.format("temporary")).answer() == "temporary"
    assert tmp_path not in generated.folder().parents


def test_user_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENMM_NEQUIP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    generated.folder.cache_clear()
    assert generated.folder() == tmp_path / "openmm-nequip" / "kernels"
