"""Upstream's releases: where their source comes from, checked, kept as git objects."""
