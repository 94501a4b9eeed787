"""Fixtures shared by this folder."""

from tests.hub_model import hub_model

__all__ = ["hub_model"]
