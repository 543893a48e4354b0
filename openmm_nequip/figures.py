"""How all figures look, and how they are written."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Settings of matplotlib.
STYLE: dict[str, float | bool] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "savefig.dpi": 150,
}


def save(figure: "Figure", path: Path) -> None:
    """Replace a picture at once, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp.png")
    figure.savefig(temporary)
    temporary.replace(path)
