"""Patches, the series and its pin: bytes in, bytes out."""
