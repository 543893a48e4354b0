"""What happens at the atoms between two convolutions, compiled: linear maps and the gate.

Atoms are taken in blocks of up to four of one type, so that a weight that was loaded serves four
rows. A linear map is a flat weight and a plan with one row for every irrep: (start of the input
block, 2l+1, mul_in, start of the output block, mul_out, start of the weight ``[mul_in, mul_out]``).
Its transpose is another plan, so the way back needs no code of its own.
"""

# mypy: disable-error-code="no-untyped-def"

import math

import numpy as np
from numba import njit, prange

from .compiler import kernel

BLOCK = 4

# inlined: of a function on its own a process that compiles has another copy than one that does not
_options = {
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    "forceinline": True,
}


@njit(**_options)
def _linear(x, rows, weight, plan, out):
    """Add the map of four rows of x to out, ``[4, dim]``."""
    x0, x1, x2, x3 = x[rows[0]], x[rows[1]], x[rows[2]], x[rows[3]]
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    for p in range(plan.shape[0]):
        start, dim, mul_in, out_start, mul_out, w_start = plan[p]
        for m in range(dim):
            i = start + m * mul_in
            o = out_start + m * mul_out
            p0, p1 = o0[o : o + mul_out], o1[o : o + mul_out]
            p2, p3 = o2[o : o + mul_out], o3[o : o + mul_out]
            k = 0
            while k + 4 <= mul_in:
                w = w_start + k * mul_out
                w0, w1 = weight[w : w + mul_out], weight[w + mul_out : w + 2 * mul_out]
                w2 = weight[w + 2 * mul_out : w + 3 * mul_out]
                w3 = weight[w + 3 * mul_out : w + 4 * mul_out]
                a0, a1, a2, a3 = x0[i + k], x0[i + k + 1], x0[i + k + 2], x0[i + k + 3]
                b0, b1, b2, b3 = x1[i + k], x1[i + k + 1], x1[i + k + 2], x1[i + k + 3]
                c0, c1, c2, c3 = x2[i + k], x2[i + k + 1], x2[i + k + 2], x2[i + k + 3]
                d0, d1, d2, d3 = x3[i + k], x3[i + k + 1], x3[i + k + 2], x3[i + k + 3]
                for v in range(mul_out):
                    p0[v] += a0 * w0[v] + a1 * w1[v] + a2 * w2[v] + a3 * w3[v]
                    p1[v] += b0 * w0[v] + b1 * w1[v] + b2 * w2[v] + b3 * w3[v]
                    p2[v] += c0 * w0[v] + c1 * w1[v] + c2 * w2[v] + c3 * w3[v]
                    p3[v] += d0 * w0[v] + d1 * w1[v] + d2 * w2[v] + d3 * w3[v]
                k += 4
            while k < mul_in:
                w = w_start + k * mul_out
                w0 = weight[w : w + mul_out]
                a0, b0, c0, d0 = x0[i + k], x1[i + k], x2[i + k], x3[i + k]
                for v in range(mul_out):
                    p0[v] += a0 * w0[v]
                    p1[v] += b0 * w0[v]
                    p2[v] += c0 * w0[v]
                    p3[v] += d0 * w0[v]
                k += 1


@njit(**_options)
def _gate(pre, plan, num_even, even_start, silu_scale, tanh_scale, out):
    """Apply `nn.gate.Gate` to one row."""
    gate = even_start + num_even
    o = 0
    for p in range(plan.shape[0]):
        start, dim, mul, parity = plan[p]
        if dim > 1:
            for u in range(mul):
                z = pre[gate + u]
                s = silu_scale * z / (1 + math.exp(-z))
                for m in range(dim):
                    out[o + m * mul + u] = s * pre[start + m * mul + u]
            gate += mul
        elif parity == 1:
            for u in range(mul):
                z = pre[start + u]
                out[o + u] = silu_scale * z / (1 + math.exp(-z))
        else:
            for u in range(mul):
                out[o + u] = tanh_scale * math.tanh(pre[start + u])
        o += dim * mul


