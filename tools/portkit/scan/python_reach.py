"""Which Python files a server on Windows imports, and so when a fault in one of them shows.

The imports that run at once are followed from the modules a server starts from; imports inside
functions and those that Windows skips are not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, cached_property
from pathlib import PurePosixPath

from portkit.scan.model import Finding, Language, Stage, Tier
from portkit.scan.python_guards import Guards
from portkit.scan.python_truth import truth
from portkit.scan.tree import SourceTree, language_of
from portkit.text.syntax import python_module

PACKAGE = "vllm"
_RUN = ("setup.py", "cmake/", "csrc/", "tools/build_rust.py", f"{PACKAGE}/")

_BESIDE = (f"{PACKAGE}/benchmarks/",)  # imported by the command line, needed by no server

_FIRST_RUNNER = f"{PACKAGE}/v1/worker/gpu_model_runner.py"
_SECOND_RUNNER = f"{PACKAGE}/v1/worker/gpu/"

# Where a server on one CUDA GPU starts: its entry points, and what it loads by name. A tree need
# not have all of them.
ROOTS = (
    "vllm",
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.entrypoints.llm",
    "vllm.platforms.cuda",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.engine.core_client",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.core.sched.async_scheduler",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
    "vllm.model_executor.model_loader.default_loader",
)


def is_run(path: str) -> bool:
    """Whether a build or a server can run a Python file: not so upstream's tests and examples."""
    return path.startswith(_RUN)


@cache
def reach_of(tree: SourceTree) -> Reach:
    """The reach of a tree, worked out once."""
    return Reach(tree)


class Reach:
    """What a server on Windows reads of the Python files of one tree."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._guards: dict[str, Guards] = {}

    def guards(self, path: str) -> Guards:
        """The guards of a file of the tree."""
        if path not in self._guards:
            self._guards[path] = Guards(self._tree.read(path))
        return self._guards[path]

    def placed(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """`findings`, those in Python with the stage at which a server meets them.

        A rule's own stage is the earliest at which what it is about can fail.  What no server
        needs is never certain: it may never run.
        """
        for finding in findings:
            if language_of(finding.path) is not Language.PYTHON:
                yield finding
                continue
            stage = self.stage(finding.path, finding.line)
            if stage is not Stage.COMPILE:
                stage = max(stage, finding.stage, key=lambda one: one.rank)
            tier = finding.tier
            if stage is Stage.OPTIONAL and tier is Tier.CERTAIN:
                tier = Tier.LIKELY
            yield replace(finding, stage=stage, tier=tier)

    def stage(self, path: str, line: int) -> Stage:
        """When a fault at `line` (1-based) of a Python file shows."""
        if path == "setup.py" or (path.startswith("csrc/") and "generate" in path):
            return Stage.COMPILE
        if path not in self.imported or path.startswith(_BESIDE):
            return Stage.OPTIONAL
        return Stage.SERVE if self.guards(path).in_function(line) else Stage.IMPORT

    def not_called(self, path: str) -> str:
        """Why a server on Windows calls nothing of a file it may import; empty where it may."""
        if not path.startswith(_SECOND_RUNNER) or path in self._of_first_runner:
            return ""
        return self._second_runner

    @cached_property
    def _second_runner(self) -> str:
        """Why Windows runs models by the first model runner; empty where that is not sure."""
        if _FIRST_RUNNER not in self._tree:
            return ""
        if b"if not HAS_TRITON" in self._tree.read(f"{PACKAGE}/config/vllm.py"):
            return "of the second model runner, which is not chosen without Triton"
        if b"VLLM_USE_V2_MODEL_RUNNER: bool = False" in self._tree.read(f"{PACKAGE}/envs.py"):
            return "of the second model runner, which VLLM_USE_V2_MODEL_RUNNER has to ask for"
        return ""

    @cached_property
    def _of_first_runner(self) -> frozenset[str]:
        """The files that the first model runner itself imports."""
        names = self._imports(_FIRST_RUNNER)
        return frozenset(path for name in names for path in self._files(name))

    @cached_property
    def imported(self) -> frozenset[str]:
        """The files that importing a server's modules runs."""
        seen: set[str] = set()
        pending = list(ROOTS)
        while pending:
            module = pending.pop()
            for path in self._files(module):
                if path not in seen:
                    seen.add(path)
                    pending.extend(self._imports(path))
        return frozenset(seen)

    def _files(self, module: str) -> Iterator[str]:
        """The files that importing a dotted name runs: the packages above it, and itself."""
        place = PurePosixPath()
        for part in module.split("."):
            place /= part
            for path in (f"{place}/__init__.py", f"{place}.py"):
                if path in self._tree:
                    yield path
                    break

    def _imports(self, path: str) -> Iterator[str]:
        module = python_module(self._tree.read(path))
        for node in imports(module.body) if module is not None else ():
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                base = _base(path, node)
                names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
            yield from (name for name in names if name.partition(".")[0] == PACKAGE)


def imports(body: Iterable[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that run when a module is imported on Windows."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If):
            answer = truth(node.test)
            yield from imports(node.body if answer is not False else ())
            yield from imports(node.orelse if answer is not True else ())
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for field in ("body", "orelse", "finalbody"):
                yield from imports(getattr(node, field, ()))
            for handler in getattr(node, "handlers", ()):
                yield from imports(handler.body)


def _base(path: str, node: ast.ImportFrom) -> str:
    """The module that `from … import` names, in full."""
    if not node.level:
        return node.module or ""
    package = PurePosixPath(path).parts[: -node.level]
    return ".".join((*package, *filter(None, (node.module,))))
