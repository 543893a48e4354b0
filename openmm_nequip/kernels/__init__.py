"""The fused engine: the equivariant convolution without intermediate results in memory."""
