"""Fixtures that longer tests share with the others."""

from ..integration.conftest import finished, project

__all__ = ["finished", "project"]
