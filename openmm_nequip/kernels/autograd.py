"""What is common to the derivatives of operators."""

from typing import Any

import torch


def needed(ctx: Any) -> tuple[bool, ...]:
    """Return of each tensor argument whether the running backward pass uses its derivative.

    ``ctx.needs_input_grad`` says only whether there is one. But forces are derivatives by the edge
    vectors alone and a step of training takes those by the weights alone, so that of two
    derivatives one is often not asked for.
    """
    return tuple(node is not None and _runs(node) for node, _ in ctx.next_functions)


def _runs(node: Any) -> bool:
    try:
        found: bool = torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf: PyTorch does not tell
        return True
    return found
