"""The benchmarks of accuracy: their runs, their record and their tables."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from openmm_nequip.config import load_config
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import find_model, load_file
from openmm_nequip.training.config import TrainConfig
from openmm_nequip.training.sets import Reader, load_sets

FOLDER = Path(__file__).parents[2] / "benchmarks/accuracy"
KCAL = 4.184 / 96.48533212  # eV
TINY = ["model.num_layers=1", "model.l_max=1", "model.num_features=4", "model.r_max=3.0"]
OTHER_START = ["training.fine_tune_from=ethanol-pbe"]
TINY += ["training.max_epochs=1", "training.num_threads=1", "training.engine=reference"]


def module(name: str):
    """Import a script of the folder under a name that nothing else has."""
    spec = importlib.util.spec_from_file_location(f"accuracy_{name}", FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def scripts():
    """Modules of the folder: run and tables, and those that they import."""
    sys.path.append(str(FOLDER))
    try:
        yield {name: module(name) for name in ("run", "tables")}
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("tasks", "frames", "record", "selection", "curve"):
            sys.modules.pop(name, None)


@pytest.fixture
def run(scripts):
    return scripts["run"]


@pytest.fixture
def tables(scripts):
    return scripts["tables"]


@pytest.fixture
def tasks(run):
    return run.tasks


@pytest.fixture
def frames(scripts):
    return sys.modules["frames"]


@pytest.fixture
def record(run):
    return run.record


def water(count: int, seed: int) -> dict[str, np.ndarray]:
    """Distorted water molecules with bonds as springs, in the keys and units of rMD17."""
    rng = np.random.default_rng(seed)
    rest = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    coords = rest + rng.normal(0, 0.03, (count, 3, 3))
    energies, forces = np.full(count, -47000.0), np.zeros_like(coords)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        vector = coords[:, j] - coords[:, i]
        length = np.linalg.norm(vector, axis=1)
        stretch = length - np.linalg.norm(rest[j] - rest[i])
        energies += 200 * stretch**2
        pull = (400 * stretch / length)[:, None] * vector
        forces[:, i] += pull
        forces[:, j] -= pull
    return {
        "nuclear_charges": np.array([8, 1, 1]),
        "coords": coords,
        "energies": energies,
        "forces": forces,
    }


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A folder of reference data with something in the place of rMD17's ethanol and benzene."""
    folder = tmp_path / "data"
    (folder / "rmd17").mkdir(parents=True)
    for k, molecule in enumerate(("ethanol", "benzene")):
        for n, (name, count) in enumerate((("train", 70), ("test", 9))):
            path = folder / "rmd17" / f"rmd17_{molecule}_{name}_01.npz"
            np.savez(path, **water(count, seed=10 * k + n))
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", str(folder))
    return folder


@pytest.fixture
def command(run, tmp_path):
    """Run the command line and return what it prints; errors of input are raised."""

    def call(*arguments: str) -> str:
        place = ["--output", str(tmp_path / "runs"), "--results", str(tmp_path / "results.json")]
        outcome = CliRunner().invoke(run.app, [*arguments, *place])
        if outcome.exception is not None and not isinstance(outcome.exception, SystemExit):
            raise outcome.exception
        assert outcome.exit_code == 0, outcome.output
        return outcome.output

    return call


def result(tables, case, forces: float, energy: float = 1.0, **changes) -> dict:
    """A made-up result of a run with the settings of today."""
    digest = tables.tasks.digest(tables.tasks.configuration(case))
    errors = {"energy_mae_meV": energy, "forces_mae_meV_per_A": forces, "frames": 1000}
    return {
        "run": f"{case.name}-{digest}",
        "task": case.task,
        "molecule": case.molecule,
        "split": case.split,
        "l_max": case.l_max,
        "frames": case.frames,
        "seed": case.seed,
        "digest": digest,
        "test": errors,
        "seconds": 600.0,
        "threads": 1,
        "machine": {"cpu": "a CPU", "gpu": None},
        "versions": {"torch": "2.9"},
        "date": "2026-01-02",
    } | changes


