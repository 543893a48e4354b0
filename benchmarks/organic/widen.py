"""Widen the type embedding of a potential; it stays the same function of the positions.

    python benchmarks/organic/widen.py NARROW.safetensors 64 WIDE.safetensors

The first layer has as many channels as the embedding is wide. New channels have random weights, but
those through which they reach the energy are zero: `train` with `fine_tune_from` finds a use for
them. (Chen et al., "Net2Net: Accelerating learning via knowledge transfer", ICLR 2016.)
"""

import math
from pathlib import Path
from typing import Annotated

import torch
import typer

from openmm_nequip.cli import clear_errors
from openmm_nequip.errors import InputError
from openmm_nequip.modelfile import find_model, load_file
from openmm_nequip.potential import Potential
from openmm_nequip.training.soap import matrices, split

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    model: Annotated[str, typer.Argument(help="Model file, or name of a bundled potential.")],
    width: Annotated[int, typer.Argument(help="Of the new type embedding.")],
    output: Annotated[Path, typer.Argument(help="New model file.")],
    seed: Annotated[int, typer.Option(help="Of the new weights.")] = 1,
) -> None:
    """Read, widen and write."""
    if output.exists():
        raise InputError(f"'{output}' exists and is not replaced")
    torch.manual_seed(seed)
    widened(load_file(find_model(model)), width).save(output)
    print(f"written to {output}")


@torch.no_grad()
def widened(potential: Potential, width: int) -> Potential:
    """Return a potential with a wider type embedding and the same energies.

    Raises
    ------
    InputError
        The embedding is as wide already.
    """
    old = potential.network
    narrow = old.type_embedding.shape[1]
    if width <= narrow:
        raise InputError(f"the type embedding is {narrow} wide already")
    config = potential.config.model_copy(update={"type_embed_num_features": width})
    wide = Potential(config, potential.metadata)
    new = wide.network
    same = {
        name: tensor
        for name, tensor in potential.state_dict().items()
        if tensor.shape == wide.state_dict()[name].shape
    }
    wide.load_state_dict(same, strict=False)

    scale = math.sqrt(width / narrow)  # weights are divided by the root of what they sum over
    new.type_embedding[:, :narrow] = old.type_embedding
    first, source = new.layers[0], old.layers[0]
    mixed = first.linear_1.weight.view(width, width)
    mixed[:, :narrow] = 0.0
    mixed[:narrow, :narrow] = scale * source.linear_1.weight.view(narrow, narrow)
    radial, known = (layer.radial_mlp.layers[-1].weight for layer in (first, source))
    radial.view(len(radial), -1, width)[:, :, :narrow] = known.view(len(known), -1, narrow)
    pairs = [(first.linear_2.weight, source.linear_2.weight)]
    for layer, source in zip(new.layers[1:], old.layers[1:], strict=True):
        pairs.append((layer.self_connection.weight, source.self_connection.weight))
    now, before = matrices(wide), matrices(potential)
    for weight, known in pairs:
        blocks = zip(split(weight, now[weight]), split(known, before[known]), strict=True)
        for block, part in blocks:
            block.zero_()
            block[tuple(map(slice, part.shape))] = scale * part
    return wide.eval()


if __name__ == "__main__":
    with clear_errors():
        app()
