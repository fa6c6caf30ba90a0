"""Those of `dense`, on lists of tensors.

Optax and Keras are left out: they take minutes to compile a graph of a thousand tensors.
"""

from .dense import PEERS as DENSE

__all__ = ["PEERS"]

PEERS = [peer for peer in DENSE if peer.package not in ("optax", "tensorflow")]
