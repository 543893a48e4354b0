"""Readers of reference data: any usual file in, checked `Frame`s in eV and Å out."""

from .read import BadFrame, Frames, FrameStream, iter_frames, read_frames
from .units import Units

__all__ = ["BadFrame", "FrameStream", "Frames", "Units", "iter_frames", "read_frames"]
