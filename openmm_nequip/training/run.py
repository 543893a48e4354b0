"""`train`: one call from a configuration to a run folder with a model file.

Several processes: ``training.devices=2`` starts them on this machine. Under ``torchrun`` or
SLURM's ``srun`` every process runs the same command and Lightning finds its place from the
environment: ``torchrun --nproc-per-node 4 --nnodes 2 ... -m openmm_nequip train config.yaml
training.devices=4 training.num_nodes=2``, or a job script with ``--nodes=2
--ntasks-per-node=4`` and ``srun openmm-nequip train ...`` with the same two keys. `batch_size`
counts the frames of all processes together, so that the result depends on it alone.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from ..data.dataset import Targets, collate_batch
from ..data.graph import Graph
from ..domain import read_domain
from ..errors import InputError
from ..kernels.engine import choose_engine, set_num_threads
from ..potential import Potential
from ..versions import versions
from .config import TrainConfig
from .display import Display
from .ema import EMA
from .evaluation import Predictions, evaluation_batches, gather, predict
from .finish import finish
from .loop import Interrupted, TrainingLoop
from .loss import Loss
from .module import PotentialModule
from .preparation import Preparation
from .runfolder import RunFolder
from .sampler import EpochBatches, Unlabelled
from .schedule import Schedule
from .sets import Reader, Sets, StoredFrames, has_labels, load_sets, make_dataset

_STEPS = 8000  # of a run on 50 frames whose length is left open; a quarter for fine-tuning
_STEPS_BETWEEN_VALIDATIONS = 100


def train(config: TrainConfig, output: Path) -> Path:
    """Train a potential, or go on with a run that was interrupted.

    Parameters
    ----------
    config
        The run's configuration.
    output
        Run folder.

    Returns
    -------
    Path
        The model file.

    Raises
    ------
    InputError
        Something in the configuration, the data or the run folder is wrong.
    Interrupted
        The run was asked to stop (Ctrl-C, SIGTERM) and has written a checkpoint.
    """
    _quiet()
    first = _is_first_process()
    folder = RunFolder(output, writes=first)
    try:
        return _train(config, folder, first)
    except Interrupted:
        if first:
            _say("stopped; a checkpoint is written: the same command goes on from there")
        raise
    finally:
        folder.release()


def _train(config: TrainConfig, folder: RunFolder, first: bool) -> Path:
    set_num_threads(_num_threads(config))
    say = _say if first else _say_nothing
    preparation = Preparation(config)
    cache = folder.path / "cache"
    reader = Reader(config.data, preparation.r_max, cache, say)
    sets = load_sets(reader, config.seed)
    _check_labels(config, sets)
    potential, statistics = preparation.build(sets)
    engine = choose_engine(config.training.engine, _own_device(config))
    potential = potential.with_engine(engine)
    for note in statistics.notes:
        say(f"note: {note}")
    config = _resolve(config, potential, sets.sizes)
    folder.record(config.model_dump(mode="json", exclude={"output"}), sets.splits)
    folder.write_json(folder.path / "versions.json", versions())
    say(_summary(config, sets, potential, folder.path))

    loss = Loss(config.training, has_labels(sets.train, "forces"), has_labels(sets.train, "stress"))
    state = folder.load_checkpoint()
    first_step = 0 if state is None else state["progress"]["step"] + 1
    loop, trainer, loader = _assemble(config, sets, potential, loss, folder, first_step)
    if state is not None:
        loop.load_state_dict(state)
        say(f"going on after epoch {loop.progress.epoch}, step {loop.progress.step}")
    if loop.ending() is None:
        trainer.fit(loop.module, loader)
    if loop.progress.best_epoch == 0:
        raise InputError(
            f"'{folder.path}' ended before its first validation, so there is no model: raise "
            "training.max_epochs or training.max_time, or lower training.val_interval"
        )
    if first:
        say(f"training ended: {loop.ending()}; best epoch {loop.progress.best_epoch}")
        loop.use_best_weights()
        potential.to(trainer.strategy.root_device)
        finish(config, sets, potential, loss, loop.progress, folder, say)
    return folder.path / f"{config.name}.safetensors"


def _check_labels(config: TrainConfig, sets: Sets) -> None:
    """Check that the loss is not zero whatever the network does.

    Raises
    ------
    InputError
        The training or validation frames have no label whose errors count.
    """
    weights = config.training.loss_weights.model_dump()
    counts = [label for label, weight in weights.items() if weight]
    for frames, name, problem in (
        (sets.train, "training", "there is nothing to train on"),
        (sets.val, "validation", "there is nothing to choose the weights by"),
    ):
        if not any(has_labels(frames, label) for label in counts):
            raise InputError(
                f"{problem}: training.loss_weights are zero for all that the {name} frames are "
                "labelled with"
            )


def _resolve(config: TrainConfig, potential: Potential, sizes: dict[str, int]) -> TrainConfig:
    """Fill in all that was left open, so that the file in the run folder says everything."""
    steps = math.ceil(sizes["train"] / config.training.batch_size)
    training = config.training.model_copy()
    if training.max_epochs is None:
        wanted = _STEPS * math.sqrt(sizes["train"] / 50)
        share = 1.0 if training.fine_tune_from is None else 0.25
        training.max_epochs = max(10, math.ceil(share * wanted / steps))
    if training.val_interval is None:
        # and rarely enough that validation costs little next to training
        training.val_interval = max(
            1,
            round(_STEPS_BETWEEN_VALIDATIONS / steps),
            2 * sizes["val"] // sizes["train"],
        )
    model = type(config.model).model_validate(potential.config.model_dump())
    domain = read_domain(potential.elements, potential.metadata)
    meant = {"charge": domain.charge, "multiplicity": domain.multiplicity}
    return config.model_copy(update={"training": training, "model": model, **meant})


def _assemble(
    config: TrainConfig,
    sets: Sets,
    potential: Potential,
    loss: Loss,
    folder: RunFolder,
    first_step: int,
) -> tuple[TrainingLoop, Trainer, DataLoader]:
    training = config.training
    assert training.max_epochs is not None
    assert training.val_interval is not None
    batches = EpochBatches(len(sets.train), training.batch_size, config.seed)
    loader = DataLoader(
        Unlabelled(make_dataset(sets.train, potential.elements, potential.r_max)),
        batch_sampler=batches,
        collate_fn=collate_batch,
        num_workers=config.data.num_workers,
        persistent_workers=config.data.num_workers > 0,
    )
    display = Display(
        training.max_epochs,
        batches.num_batches,
        len(sets.train),
        max_time=training.max_time,
        shows=folder.writes,
    )
    potential.train()
    module = PotentialModule(potential, loss, training)
    val_set = make_dataset(sets.val, potential.elements, potential.r_max, keep=False)
    kept: list[tuple[Graph, Targets]] = []

    def validate() -> Predictions:
        batches: Iterable[tuple[Graph, Targets]] = kept
        if not kept:
            share = range(trainer.global_rank, len(sets.val), trainer.world_size)
            batches = evaluation_batches(val_set, share)
            if not isinstance(sets.val, StoredFrames):
                kept.extend((graph.to(potential.device), targets) for graph, targets in batches)
                batches = kept
        return gather(predict(potential, batches, loss.forces, loss.stress))

    loop = TrainingLoop(
        module,
        EMA(potential, training.ema_decay),
        Schedule(training, batches.num_batches, training.max_epochs),
        batches,
        training,
        training.max_epochs,
        training.val_interval,
        validate,
        folder,
        display,
    )
    logger = TensorBoardLogger(folder.path, name="", version="tensorboard", purge_step=first_step)
    trainer = _trainer(config, callbacks=[loop], logger=logger, default_root_dir=folder.path)
    return loop, trainer, loader


def _trainer(config: TrainConfig, **options: Any) -> Trainer:
    """Return Lightning's Trainer, with as many processes as the configuration says.

    Raises
    ------
    InputError
        Whoever started the processes started another number of them, or none can be started.
    """
    training = config.training
    strategy = training.strategy
    if strategy == "auto" and (training.devices != 1 or training.num_nodes != 1):
        strategy = "ddp"  # in a notebook Lightning would take one that loses what it has trained
    in_job = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    try:
        trainer = Trainer(
            accelerator=device_type(config),
            devices=training.devices,
            num_nodes=training.num_nodes,
            strategy=strategy,
            plugins=[SLURMEnvironment(auto_requeue=False)] if in_job else None,
            max_epochs=-1,
            gradient_clip_val=training.gradient_clip,
            use_distributed_sampler=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise InputError(f"cannot set up the processes: {' '.join(str(error).split())}") from None
    wanted = trainer.num_devices * trainer.num_nodes
    if trainer.world_size != wanted:
        raise InputError(
            f"training.devices and training.num_nodes ask for {wanted} processes, and there are "
            f"{trainer.world_size}: start them with srun or torchrun, or without either outside of "
            "a SLURM job"
        )
    return trainer


def _say(text: str) -> None:
    print(text, flush=True)


def _say_nothing(text: str) -> None:
    pass


def _summary(config: TrainConfig, sets: Sets, potential: Potential, path: Path) -> str:
    weights = sum(p.numel() for p in potential.parameters() if p.requires_grad)
    training = config.training
    return (
        f"{sets.sizes['train']} training, {sets.sizes['val']} validation, "
        f"{sets.sizes['test']} test frames of {', '.join(potential.elements)}\n"
        f"{weights:,} weights, r_max {potential.r_max:g} Å, {potential.config.num_layers} layers, "
        f"l_max {potential.config.l_max}; {training.max_epochs} epochs, batch size "
        f"{training.batch_size}, learning rate {training.learning_rate:g}\n"
        f"run folder {path}"
    )


def _num_threads(config: TrainConfig) -> int:
    if config.training.num_threads is not None:
        return config.training.num_threads
    if "OMP_NUM_THREADS" in os.environ:
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = config.training.devices
    return max(1, (cores or 1) // (devices if isinstance(devices, int) else 1))


def device_type(config: TrainConfig) -> str:
    """Return where a run trains: ``'cpu'`` or ``'cuda'``."""
    accelerator = config.training.accelerator
    if accelerator != "cpu" and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("cpu", "auto"):  # auto: not Apple's GPUs, which have no float64
        return "cpu"
    raise InputError(
        f"training.accelerator is {accelerator}, and PyTorch finds no CUDA GPU: install a build "
        "for CUDA, or leave the key out"
    )


def _own_device(config: TrainConfig) -> str:
    """Return the device of this process, which Lightning has not made the current one yet."""
    if device_type(config) == "cpu":
        return "cpu"
    local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return f"cuda:{int(local) % torch.cuda.device_count()}"


def _is_first_process() -> bool:
    """Whether this is the process that writes, known before Lightning has started the others."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    if "LOCAL_RANK" in os.environ or "NODE_RANK" in os.environ:
        return os.environ.get("LOCAL_RANK", "0") == os.environ.get("NODE_RANK", "0") == "0"
    return os.environ.get("SLURM_PROCID", "0") == "0"


def _quiet() -> None:
    """Silence what Lightning says about choices that are made here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*does not have many workers.*", ".*GPU available but not used.*"):
        warnings.filterwarnings("ignore", message)


def output_folder(config: TrainConfig, config_path: Path) -> Path:
    """Return the run folder: as configured, or named after the configuration file."""
    if config.output is not None:
        return config.output
    if config_path.name == "config.yaml" and (config_path.parent / "checkpoints").is_dir():
        raise InputError(
            f"'{config_path}' is the record of a run; say where a new one goes with output=..."
        )
    return Path("runs") / config_path.stem
