"""Those of `dense`, on lists of tensors."""

from .dense import PEERS

__all__ = ["PEERS"]
