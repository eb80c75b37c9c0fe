"""A tutor's answers on disk: written once, resumed, verified, read by image id, folded into our label space."""

from __future__ import annotations

from tutored.softlabels.draw import Rule, draw_map
from tutored.softlabels.fold import Folded
from tutored.softlabels.store import Store

__all__ = ["Folded", "Rule", "Store", "draw_map"]
