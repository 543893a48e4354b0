"""How fast the package is on this machine, beside other implementations measured in the same run.

`run.run` is behind ``openmm-nequip benchmark``. A *case* is one model on one structure; its
engines are measured in alternating repeats (a, b, c, a, b, c, ...), so that whatever else the
machine does falls on all of them alike.
"""
