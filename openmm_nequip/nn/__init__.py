"""Building blocks of equivariant networks; they know tensors only.

Features of atoms are one flat tensor ``[N, dim]``. For each irrep ``mul x l`` in the order of the
layer's `Irreps` it holds a block ``[2l+1, mul]``: the channel runs fastest, so that sums over
channels and over neighbours vectorise. (e3nn stores ``[mul, 2l+1]``.)
"""
