"""Why a level of the audit does not hold for a patch."""

from __future__ import annotations


class Doubt(Exception):
    """A comparison failed or could not be made; the text says where and how, in one clause."""
