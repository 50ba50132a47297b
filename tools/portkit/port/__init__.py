"""A whole refresh: all files of a step, what waits for a person, what else changed upstream."""
