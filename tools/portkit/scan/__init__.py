"""The portability scan: what of upstream's source will not build or run on Windows.

`tree` is the source to scan, `model` the words, `rules` the rules as data.  Detectors
(`detectors` lists them) find places; `suppress` says which of them do not matter, and why.
"""
