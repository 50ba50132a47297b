"""Level 3: what kernel tests on a GPU said of a patch, as long as it holds.

`kernel_tests/manifest.toml` says which kernels a patch belongs to, `kernel_tests/results/*.json`
what came of them.  A result holds for the patches and tests that it was made with
(`kernelresults.stale`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from portkit.kernels import manifest as kernelmanifest
from portkit.kernels import results as kernelresults
from portkit.model import Patch


def results(root: Path, tag: str) -> Callable[[Patch], str]:
    """What the results for upstream's `tag` say of a patch, in words; "" where they prove nothing.

    Every kernel of the patch must have passed, on one GPU.  Raises `BadFile` for a malformed file.
    """
    found = [one for one in kernelresults.read_all(root).values() if one.tag == tag]
    if not found:
        return lambda patch: ""
    manifest = kernelmanifest.load(root)
    void = {id(one): set(kernelresults.stale(root, manifest, one)) for one in found}

    def said(patch: Patch) -> str:
        kernels = manifest.claimed.get(patch.name, ())
        for one in found:
            held = [k for k in kernels if k in one.kernels and k not in void[id(one)]]
            if kernels and all(k in held and one.kernels[k].outcome == "passed" for k in kernels):
                gpu = f"{one.gpu.name}, CUDA {one.gpu.cuda}, torch {one.gpu.torch}"
                return f"kernel tests {', '.join(kernels)} passed on {gpu}"
        return ""

    return said
