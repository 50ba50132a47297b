"""The Python and build detectors on upstream's own source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from portkit.scan import generators, matching, python_calls, wheels
from portkit.scan.detectors import Context
from portkit.scan.model import Language
from portkit.scan.python_reach import reach_of
from portkit.scan.rules import Rules, load
from portkit.scan.tree import SourceTree
from portkit.upstream.source import Cache, obtain

RULES = load(Path(__file__).resolve().parents[2])
pytestmark = pytest.mark.upstream


@pytest.fixture(scope="module")
def context() -> Context:
    cache = Cache.default()
    source = obtain("v0.14.1", cache=cache)
    return Context(SourceTree.of_store(cache.store, "v0.14.1", source.tree), RULES)


def test_the_generators_nest_too_deep(context: Context) -> None:
    found = {one.path: one.detail for one in generators.detect(context)}
    assert set(found) == {
        "csrc/moe/marlin_moe_wna16/generate_kernels.py",
        "csrc/quantization/gptq_marlin/generate_kernels.py",
    }
    assert all(int(detail.split()[-2]) > 700 for detail in found.values())


def test_what_the_port_had_to_change_in_python_is_found(context: Context) -> None:
    rules = {name: rule for name, rule in RULES.items() if rule.language is not Language.CPP}
    found = {(f.rule, f.path) for f in matching.detect(replace(context, rules=Rules(rules)))}
    assert {
        ("python-posix-module", "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py"),
        ("python-ipc-address", "vllm/utils/network_utils.py"),
        ("python-start-method-setting", "vllm/utils/system_utils.py"),
        ("python-engine-processes", "vllm/v1/engine/core_client.py"),
        ("python-gloo", "vllm/distributed/parallel_state.py"),
        ("python-uvloop", "vllm/entrypoints/openai/api_server.py"),
        ("python-path-separator", "setup.py"),
        ("setup-platform-gate", "setup.py"),
        ("setup-program-name", "setup.py"),
        ("requirement-linux-package", "requirements/cuda.txt"),
        ("cmake-path-list", "CMakeLists.txt"),
        ("cmake-preprocessor-mode", "CMakeLists.txt"),
    } <= found


def test_a_server_imports_what_it_needs_and_no_connector(context: Context) -> None:
    imported = reach_of(context.tree).imported
    assert {"vllm/v1/worker/gpu_worker.py", "vllm/v1/engine/core.py", "vllm/envs.py"} <= imported
    assert "vllm/platforms/rocm.py" not in imported
    assert not any("/kv_connector/v1/nixl" in path for path in imported)


def test_markers_leave_out_what_windows_could_install(context: Context) -> None:
    assert {one.detail for one in wheels.read(context)} == {"llguidance", "xgrammar"}


def test_the_sampler_needs_triton(context: Context) -> None:
    found = {one.path for one in python_calls.detect(context) if one.rule == python_calls.TRITON}
    assert "vllm/v1/sample/rejection_sampler.py" in found
