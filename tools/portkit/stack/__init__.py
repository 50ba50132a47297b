"""The daily work on patches: a work tree with some of the series applied."""
