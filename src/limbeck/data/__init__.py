"""Data sets and loaders: every sample carries its index, every order is a function of (seed, epoch)."""

from limbeck.data.loaders import Loader, MemoryLoader, WorkerLoader, make_loader
from limbeck.data.sets import NAMES, load
from limbeck.data.splits import DataSet, FromDisk, InMemory
from limbeck.data.views import AUGMENTATIONS, Views, make_views

__all__ = [
    "AUGMENTATIONS",
    "NAMES",
    "DataSet",
    "FromDisk",
    "InMemory",
    "Loader",
    "MemoryLoader",
    "Views",
    "WorkerLoader",
    "load",
    "make_loader",
    "make_views",
]
