"""Training: from labelled frames to a model file, interruptible at any moment."""