def cells(text: str, first: str) -> list[str]:
    """Cells of the first row of a table that begins with this."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.fixture
def published() -> dict:
    return yaml.safe_load((FOLDER / "published.yaml").read_text())


def test_every_task_has_a_valid_configuration(tasks, monkeypatch):
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", "data")
    used = set()
    for task in tasks.TASKS:
        start = OTHER_START if task == "fine-tuning" else []
        for case in tasks.cases(task):
            config = tasks.configuration(case, overrides=start)
            used.add(case.config_file)
            assert config.data.n_train == case.frames
            assert config.data.test_file or config.data.n_test
            assert config.citation
            assert case.l_max in (None, config.model.l_max)
    assert used == set((FOLDER / "configs").glob("*.yaml"))


def test_another_number_of_frames_keeps_the_optimizer_steps(tasks, data):
    file = load_config(TrainConfig, FOLDER / "configs/learning-curve.yaml")
    steps = file.training.max_epochs * file.data.n_train / file.training.batch_size
    for case in tasks.cases("learning-curve", l_max=[1]):
        config = tasks.configuration(case)
        epoch = case.frames / config.training.batch_size
        assert 0 <= config.training.max_epochs * epoch - steps < epoch
        assert config.model.l_max == 1
    override = ["training.max_epochs=3", "model.l_max=2"]
    config = tasks.configuration(case, overrides=override)
    assert (config.training.max_epochs, config.model.l_max) == (3, 2)


def test_overrides_of_the_data_are_refused(tasks, data):
    (case,) = tasks.cases("water")
    with pytest.raises(InputError, match=r"'data.n_train=3': only model\.\* and training\.\*"):
        tasks.configuration(case, overrides=["data.n_train=3"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rmd18",), "no task 'rmd18'; choose from rmd17"),
        (("rmd17", None, ["ethan"]), "no molecule 'ethan'; choose from aspirin"),
        (("water", None, ["ethanol"]), "task 'water' has no --molecule"),
        (("rmd17", None, None, [1]), "task 'rmd17' has no --l-max"),
        (("rmd17", None, ["3bpa"]), "no molecule '3bpa'"),
        (("water", None, None, None, None, "01", ["scratch"]), "task 'water' has no --start"),
        (("fine-tuning", None, None, None, None, "01", ["raw"]), "no start 'raw'; choose from scr"),
    ],
)
def test_wrong_arguments(tasks, arguments, message):
    with pytest.raises(InputError, match=message):
        tasks.cases(*arguments)


def test_digest_is_of_settings_only(tasks, data, monkeypatch):
    def digest(case, *overrides: str) -> str:
        return tasks.digest(tasks.configuration(case, overrides=list(overrides)))

    first, second = tasks.cases("rmd17", [50], ["ethanol"], seeds=[1, 2])
    same = digest(first)
    assert digest(second) == same
    assert digest(first, "training.num_threads=7", "training.accelerator=cpu") == same
    assert digest(first, "training.learning_rate=0.5") != same
    assert digest(first, "model.l_max=1") != same
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", "elsewhere")
    assert digest(first) == same


def test_draw(frames):
    hashes = [bytes([k % 90]) for k in range(100)]  # the last ten are copies of the first
    small, large = (frames.draw(hashes, n, 10, 20, seed=1) for n in (10, 60))
    assert set(small["train"]) < set(large["train"])
    assert (small["val"], small["test"]) == (large["val"], large["test"])
    assert sorted(large["train"] + large["val"] + large["test"]) == list(range(90))
    other = frames.draw(hashes, 10, 10, 20, seed=2)
    assert other["test"] == small["test"]
    assert other["train"] != small["train"]
    with pytest.raises(InputError, match=r"61 training frames and 10 for validation .* are 70"):
        frames.draw(hashes, 61, 10, 20, seed=1)


def test_run_is_recorded_and_not_repeated(run, command, data, tmp_path, monkeypatch):
    arguments = ["rmd17", "--frames", "10", "--molecule", "ethanol", "--molecule", "benzene"]
    command(*arguments, *TINY)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["molecule"] for r in results] == ["ethanol", "benzene"]
    first = results[0]
    assert (first["frames"], first["seed"], first["split"], first["epochs"]) == (10, 1, "01", 1)
    assert first["test"]["frames"] == 9
    assert first["validation"]["frames"] == 50
    folder = tmp_path / "runs" / first["run"]
    assert json.loads((folder / "metrics.json").read_text())["test"] == first["test"]
    assert (folder / "rmd17-ethanol-10-split01-seed1.safetensors").exists()
    network, training = first["settings"]["network"], first["settings"]["training"]
    assert (network["num_layers"], network["r_max"], network["num_bessels"]) == (1, 3.0, 8)
    assert (training["max_epochs"], training["loss"]) == (1, "huber")

    def refuse(*arguments):
        raise AssertionError("a finished run was started again")

    monkeypatch.setattr(run, "train", refuse)
    before = (tmp_path / "results.json").read_bytes()
    assert command(*arguments, *TINY).count("is finished") == 2
    assert (tmp_path / "results.json").read_bytes() == before

    (tmp_path / "results.json").unlink()  # stopped between the end of a run and its record
    command(*arguments, *TINY)
    assert [r["test"] for r in run.record.read(tmp_path / "results.json")] == [
        r["test"] for r in results
    ]


def test_interrupted_run_goes_on(run, command, data, tmp_path, monkeypatch):
    arguments = ["rmd17", "--frames", "10", "--molecule", "ethanol", *TINY[:-3]]
    arguments += ["training.max_epochs=4", "training.engine=reference"]
    original = run.train

    def stop_early(config, folder):
        """Stop as after a signal, with the checkpoint of the second epoch."""
        from openmm_nequip.training.loop import Interrupted, TrainingLoop

        on_end = TrainingLoop.on_train_batch_end

        def stop(self, *arguments):
            on_end(self, *arguments)
            if self.progress.step == 4:
                raise Interrupted

        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "on_train_batch_end", stop)
            return original(config, folder)

    monkeypatch.setattr(run, "train", stop_early)
    with pytest.raises(run.Interrupted):
        command(*arguments)
    assert not (tmp_path / "results.json").exists()
    monkeypatch.setattr(run, "train", original)
    assert "going on after epoch" in command(*arguments)
    (found,) = run.record.read(tmp_path / "results.json")
    assert found["epochs"] == 4


def test_scratch_differs_from_fine_tuning_by_start_and_learning_rate(tasks, data):
    for case in tasks.cases("fine-tuning"):
        config = tasks.configuration(case, overrides=OTHER_START)
        values = config.model_dump(exclude={"name", "model"})
        start = values["training"].pop("fine_tune_from")
        shifts = values["training"].pop("fine_tune_shifts")
        rate = values["training"].pop("learning_rate")
        if case.start == "scratch":
            scratch, scratch_rate = values, rate
            assert (start, shifts) == (None, "keep")
            assert (config.model.num_layers, config.model.r_max) == (4, 4.0)
            assert config.model.elements is None
        else:
            assert (start, shifts) == ("ethanol-pbe", "estimate")
            assert rate < scratch_rate
            assert values == scratch


def test_digest_is_of_the_potential_that_is_fine_tuned(tasks, data, tmp_path):
    scratch, tuned = tasks.cases("fine-tuning", [10], ["ethanol"])

    def digest(case, start) -> str:
        override = f"training.fine_tune_from={start}"
        return tasks.digest(tasks.configuration(case, overrides=[override]))

    same, other = tmp_path / "same.safetensors", tmp_path / "other.safetensors"
    shutil.copy(find_model("ethanol-pbe"), same)
    potential = load_file(same)
    potential.get_parameter("network.shifts").data.add_(1.0)
    potential.save(other)
    assert digest(tuned, same) == digest(tuned, "ethanol-pbe") != digest(tuned, other)
    assert digest(scratch, same) == digest(scratch, other) != digest(tuned, same)


def test_fine_tuning_beside_training_from_scratch(command, tables, data, tmp_path):
    small = ["training.max_epochs=1", "training.num_threads=1", "training.engine=reference"]
    arguments = ["fine-tuning", "--frames", "10", "--molecule", "ethanol", *OTHER_START, *small]
    (data / "rmd17" / "rmd17_ethanol_test_01.npz").unlink()
    np.savez(data / "rmd17" / "rmd17_ethanol_test_01.npz", **water(5, seed=1))
    command(*arguments)
    scratch, tuned = tables.record.read(tmp_path / "results.json")
    assert (scratch["start"], tuned["start"]) == ("scratch", "fine-tuned")
    assert "before" not in scratch
    assert tuned["fine_tuned_from"] == "ethanol-pbe"
    assert tuned["before"]["frames"] == tuned["test"]["frames"] == 5
    # Shifts are estimated: total energies of another kind are far away, errors are not.
    assert tuned["before"]["energy_mae_meV"] < 5000
    assert tuned["test"]["forces_mae_meV_per_A"] != tuned["before"]["forces_mae_meV_per_A"]
    assert command(*arguments).count("is finished") == 2


def test_table_of_fine_tuning(tables, data, monkeypatch):
    monkeypatch.setattr(tables.tasks, "find_model", lambda name: find_model("ethanol-pbe"))
    cases = tables.tasks.cases("fine-tuning", [50], ["uracil", "3bpa"], seeds=[1, 2])
    forces = {"scratch": (60.0, 62.0), "fine-tuned": (20.0, 24.0)}
    results = [
        result(tables, case, forces[case.start][case.seed - 1], start=case.start)
        | ({"before": {"forces_mae_meV_per_A": 90.0}} if case.start == "fine-tuned" else {})
        for case in cases
    ]
    text = tables.fine_tuning_markdown(results)
    row = cells(text, "uracil | 50")
    assert row[2:6] == ["90.0", "61.0 ± 1.4", "22.0 ± 2.8", "–"]
    assert cells(text, "3BPA | 50")[2:] == row[2:]
    assert "| aspirin |" not in text  # nothing was run
    assert "- 50 training frames, scratch: aspirin, ethanol\n" in text
    assert "fine-tuning" not in tables.markdown(results, {"sources": {}}, None)
    other = [r | {"digest": "00000000"} for r in results]
    assert "not shown: 8" in tables.fine_tuning_markdown(other)


def test_results_are_never_replaced(record, tmp_path):
    path = tmp_path / "results.json"
    first = {"run": "a", "test": {"energy_mae_meV": 1.0}}
    assert record.append(path, [first]) == 1
    assert record.append(path, [first, {"run": "b"}]) == 1
    before = path.read_bytes()
    with pytest.raises(InputError, match="has another result of a; results are not replaced"):
        record.append(path, [{"run": "c"}, {**first, "test": {"energy_mae_meV": 0.5}}])
    assert path.read_bytes() == before
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a list of results"):
        record.append(path, [first])


def test_published_files_of_rmd17_are_cut(tasks, frames, data, tmp_path):
    folder = data / "rmd17"
    (folder / "npz_data").mkdir()
    (folder / "splits").mkdir()
    whole = water(40, seed=5)
    np.savez(folder / "npz_data/rmd17_uracil.npz", **whole, old_indices=np.arange(40))
    chosen = {"train": [7, 3, 30], "test": [1, 39]}
    (case,) = tasks.cases("rmd17", [2], ["uracil"], split="03")
    with pytest.raises(InputError, match=r"neither rmd17_uracil_train_03.npz .*/index_train_03"):
        frames.rmd17_files(case, tmp_path / "runs")
    for name, indices in chosen.items():
        np.savetxt(folder / f"splits/index_{name}_03.csv", indices, fmt="%d")
    files = frames.rmd17_files(case, tmp_path / "runs")
    for key, name in (("file", "train"), ("test_file", "test")):
        with np.load(files[key]) as arrays:
            np.testing.assert_array_equal(arrays["coords"], whole["coords"][chosen[name]])
            np.testing.assert_array_equal(arrays["energies"], whole["energies"][chosen[name]])


def test_means_are_of_the_molecules_that_were_run(tables, published, data):
    cases = tables.tasks.cases("rmd17", [50])
    results = [result(tables, case, forces=10.0 + k) for k, case in enumerate(cases)]
    text = tables.markdown(results[1:], published, None)
    assert cells(text, "aspirin")[1] == "–"
    assert cells(text, "azobenzene")[1] == "11.0"
    of_nine = [(10 * m - f) / 9 for m, f in ((30.8, 52.0), (24.7, 43.9))]
    shown = cells(text, "**mean of these 9**")[1:4]
    assert shown[0] == "**15.0**"
    assert [float(value) for value in shown[1:]] == pytest.approx(of_nine, abs=0.1)
    assert "rMD17, 50 training frames: aspirin\n" in text
    text = tables.markdown(results, published, None)
    assert cells(text, "**mean**")[1:4] == ["**14.5**", "30.8", "24.7"]
    assert cells(text, "aspirin")[1:5] == ["10.0", "52.0", "43.9", "1.0"]
    assert "rMD17, 50 training frames: aspirin" not in text


def test_fine_tuned_beside_new_weights(tables, published, data, monkeypatch):
    monkeypatch.setattr(tables.tasks, "find_model", lambda name: find_model("ethanol-pbe"))
    cases = tables.tasks.cases("rmd17", [50])
    results = [result(tables, case, forces=20.0) for case in cases]
    assert "fine-tuned" not in tables.markdown(results, published, None)
    everything = [*tables.tasks.MOLECULES, "3bpa"]
    tuned = tables.tasks.cases("fine-tuning", [10, 50], everything, starts=["fine-tuned"])
    tuned = [result(tables, case, forces=15.0, start=case.start) for case in tuned]
    other = [{**tuned[0], "digest": "00000000"}]
    assert "fine-tuned" not in tables.markdown(results + other, published, None)
    text = tables.markdown(results + tuned, published, None)
    assert cells(text, "molecule")[1:5] == [
        "**forces**, MAE (meV/Å)", "fine-tuned", "NequIP", "MACE"
    ]  # fmt: skip
    assert cells(text, "aspirin")[1:5] == ["20.0", "15.0", "52.0", "43.9"]
    assert cells(text, "**mean**")[1:5] == ["**20.0**", "**15.0**", "30.8", "24.7"]
    text = tables.markdown(results + tuned[:-2], published, None)  # 3BPA and uracil are missing
    assert cells(text, "**mean**")[1:3] == ["**20.0**", "–"]


def test_several_seeds(tables, published, data):
    cases = tables.tasks.cases("rmd17", [50], ["ethanol"], seeds=[1, 2, 3])
    results = [result(tables, case, forces) for case, forces in zip(cases, (30, 40, 35))]  # noqa: B905
    row = cells(tables.markdown(results, published, None), "ethanol")
    assert row[1] == "35.0 ± 5.0"
    assert row[-2:] == ["3", "10"]


def test_other_settings_are_not_shown(tables, published, data):
    case, trial = tables.tasks.cases("rmd17", [50], ["ethanol"], seeds=[1, 2])
    results = [result(tables, case, 30.0), result(tables, trial, 5.0, digest="00000000")]
    text = tables.markdown(results, published, None)
    assert cells(text, "ethanol")[1] == "30.0"
    assert "results of runs with other settings, in `results.json` and not shown: 1\n" in text


def test_other_splits_are_not_shown(tables, published, data):
    (case,), (other,) = (
        tables.tasks.cases("rmd17", [50], ["ethanol"], split=split) for split in ("01", "02")
    )
    text = tables.markdown(
        [result(tables, case, 30.0), result(tables, other, 5.0)], published, None
    )
    assert cells(text, "ethanol")[1] == "30.0"


def test_other_data_beside_published_figures(tables, published, data):
    (case,) = tables.tasks.cases("lips", [100])
    text = tables.markdown([result(tables, case, 21.5)], published, None)
    assert cells(text, "**openmm-nequip** | 10")[2:] == ["not run", "–", "–", "–"]
    assert cells(text, "**openmm-nequip** | 100")[2:] == [
        "1000 held-out frames",
        "1.0",
        "21.5",
        "10",
    ]
    assert cells(text, "NequIP | 100")[3:5] == ["–", "25.8"]
    assert "stress" not in text
    assert "Silicon, training frames: 194" in text


def test_choices_are_compared_by_validation_errors(tables, published, data):
    cases = tables.tasks.cases("choices", changes=["as it is", "3 layers"])
    assert [case.name for case in cases] == [
        "choices-uracil-50-split01-as-it-is-seed1", "choices-uracil-50-split01-3-layers-seed1",
    ]  # fmt: skip
    three = tables.tasks.configuration(cases[1])
    assert (three.model.num_layers, three.model.l_max) == (3, 3)
    validation = {"energy_mae_meV": 3.0, "forces_mae_meV_per_A": 30.0}
    results = [
        result(tables, case, forces=99.0, change=case.change, validation=validation)
        for case in cases
    ]
    text = tables.markdown(results, published, None)
    assert cells(text, "3 layers") == ["3 layers", "30.0", "3.0", "10"]
    assert "99.0" not in text
    assert "choices, uracil: l_max 2, l_max 1" in text
    with pytest.raises(InputError, match="there is no change '5 layers'; choose from as it is"):
        tables.tasks.cases("choices", changes=["5 layers"])


def test_every_choice_is_a_valid_configuration(tasks, data):
    digests = {tasks.digest(tasks.configuration(case)) for case in tasks.cases("choices")}
    assert len(digests) == len(tasks.CHANGES)


def test_learning_curve(tables, published, data, tmp_path):
    path = tmp_path / "images" / "curve.png"
    cases = tables.tasks.cases("learning-curve", [50, 200], l_max=[0, 2])
    results = [result(tables, case, 1000 / case.frames) for case in cases]
    assert not tables.curve.plot(results[:1], published, path)
    assert tables.curve.plot(results, published, path)
    assert path.stat().st_size > 5000
    text = tables.markdown(results, published, "images/curve.png")
    assert cells(text, "2") == ["2", "20.0", "–", "5.0", "–", "–", "8.5"]
    assert cells(text, "1")[1:] == ["–"] * 5 + ["12.6"]
    assert "](images/curve.png)" in text


def test_a_page_without_markers_is_refused_before_anything_is_written(tables, data, tmp_path):
    page = tmp_path / "accuracy.md"
    page.write_text(f"{tables.BEGIN}\nold\n{tables.END}\n")
    page.with_name("fine-tuning.md").write_text("no markers")
    with pytest.raises(InputError, match=r"fine-tuning\.md' has not the lines"):
        tables.main(add=[], results=tmp_path / "results.json", page=page, show=False)
    assert "old" in page.read_text()


def test_page_is_rewritten_between_its_markers(tables, data, tmp_path):
    page, results = tmp_path / "accuracy.md", tmp_path / "results.json"
    second = page.with_name("fine-tuning.md")
    for path in (page, second):
        path.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n")
    (case,) = tables.tasks.cases("quartz")
    other = tmp_path / "other.json"
    other.write_text(json.dumps([result(tables, case, 9.0)]))
    tables.main(add=[other], results=results, page=page, show=False)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text + second.read_text()
    assert "training frames, scratch: aspirin" in second.read_text()
    assert cells(text, "**openmm-nequip** | 100")[4] == "9.0"
    assert len(json.loads(results.read_text())) == 1


def test_page_has_the_markers(tables):
    for page in (tables.PAGE, tables.PAGE.with_name(tables.FINE_TUNING)):
        text = page.read_text()
        assert text.count(tables.BEGIN) == text.count(tables.END) == 1


SIZES = {
    # training, validation and test frames; atoms; mean energy per atom (eV); RMS force (eV/Å)
    "rmd17": ((50, 50, 1000), 21, (-900, -800), (0.5, 1.5)),
    "learning-curve": ((50, 50, 1000), 21, (-900, -800), (0.5, 1.5)),
    "3bpa": ((400, 50, 50), 27, (-660, -650), (0.5, 1.5)),
    "acac": ((400, 50, 50), 15, (-630, -620), (0.5, 1.6)),
    "ethanol-ccsdt": ((600, 50, 149), 9, (-470, -460), (0.5, 1.6)),
    "lips": ((10, 50, 50), 83, (-5, -4), (0.2, 1.0)),
    "water": ((133, 20, 167), 192, (-160, -150), (0.5, 2.0)),
    "quartz": ((100, 20, 30), 72, (-345, -335), (0.5, 3.0)),
    "silicon": ((194, 20, 25), None, (-5.5, -4), (0.1, 1.5)),
    "fine-tuning": ((10, 50, 1000), 21, (-900, -800), (0.5, 1.5)),
}


@pytest.fixture
def with_data(tasks, frames, reference_data, tmp_path, monkeypatch):
    """Return the configuration of a case and the frames it uses, if they are there."""
    monkeypatch.setenv("OPENMM_NEQUIP_DATA", str(reference_data.folder))

    def configuration(case, overrides=()) -> TrainConfig:
        config = tasks.configuration(case, overrides=overrides)
        data, folder = config.data, reference_data.folder
        names = [data.file] if isinstance(data.file, str) else data.file
        names = [*names, *filter(None, (data.test_file, data.isolated_atoms_file))]
        if (folder / f"rmd17/npz_data/rmd17_{case.molecule}.npz").exists():  # not cut yet
            names = [f"rmd17/splits/index_{name}_{case.split}.csv" for name in ("train", "test")]
        reference_data.with_all(*(name.removeprefix(f"{folder}/") for name in names))
        return frames.with_frames(case, config, tmp_path)

    return configuration


@pytest.mark.parametrize("task", SIZES)
def test_reference_data(tasks, with_data, tmp_path, task):
    config = with_data(tasks.cases(task)[0], OTHER_START if task == "fine-tuning" else [])
    reader = Reader(config.data, config.model.r_max, tmp_path, lambda text: None)
    sets = load_sets(reader, config.seed)
    sizes, atoms, energy, force = SIZES[task]
    assert tuple(sets.sizes.values()) == sizes
    found = [*sets.train, *sets.val, *sets.test]
    assert atoms is None or {len(frame) for frame in found} == {atoms}
    assert energy[0] < np.mean([frame.energy / len(frame) for frame in found]) < energy[1]
    components = np.concatenate([frame.forces.ravel() for frame in found])
    assert force[0] < np.sqrt(np.mean(components**2)) < force[1]
    assert len(sets.isolated) == {"3bpa": 4, "acac": 3}.get(task, 0)
    with_stress = {frame.stress is not None for frame in found}
    assert with_stress == {task == "quartz"}


def test_frames_of_3bpa_for_fine_tuning(tasks, with_data):
    (case,) = tasks.cases("fine-tuning", [200], ["3bpa"], starts=["fine-tuned"])
    config = with_data(case, OTHER_START)
    split = json.loads(Path(config.data.split_file).read_text())
    assert [len(split[name]) for name in ("train", "val", "test")] == [200, 50, 250]


@pytest.mark.parametrize("number", range(10))
def test_all_molecules_of_rmd17(tasks, with_data, tmp_path, number):
    (case,) = tasks.cases("rmd17", [950], [tasks.MOLECULES[number]])
    config = with_data(case)
    split = json.loads(Path(config.data.split_file).read_text())
    assert (len(split["train"]), len(split["val"])) == (950, 50)
    assert not set(split["train"]) & set(split["val"])
    raw = np.load(config.data.file)
    reader = Reader(config.data, 4.0, tmp_path, lambda text: None)
    test = reader.read(config.data.test_file)
    assert len(test) == len(raw["energies"]) == 1000
    assert test[0].energy == pytest.approx(
        np.load(config.data.test_file)["energies"][0] * KCAL, rel=1e-12
    )
