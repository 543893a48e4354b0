"""Reference data: frames, graphs, neighbour lists, readers, splits and statistics.

From a file to batches::

    data = read_frames("ethanol.xyz")                        # readers: Frames, checked, in eV and Å
    split = split_frames(data, train=950, val=50)            # splits: Split
    statistics = compute_statistics(data, elements, r_max)   # statistics: Statistics
    dataset = FrameDataset(data, elements, r_max)            # dataset: (Graph, Targets) items
    store = cached_store("large.xyz", "cache", elements, r_max)  # cache, store: from disk
    DataLoader(dataset, batch_size=5, collate_fn=collate_batch)
"""
