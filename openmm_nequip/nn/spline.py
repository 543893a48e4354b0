"""Radial functions as cubic B-splines: smooth, cheap, and linear in what they are fitted to.

De Boor, A Practical Guide to Splines (1978), ch. IX. With uniform knots the four B-splines that
live on an interval are the same cubic polynomials everywhere.
"""

import torch
from torch import Tensor, nn


class RadialSpline(nn.Module):
    """Fits splines on [0, 1] that vanish, with slope and curvature, at x = 1.

    The coefficients are the least-squares fit to samples of a function: a fixed linear map of them.

    Parameters
    ----------
    num_intervals
        Number K of intervals between knots.

    Attributes
    ----------
    grid : Tensor
        Where the function is sampled, ascending, shape ``[S]``, float64.
    """

    grid: Tensor
    fit: Tensor

    def __init__(self, num_intervals: int):
        super().__init__()
        # two Gauss-Legendre points in each interval
        offsets = torch.tensor([-0.5, 0.5], dtype=torch.float64) / 3**0.5 + 0.5
        cells = torch.arange(num_intervals, dtype=torch.float64)
        grid = ((cells[:, None] + offsets) / num_intervals).flatten()
        cell, values = locate(grid, num_intervals)
        design = torch.zeros(len(grid), num_intervals + 3, dtype=torch.float64)
        design.scatter_(1, cell[:, None] + torch.arange(4), values)
        # the last three B-splines are left out: only they do not vanish at x = 1
        fit = torch.zeros(num_intervals + 3, len(grid), dtype=torch.float64)
        design = design[:, :num_intervals]
        fit[:num_intervals] = torch.linalg.solve(design.T @ design, design.T)
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("fit", fit, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Return the coefficients, ``[K + 3, W]``, for samples on the grid, ``[S, W]``."""
        return self.fit.to(samples.dtype) @ samples


def locate(x: Tensor, num_intervals: int) -> tuple[Tensor, Tensor]:
    """Return the interval of each x, ``[E]``, and its four B-splines there, ``[E, 4]``.

    The coefficients that belong to them are those from the interval's index on. Beyond x = 1 the
    B-splines are zero.
    """
    cell, f, inside = _interval(x, num_intervals)
    g = 1.0 - f
    values = [
        g * g * g,
        (3.0 * f - 6.0) * f * f + 4.0,
        (3.0 * g - 6.0) * g * g + 4.0,
        f * f * f,
    ]
    return cell, torch.stack(values, dim=1) * (inside / 6.0).unsqueeze(1)


def locate_slope(x: Tensor, num_intervals: int) -> tuple[Tensor, Tensor]:
    """Return the interval of each x and the slopes of its four B-splines, ``[E, 4]``."""
    cell, f, inside = _interval(x, num_intervals)
    g = 1.0 - f
    slopes = [-g * g, (3.0 * f - 4.0) * f, (4.0 - 3.0 * g) * g, f * f]
    return cell, torch.stack(slopes, dim=1) * (inside * (0.5 * num_intervals)).unsqueeze(1)


def _interval(x: Tensor, num_intervals: int) -> tuple[Tensor, Tensor, Tensor]:
    t = x * num_intervals
    cell = t.detach().floor().clamp(0, num_intervals - 1)
    return cell.to(torch.int64), t - cell, (x < 1.0).to(x.dtype)


def evaluate(x: Tensor, coefficients: Tensor, slope: bool = False) -> Tensor:
    """Evaluate W splines, or their slopes, at x, ``[E]``; returns ``[E, W]``."""
    num_intervals = coefficients.shape[0] - 3
    if slope:
        cell, values = locate_slope(x, num_intervals)
    else:
        cell, values = locate(x, num_intervals)
    values = values.to(coefficients.dtype)
    out = values[:, 0:1] * coefficients[cell]
    for k in range(1, 4):
        out = out + values[:, k : k + 1] * coefficients[cell + k]
    return out
