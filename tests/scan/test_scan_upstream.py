"""The scan of the pinned release: it finds what the port is about, and the series leaves little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from portkit.port import porting
from portkit.scan import cover, rules, scanning, silence
from portkit.scan.model import Reason, Stage
from portkit.scan.scanning import Options, Scan
from portkit.scan.tree import SourceTree
from portkit.upstream.git import Store
from portkit.upstream.source import Source

ROOT = Path(__file__).resolve().parents[2]

# Every file that Windows needs a change in, and what has to be found there.
CONSTRUCTS = {
    "CMakeLists.txt": {"cmake-cublas", "cmake-preprocessor-mode"},
    "cmake/utils.cmake": {"cmake-macro-path"},
    "setup.py": {"setup-platform-gate", "setup-native-path", "setup-program-name"},
    "requirements/cuda.txt": {"requirement-linux-package"},
    "csrc/quantization/utils.cuh": {"cpp-device-variable-template"},
    "csrc/quantization/fused_kernels/layernorm_utils.cuh": {"cpp-device-variable-template-use"},
    "csrc/quantization/fused_kernels/quant_conversions.cuh": {"cpp-device-variable-template-use"},
    "csrc/quantization/w8a8/fp8/common.cu": {"cpp-device-variable-template-use"},
    "csrc/quantization/w8a8/fp8/common.cuh": {"cpp-device-variable-template-use"},
    "csrc/mamba/mamba_ssm/selective_scan_fwd.cu": {"cpp-constexpr-capture"},
    "csrc/quantization/activation_kernels.cu": {
        "cpp-designated-initialiser",
        "cpp-int128",
        "cpp-glibc-integers",
    },
    "csrc/core/math.hpp": {"cpp-gcc-builtin"},
    "csrc/quantization/awq/gemm_kernels.cu": {"cpp-asm-spelling"},
    "csrc/quantization/gptq_allspark/allspark_qgemm_w8a16.cu": {"cpp-alternative-token"},
    "csrc/quantization/marlin/sparse/common/base.h": {"cpp-uint"},
    "csrc/fused_qknorm_rope_kernel.cu": {"cpp-uint"},
    "csrc/attention/merge_attn_states.cu": {"cpp-uint", "cpp-std-classify-device"},
    "csrc/cumem_allocator.cpp": {"cpp-ssize-t"},
    "csrc/quantization/gptq_marlin/generate_kernels.py": {"generator-nesting", "python-shell-tool"},
    "csrc/moe/marlin_moe_wna16/generate_kernels.py": {"generator-nesting", "python-shell-tool"},
    "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py": {"python-posix-module"},
    "vllm/utils/network_utils.py": {"python-ipc-address"},
    "vllm/utils/system_utils.py": {"python-start-method-setting"},
    "vllm/v1/engine/core_client.py": {"python-engine-processes"},
    "vllm/distributed/parallel_state.py": {"python-gloo"},
    "vllm/entrypoints/openai/api_server.py": {"python-uvloop"},
}

# A release that no rule was written or corrected by. What it holds was searched for by name (POSIX
# modules, signals, paths and headers, GNU's builtins, attributes and types), not by the rules.
UNSEEN_TAG = "v0.28.0"
UNSEEN = {
    "csrc/cumem_allocator.cpp": {"cpp-ssize-t"},
    "csrc/fs_io.cpp": {"cpp-posix-header", "cpp-ssize-t"},
    "csrc/libtorch_stable/activation_kernels.cu": {"cpp-math-constant"},
    "csrc/libtorch_stable/attention/merge_attn_states.cu": {"cpp-std-classify-device", "cpp-uint"},
    "csrc/libtorch_stable/core/math.hpp": {"cpp-gcc-builtin"},
    "csrc/libtorch_stable/fused_qknorm_rope_kernel.cu": {"cpp-uint"},
    "csrc/libtorch_stable/mamba/selective_scan_fwd.cu": {"cpp-math-constant"},
    "csrc/libtorch_stable/moe/grouped_topk_kernels.cu": {"cpp-gcc-attribute"},
    "csrc/libtorch_stable/moe/marlin_moe_wna16/generate_kernels.py": {"python-shell-tool"},
    "csrc/libtorch_stable/persistent_topk.cuh": {"cpp-gcc-attribute"},
    "csrc/libtorch_stable/quantization/activation_kernels.cu": {
        "cpp-glibc-integers",
        "cpp-int128",
    },
    "csrc/libtorch_stable/quantization/awq/gemm_kernels.cu": {"cpp-asm-spelling"},
    "csrc/libtorch_stable/quantization/marlin/generate_kernels.py": {"python-shell-tool"},
    "csrc/spinloop.cpp": {"cpp-posix-function"},
    "vllm/distributed/ec_transfer/ec_connector/example_connector.py": {"python-tmp"},
    "vllm/distributed/kv_transfer/kv_connector/v1/example_hidden_states_connector.py": {
        "python-posix-module",
        "python-tmp",
    },
    "vllm/distributed/kv_transfer/kv_connector/v1/mooncake/store/worker.py": {"python-ipc-address"},
    "vllm/distributed/parallel_state.py": {"python-gloo"},
    "vllm/distributed/utils.py": {"python-gloo"},
    "vllm/entrypoints/cli/launch.py": {"python-uvloop"},
    "vllm/entrypoints/cli/serve.py": {"python-uvloop"},
    "vllm/entrypoints/grpc_server.py": {"python-loop-signals", "python-uvloop"},
    "vllm/entrypoints/launcher.py": {"python-loop-signals"},
    "vllm/entrypoints/openai/api_server.py": {"python-start-method-setting", "python-uvloop"},
    "vllm/entrypoints/openai/dp_supervisor.py": {"python-loop-signals", "python-uvloop"},
    "vllm/utils/network_utils.py": {"python-ipc-address"},
    "vllm/utils/platform_utils.py": {"python-fork"},
    "vllm/utils/system_utils.py": {"python-proc", "python-start-method-setting"},
    "vllm/v1/utils.py": {"python-popen-posix", "python-uvloop"},
}


@pytest.fixture(scope="module")
def unseen(store: Store, obtain_tag: Callable[[str], Source]) -> Scan:
    """The scan of a release as upstream made it, without the slow detectors."""
    tree = SourceTree.of_store(store, UNSEEN_TAG, obtain_tag(UNSEEN_TAG).tree)
    return scanning.scan(tree, rules.load(ROOT), options=Options(slow=False, offline=True))


@pytest.mark.parametrize("path", UNSEEN)
def test_what_an_unseen_release_holds_is_found(unseen: Scan, path: str) -> None:
    assert {one.rule for one in unseen.findings if one.path == path} >= UNSEEN[path]


@pytest.fixture(scope="module")
def pinned(store: Store, obtain_tag: Callable[[str], Source]) -> Scan:
    """The scan of the pin with the series, without the slow detectors; twenty seconds."""
    start = porting.read(ROOT)
    source = obtain_tag(start.pin.tag)
    tree = SourceTree.of_store(store, source.tag, source.tree)
    known = rules.load(ROOT)
    return scanning.scan(
        tree,
        known,
        cover=cover.at_pin(start.patches, tree),
        silences=silence.load(ROOT, known),
        options=Options(slow=False, offline=True, pin=True),
    )


@pytest.mark.parametrize("path", CONSTRUCTS)
def test_what_the_port_is_about_is_found(pinned: Scan, path: str) -> None:
    found = {
        one.finding.rule
        for one in pinned.judged
        if one.finding.path == path and one.reason in (None, Reason.PATCHED)
    }
    assert found >= CONSTRUCTS[path]


def test_the_series_leaves_nothing_certain(pinned: Scan) -> None:
    """Nothing that a person has not explained, and nothing at all that stops the build."""
    assert not pinned.certain
    explained = [one.finding for one in pinned.explained]
    assert explained and Stage.COMPILE not in {finding.stage for finding in explained}
    said = (ROOT / "docs/scan.md").read_text("utf-8").partition("## What the series leaves")[2]
    for finding in explained:
        assert f"`{finding.path}`" in said and f"`{finding.rule}`" in said, finding


def test_no_silence_is_stale(pinned: Scan) -> None:
    assert pinned.stale == ()


def test_every_patch_is_needed(pinned: Scan) -> None:
    """A file of the port is covered by a patch: nothing of what it cures counts any more."""
    covered = {one.finding.path for one in pinned.judged if one.reason is Reason.PATCHED}
    assert covered >= {path for path in CONSTRUCTS if path.startswith("csrc/")}
    left = {(finding.path, finding.rule) for finding in pinned.findings}
    kernels = {path: found for path, found in CONSTRUCTS.items() if path.startswith("csrc/")}
    assert not {(path, rule) for path, found in kernels.items() for rule in found} & left


def test_other_devices_are_set_aside(pinned: Scan) -> None:
    reasons = {one.finding.path.split("/")[1]: one.reason for one in pinned.judged
               if one.finding.path.startswith(("csrc/cpu/", "csrc/rocm/"))}  # fmt: skip
    assert set(reasons.values()) == {Reason.NOT_BUILT}
    assert {"cpu", "rocm"} <= set(reasons)
