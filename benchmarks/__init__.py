"""Measurements: what is carried, what it costs, and where other tools put a change."""