@njit(**_options)
def _gate_back(g, pre, plan, num_even, even_start, silu_scale, tanh_scale, out):
    """Turn derivatives by the gate's result into those by its input, one row."""
    gate = even_start + num_even
    o = 0
    for p in range(plan.shape[0]):
        start, dim, mul, parity = plan[p]
        if dim > 1:
            for u in range(mul):
                z = pre[gate + u]
                sigmoid = 1 / (1 + math.exp(-z))
                s = silu_scale * z * sigmoid
                total = g[o + u] * pre[start + u]
                out[start + u] = s * g[o + u]
                for m in range(1, dim):
                    total += g[o + m * mul + u] * pre[start + m * mul + u]
                    out[start + m * mul + u] = s * g[o + m * mul + u]
                out[gate + u] = silu_scale * sigmoid * (1 + z * (1 - sigmoid)) * total
            gate += mul
        elif parity == 1:
            for u in range(mul):
                z = pre[start + u]
                sigmoid = 1 / (1 + math.exp(-z))
                out[start + u] = silu_scale * sigmoid * (1 + z * (1 - sigmoid)) * g[o + u]
        else:
            for u in range(mul):
                t = math.tanh(pre[start + u])
                out[start + u] = tanh_scale * (1 - t * t) * g[o + u]
        o += dim * mul


@kernel()
def forward(
    blocks, block_types, mid, h, linear_2, linear_2_plan, self_connection, self_connection_plan,
    gate_plan, num_even, even_start, scales, linear_1, linear_1_plan, norm, pre, h_next, sent,
):  # fmt: skip
    """From the sums over neighbours to the features of the next layer, and what it will send.

    `mid` ``[N, ...]`` are the sums, `h` the features, `pre` what goes into the gate, `h_next` what
    comes out, `sent` its map by the next layer's `linear_1` (if that has a plan) times `norm`.
    `blocks` ``[B, 4]`` are atoms, the last ones repeated; `block_types` ``[B]``.
    """
    for b in prange(blocks.shape[0]):
        rows = blocks[b]
        t = block_types[b]
        local = np.zeros((BLOCK, pre.shape[1]), pre.dtype)
        _linear(mid, rows, linear_2, linear_2_plan, local)
        _linear(h, rows, self_connection[t], self_connection_plan, local)
        for k in range(BLOCK):
            pre[rows[k]] = local[k]
            _gate(local[k], gate_plan, num_even, even_start, scales[0], scales[1], h_next[rows[k]])
        if linear_1_plan.shape[0] > 0:
            next_sent = np.zeros((BLOCK, sent.shape[1]), pre.dtype)
            _linear(h_next, rows, linear_1, linear_1_plan, next_sent)
            for k in range(BLOCK):
                for c in range(sent.shape[1]):
                    sent[rows[k], c] = norm[t] * next_sent[k, c]


@kernel()
def backward(
    blocks, block_types, g_h, g_sent, norm, linear_1, linear_1_plan, g_pre_next, self_connection,
    self_connection_plan, pre, gate_plan, num_even, even_start, scales, linear_2, linear_2_plan,
    g_pre, g_mid,
):  # fmt: skip
    """Derivatives of the energy by `mid`, from those by what `forward` passes on.

    `g_h` are derivatives by `h_next` that come from the readout (without rows: none), `g_sent`
    those by `sent` and `g_pre_next` those by the next layer's `pre`; the plans are transposed ones.
    """
    for b in prange(blocks.shape[0]):
        rows = blocks[b]
        t = block_types[b]
        local = np.zeros((BLOCK, g_h.shape[1]), pre.dtype)
        _linear(g_sent, rows, linear_1, linear_1_plan, local)
        local *= norm[t]
        _linear(g_pre_next, rows, self_connection[t], self_connection_plan, local)
        for k in range(BLOCK):
            if g_h.shape[0] > 0:
                local[k] += g_h[rows[k]]
            _gate_back(
                local[k], pre[rows[k]], gate_plan, num_even, even_start, scales[0], scales[1],
                g_pre[rows[k]],
            )  # fmt: skip
        mid = np.zeros((BLOCK, g_mid.shape[1]), pre.dtype)
        _linear(g_pre, rows, linear_2, linear_2_plan, mid)
        for k in range(BLOCK):
            g_mid[rows[k]] = mid[k]
