"""Wrong variants of the patches, and which case notices each.

A test that cannot fail proves nothing.  For every patch of a compiled file `mutants.toml` has at
least three wrong variants; each is built into a library of its own and the kernel's cases run
against it, in a process of their own since some of them end with the GPU's context.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import tomli
from pydantic import BaseModel, ConfigDict, ValidationError

from kernel_tests.build import Builder, Library, patched_side, upstream_side
from kernel_tests.extensions import Extensions, saved
from kernel_tests.trees import Trees, generate
from portkit.errors import BadFile
from portkit.kernels.manifest import Manifest
from portkit.kernels.results import Mutant as Verdict

FILE = "kernel_tests/mutants.toml"
_SECONDS = 150  # for the cases of one mutant; a kernel that never ends is noticed too
_AT_ONCE = 8


class Mutant(BaseModel):
    """One wrong variant, as mutants.toml describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    patch: str
    kernel: str
    find: str
    replace: str
    at: int | None = None

    @property
    def path(self) -> str:
        """The file of upstream that the patch, and so the mutant, is about."""
        return self.patch.partition("/")[2].removesuffix(".patch")

    def applied(self, text: str) -> str:
        """`text` with the change; raises `BadFile` when `find` does not stand there as said."""
        parts = text.split(self.find)
        count = len(parts) - 1
        if count == 0 or (count > 1 and self.at is None):
            raise BadFile(FILE, None, f"{self.name}: `find` stands {count} times in {self.path}")
        place = (self.at or 0) % count + 1
        return self.find.join(parts[:place]) + self.replace + self.find.join(parts[place:])


@dataclass(frozen=True)
class Prepared:
    """A mutant and the library it is built into."""

    mutant: Mutant
    library: Library
    upstream: Path
    failure: str = ""


def load(root: Path, manifest: Manifest) -> tuple[Mutant, ...]:
    """The mutants of the repository at `root`; raises `BadFile`."""
    data = tomli.loads((root / FILE).read_text("utf-8"))
    try:
        mutants = tuple(Mutant.model_validate(one) for one in data["mutants"])
    except (KeyError, ValidationError) as error:
        raise BadFile(FILE, None, str(error).partition("\n")[0]) from None
    for mutant in mutants:
        kernel = manifest.kernels.get(mutant.kernel)
        if kernel is None or mutant.patch not in kernel.patches:
            raise BadFile(FILE, None, f"{mutant.name}: {mutant.kernel} has no {mutant.patch}")
    return mutants


def prepare(
    mutants: Iterable[Mutant], manifest: Manifest, trees: Trees, builder: Builder
) -> list[Prepared]:
    """Write the mutated sources and plan their libraries; nothing is built yet."""
    return [_prepared(mutant, manifest, trees, builder) for mutant in mutants]


def build(planned: Sequence[Prepared], builder: Builder, jobs: int | None) -> list[Prepared]:
    """Build all mutants; one that does not build says so in `failure`."""
    failures = builder.build([one.library for one in planned], jobs)
    return [replace(one, failure=failures.get(str(one.library.path), "")) for one in planned]


def judge(
    root: Path, manifest: Manifest, built: Sequence[Prepared], work: Path
) -> tuple[Verdict, ...]:
    """Run the cases against each mutant, a few at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return tuple(pool.map(lambda one: _judged(root, manifest, one, work), built))


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """The kill table as lines: a line a mutant, a last one with the count."""
    width = max((len(one.name) for one in verdicts), default=0)
    lines = [
        f"{one.name:{width}}  {'killed ' if one.killed else 'SURVIVED'}  {one.by}"
        for one in verdicts
    ]
    killed = sum(one.killed for one in verdicts)
    return [*lines, f"{killed} of {len(verdicts)} mutants killed"]


def _prepared(mutant: Mutant, manifest: Manifest, trees: Trees, builder: Builder) -> Prepared:
    kernel = manifest.kernels[mutant.kernel]
    tree = builder.cache / "mutants" / mutant.name
    shutil.rmtree(tree, ignore_errors=True)
    # Links where the disk has them; a changed file is written anew, so no original is touched.
    shutil.copytree(trees.patched / "csrc", tree / "csrc", copy_function=_link)
    file = tree / mutant.path
    text = file.read_text("utf-8")
    file.unlink()
    file.write_text(mutant.applied(text), "utf-8")
    if mutant.path == kernel.generator:
        generate(tree, kernel, trees.archs)
    library = builder.library(mutant.kernel, kernel, patched_side(tree))
    upstream = builder.library(mutant.kernel, kernel, upstream_side(trees.upstream))
    return Prepared(mutant, library, upstream.path)


def _judged(root: Path, manifest: Manifest, one: Prepared, work: Path) -> Verdict:
    mutant = one.mutant
    verdict = Verdict(name=mutant.name, patch=mutant.patch, kernel=mutant.kernel, killed=True)
    if one.failure:
        return verdict.model_copy(update={"by": "does not compile"})
    folder = work / mutant.name
    folder.mkdir(parents=True, exist_ok=True)
    libraries, records = folder / "libraries.json", folder / "records.json"
    records.unlink(missing_ok=True)
    paths = (one.library.path, one.upstream)
    saved(Extensions(("", "upstream"), {mutant.kernel: paths}), libraries)
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider",
        f"kernel_tests/cases/{manifest.kernels[mutant.kernel].cases}",
        "--libraries", str(libraries), "--records", str(records),
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        try:
            done = subprocess.run(
                command, check=False, cwd=root, stdout=log, stderr=log, timeout=_SECONDS
            )
        except subprocess.TimeoutExpired:
            return verdict.model_copy(update={"by": "no end"})
    if done.returncode == 0:
        return verdict.model_copy(update={"killed": False})
    return verdict.model_copy(update={"by": _first_failure(records) or "the process died"})


def _first_failure(records: Path) -> str:
    try:
        cases = json.loads(records.read_text("utf-8"))["cases"]
    except (OSError, ValueError, KeyError):
        return ""
    return next((str(case["case"]) for case in cases if case["outcome"] == "failed"), "")


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        return shutil.copy2(source, target)
    return target
