"""Does every kernel that the series touches compute what it should, on this GPU?

`python -m kernel_tests` builds the kernels of upstream's source and of the patched source side by
side, runs every case on both, and writes a result file.  docs/kernel-tests.md is the guide.
"""
