"""Reference data: frames, graphs, neighbour lists, readers, splits and statistics."""
