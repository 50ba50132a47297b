"""Level 3: results of the kernel tests on a GPU, for exactly the contents that were tested."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from portkit import kernelmanifest, kernelresults
from portkit.model import Patch


def results(root: Path) -> Callable[[Patch], str]:
    """What the recorded results say of a patch, in words; "" where no GPU vouches for it.

    A patch is tested where every kernel that it is part of passed on one GPU, with the patches and
    the tests of that kernel as they are now.  Raises `BadFile` for a malformed file.
    """
    if not (root / kernelmanifest.MANIFEST_FILE).is_file():
        return lambda _: ""
    manifest = kernelmanifest.load(root)
    known = [
        (result, set(kernelresults.stale(root, manifest, result)))
        for result in kernelresults.read_all(root).values()
    ]

    def said(patch: Patch) -> str:
        kernels = manifest.claimed.get(patch.name, ())
        for result, stale in known:
            passed = [
                name
                for name in kernels
                if name in result.kernels
                and name not in stale
                and result.kernels[name].outcome == "passed"
            ]
            if kernels and len(passed) == len(kernels):
                gpu = result.gpu
                name = gpu.name.removeprefix("NVIDIA ")
                return f"{', '.join(kernels)} passed on {name} (CUDA {gpu.cuda}, torch {gpu.torch})"
        return ""

    return said
