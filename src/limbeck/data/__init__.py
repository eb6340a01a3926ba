"""Data sets and loaders: every sample carries its index, every order is a function of (seed, epoch)."""

from limbeck.data.loaders import Loader, MemoryLoader, WorkerLoader, make_loader
from limbeck.data.sets import NAMES, DataSet, FromDisk, InMemory, load

__all__ = [
    "NAMES",
    "DataSet",
    "FromDisk",
    "InMemory",
    "Loader",
    "MemoryLoader",
    "WorkerLoader",
    "load",
    "make_loader",
]
