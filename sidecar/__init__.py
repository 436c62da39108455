"""The sidecar: carries the commands of one run from a hub it dialled out to."""

__version__ = "0.1.0"
