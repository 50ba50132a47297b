"""The audit: per patch, the proof that it changes nothing where the system is not Windows."""
