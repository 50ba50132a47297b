"""A pytest plugin that lets upstream's tests run, unchanged, on the kernels of a partial build.

`KERNEL_TESTS_LIBRARIES` names the file that lists its libraries.  Upstream's own conftest, which
starts engines, is left out; the one fixture of it that the kernel tests use is here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_tests import partial
from kernel_tests.upstream_tests import VARIABLE

partial.install(Path(os.environ[VARIABLE]), Path.cwd())


@pytest.fixture
def default_vllm_config() -> Iterator[None]:
    """A default configuration, as upstream's conftest sets one."""
    from vllm.config import VllmConfig, set_current_vllm_config  # noqa: PLC0415

    with set_current_vllm_config(VllmConfig()):
        yield
