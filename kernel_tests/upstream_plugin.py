"""A pytest plugin that lets upstream's tests run, unchanged, on the kernels of a partial build.

`import vllm._C` is answered with the libraries that `KERNEL_TESTS_LIBRARIES` names; ops that were
not built are absent.  Upstream's own conftest, which starts engines, is left out; the one fixture
of it that the kernel tests use is here.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kernel_tests.upstream_tests import VARIABLE

_MODULES = ("vllm._C", "vllm._moe_C")

for _path in json.loads(Path(os.environ[VARIABLE]).read_text("utf-8")):
    torch.ops.load_library(_path)
for _name in _MODULES:
    sys.modules.setdefault(_name, ModuleType(_name))


@pytest.fixture
def default_vllm_config() -> Iterator[None]:
    """A default configuration, as upstream's conftest sets one."""
    from vllm.config import (  # type: ignore[import-not-found] # noqa: PLC0415
        VllmConfig,
        set_current_vllm_config,
    )

    with set_current_vllm_config(VllmConfig()):
        yield
