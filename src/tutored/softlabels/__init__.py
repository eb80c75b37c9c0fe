"""A tutor's answers on disk: written once, resumed, verified, read by image id, remapped into our label space."""

from __future__ import annotations

from tutored.softlabels.remap import Remapped
from tutored.softlabels.store import Store

__all__ = ["Remapped", "Store"]
