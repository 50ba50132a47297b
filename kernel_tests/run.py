"""What a run has in common, however it is started: which kernels, which libraries."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from portkit.errors import BadInput
from portkit.kernels.manifest import Manifest

if TYPE_CHECKING:
    import pytest

    from kernel_tests.extensions import Extensions
    from kernel_tests.trees import Trees


def selected(manifest: Manifest, names: str) -> tuple[str, ...]:
    """The kernels of a `--kernels` argument, all for an empty one; raises `BadInput`."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in manifest.kernels:
            known = ", ".join(manifest.kernels)
            raise BadInput(f"{name} is no kernel of the manifest", hint=f"there are {known}")
    return tuple(name for name in manifest.kernels if not wanted or name in wanted)


def archs_of(text: str) -> tuple[str, ...]:
    """The archs of an `--archs` argument; `native` is that of the first GPU; raises `BadInput`."""
    if text != "native":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise BadInput("there is no CUDA GPU, so no native arch", hint="name it: --archs 9.0")
    major, minor = torch.cuda.get_device_capability(0)
    return (f"{major}.{minor}",)


def thinned(
    items: Sequence[pytest.Item], count: int
) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The first `count` cases of each test, and the others: long ones, and refused launches."""
    seen: Counter[str] = Counter()
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        seen[name] += 1
        other = any(word in name for word in ("speed", "whole_range", "32_bit_size", "_no_"))
        (left if other or seen[name] > count else kept).append(item)
    return kept, left


def cache_of(given: Path | None) -> Path:
    """Where objects and libraries are kept."""
    if given is not None:
        return given.absolute()
    from portkit.upstream.cache import Cache  # noqa: PLC0415

    return Cache.default().path.absolute() / "kernel-tests"


def source(
    root: Path, manifest: Manifest, archs: Sequence[str], trees: Path | None, cache: Path
) -> Trees:
    """The prepared source: the one given, or one in the cache."""
    from kernel_tests import trees as prepared  # noqa: PLC0415

    if trees is not None:
        made = prepared.open_prepared(trees.absolute())
        if missing := set(archs) - set(made.archs):
            raise BadInput(
                f"{trees} was prepared for {', '.join(made.archs)}, not {', '.join(missing)}",
                hint=f"prepare it again: --prepare DIR --archs {','.join(archs)}",
            )
        return made
    folder = cache / "trees" / "-".join(archs)
    return prepared.prepare(root, folder, manifest, archs)


def extensions(
    root: Path, manifest: Manifest, names: Sequence[str], given: argparse.Namespace
) -> Extensions:
    """The libraries of `names`, as the options ask: installed, given, or built now."""
    from kernel_tests import extensions as found  # noqa: PLC0415
    from kernel_tests.build import Builder  # noqa: PLC0415
    from kernel_tests.toolchain import with_torch  # noqa: PLC0415

    if given.libraries is not None:
        return found.given(given.libraries)
    if given.against == "installed":
        return found.installed()
    archs = archs_of(given.archs)
    cache = cache_of(given.cache)
    trees = source(root, manifest, archs, given.trees, cache)
    builder = Builder(with_torch(), archs, cache)
    return found.built(builder, trees, manifest, names, jobs=given.jobs)
