"""A pytest plugin that lets upstream's tests run, unchanged, on the kernels of a partial build.

`import vllm._C` is answered with the libraries that `KERNEL_TESTS_LIBRARIES` names.  Ops that were
not built are declared and have no kernel, since vLLM's Python files describe whole groups of them
to torch's compiler; a test that called one would fail.  Upstream's own conftest, which starts
engines, is left out; the one fixture of it that the kernel tests use is here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kernel_tests import bindings
from kernel_tests.upstream_tests import VARIABLE

_MODULES = ("vllm._C", "vllm._moe_C")

for _path in json.loads(Path(os.environ[VARIABLE]).read_text("utf-8")):
    torch.ops.load_library(_path)
_declared = []  # torch forgets what a library declares when the library goes
for _library in ("_C", "_C_cache_ops", "_moe_C"):
    _fragment = torch.library.Library(_library, "FRAGMENT")
    _declared.append(_fragment)
    for _statement in bindings.read(Path.cwd(), _library).statements:
        _known = hasattr(getattr(torch.ops, _library), _statement.op)
        if _statement.kind == "def" and not _known:
            # A schema that this torch does not read is of an op that no test here calls.
            with suppress(RuntimeError):
                _fragment.define(_statement.schema)
for _name in _MODULES:
    sys.modules.setdefault(_name, ModuleType(_name))


@pytest.fixture
def default_vllm_config() -> Iterator[None]:
    """A default configuration, as upstream's conftest sets one."""
    from vllm.config import VllmConfig, set_current_vllm_config  # noqa: PLC0415

    with set_current_vllm_config(VllmConfig()):
        yield
