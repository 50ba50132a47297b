"""Which Python lines Windows reaches, and what a handler around them takes."""

from __future__ import annotations

import ast
import textwrap

import pytest

from portkit.scan.model import Finding, Stage, Tier
from portkit.scan.python_guards import Guards
from portkit.scan.python_reach import Reach
from portkit.scan.python_truth import truth
from portkit.scan.tree import SourceTree


def guards(text: str) -> tuple[Guards, int]:
    """The guards of `text`, and the line that holds `HERE`."""
    text = textwrap.dedent(text)
    line = text[: text.index("HERE")].count("\n") + 1
    return Guards(text.encode()), line


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        ('sys.platform == "win32"', True),
        ('sys.platform != "win32"', False),
        ('sys.platform.startswith("linux")', False),
        ('sys.platform.startswith(("win", "cygwin"))', True),
        ('sys.platform in ("linux", "darwin")', False),
        ('"linux" == sys.platform', False),
        ('os.name == "nt"', True),
        ('platform.system() == "Linux"', False),
        ('platform.system().lower() == "windows"', True),
        ("current_platform.is_cuda_alike()", True),
        ("current_platform.is_rocm()", False),
        ("not current_platform.is_rocm()", True),
        ("torch.version.hip is not None", False),
        ("TYPE_CHECKING", False),
        ("IS_WINDOWS or anything", True),
        ("anything and os.name == 'posix'", False),
        ("anything or os.name == 'posix'", None),
        ("HAS_TRITON", False),
        ("not has_deep_ep_v2()", True),
        ("has_xgrammar()", None),
        ('os.path.exists("/proc/cpuinfo")', False),
        ('Path(f"/sys/devices/{x}").is_dir()', False),
        ("os.path.exists(path)", None),
        ("tensor.is_cpu", None),
        ("tensor.is_cuda", None),
        ("world_size > 1", None),
        ("envs.VLLM_USE_V1", None),
    ],
)
def test_conditions_are_worked_out_for_windows_with_cuda(test: str, expected: bool | None) -> None:
    assert truth(ast.parse(test, mode="eval").body) is expected


REACHED = [
    'if sys.platform == "win32":\n    HERE()\nelse:\n    other()\n',
    'if sys.platform == "linux":\n    other()\nHERE()\n',
    'if sys.platform == "linux":\n    return\nHERE()\n',
    "if fast:\n    return\nHERE()\n",
    "try:\n    other()\nexcept OSError:\n    HERE()\n",
    "if current_platform.is_cuda():\n    HERE()\n",
    "if c.mode != mode.NONE:\n    HERE()\n",
    'class A:\n    def check(self):\n        if platform.system() != "Linux":\n'
    "            raise RuntimeError\n    def use(self):\n        HERE()\n",
]
SKIPPED = [
    'if not os.path.exists("/proc/cpuinfo"):\n    return False\nHERE()\n',
    'if os.name == "nt":\n    with lock:\n        return 1\nHERE()\n',
    'if sys.platform != "win32":\n    HERE()\n',
    'if sys.platform == "win32":\n    other()\nelse:\n    HERE()\n',
    'if sys.platform == "win32":\n    raise NotImplementedError\nHERE()\n',
    'def f():\n    if os.name == "nt":\n        return None\n    for x in y:\n        HERE()\n',
    "if a:\n    other()\nelif current_platform.is_cpu():\n    HERE()\n",
    'assert sys.platform == "linux"\nHERE()\n',
    "if c.mode == CompilationMode.NONE:\n    return fn\nHERE()\n",
    'class A:\n    def preflight(self):\n        if platform.system() != "Linux":\n'
    "            raise RuntimeError\n    def use(self):\n        HERE()\n",
    'if (\n    platform.system() == "Linux"\n    and HERE()\n):\n    other()\n',
    'x = (\n    HERE()\n    if os.name == "posix"\n    else other()\n)\n',
]


@pytest.mark.parametrize("text", REACHED)
def test_a_line_that_windows_runs_is_not_guarded(text: str) -> None:
    found, line = guards(text)
    assert found.platform(line) == ""


@pytest.mark.parametrize("text", SKIPPED)
def test_a_line_that_windows_skips_is_guarded_and_says_by_what(text: str) -> None:
    found, line = guards(text)
    assert found.platform(line).startswith("line ")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("if hasattr(os, 'sched_yield'):\n    os.sched_yield()  # HERE\n", "os.sched_yield"),
        ("if find_spec('flashinfer') is not None:\n    import flashinfer  # HERE\n", "flashinfer"),
        ("if has_xgrammar():\n    import xgrammar  # HERE\n", "xgrammar"),
        ("if a and HAS_NUMBA:\n    import numba  # HERE\n", "numba"),
        ("if not has_numba:\n    pass\nelse:\n    import numba  # HERE\n", "numba"),
        ("if TYPE_CHECKING or HAS_NUMBA:\n    import numba  # HERE\n", "numba"),
    ],
)
def test_a_test_for_presence_guards_that_name_only(text: str, name: str) -> None:
    found, line = guards(text)
    assert found.platform(line, name)
    assert not found.platform(line, "other")
    assert not found.platform(line)


@pytest.mark.parametrize(
    ("text", "error", "taken"),
    [
        ("try:\n    import fcntl  # HERE\nexcept ImportError:\n    x = 1\n", "ImportError", True),
        ("try:\n    HERE()\nexcept Exception:\n    log()\n", "AttributeError", True),
        ("try:\n    HERE()\nexcept:\n    pass\n", "NotImplementedError", True),
        ("try:\n    HERE()\nexcept (OSError, AttributeError):\n    pass\n", "AttributeError", True),
        ("try:\n    HERE()\nexcept OSError:\n    pass\n", "AttributeError", False),
        ("try:\n    HERE()\nexcept Exception:\n    raise\n", "AttributeError", False),
        ("try:\n    pass\nexcept Exception:\n    HERE()\n", "AttributeError", False),
        ("with contextlib.suppress(OSError):\n    HERE()\n", "FileNotFoundError", True),
        ("with suppress(KeyError):\n    HERE()\n", "FileNotFoundError", False),
    ],
)
def test_handlers_take_the_errors_python_would_give_them(
    text: str, error: str, taken: bool
) -> None:
    found, line = guards(text)
    assert bool(found.handler(line, error)) is taken


def test_a_file_that_does_not_parse_guards_nothing() -> None:
    found = Guards(b"if sys.platform != 'win32'\n    HERE(\n")
    assert found.platform(2) == "" and found.handler(2, "OSError") == ""


TREE = {
    "vllm/__init__.py": b"",
    "vllm/v1/__init__.py": b"",
    "vllm/v1/engine/__init__.py": b"",
    "vllm/v1/engine/core.py": (
        b"from typing import TYPE_CHECKING\n"
        b"from vllm.utils import shared\n"
        b"from ..worker import helper\n"
        b"if TYPE_CHECKING:\n    import vllm.typing_only\n"
        b"if sys.platform != 'win32':\n    import vllm.posix_only\n"
        b"def start():\n    import vllm.lazy\n"
    ),
    "vllm/v1/worker/__init__.py": b"",
    "vllm/v1/worker/helper.py": b"",
    "vllm/utils/__init__.py": b"",
    "vllm/utils/shared.py": b"import os\nos.fork()\ndef f():\n    os.fork()\n",
    "vllm/typing_only.py": b"",
    "vllm/posix_only.py": b"",
    "vllm/lazy.py": b"os.fork()\n",
}


def test_imports_are_followed_from_where_a_server_starts() -> None:
    imported = Reach(SourceTree.of_files(TREE)).imported
    assert {"vllm/utils/shared.py", "vllm/v1/worker/helper.py"} <= imported
    assert not {"vllm/typing_only.py", "vllm/posix_only.py", "vllm/lazy.py"} & imported


@pytest.mark.parametrize(
    ("path", "line", "tier", "stage"),
    [
        ("vllm/utils/shared.py", 2, Tier.CERTAIN, Stage.IMPORT),
        ("vllm/utils/shared.py", 4, Tier.CERTAIN, Stage.SERVE),
        ("vllm/lazy.py", 1, Tier.LIKELY, Stage.OPTIONAL),
        ("setup.py", 1, Tier.CERTAIN, Stage.COMPILE),
    ],
)
def test_findings_are_placed_where_a_server_meets_them(
    path: str, line: int, tier: Tier, stage: Stage
) -> None:
    finding = Finding("r", path, line, 1, "os.fork()", Tier.CERTAIN, Stage.IMPORT)
    (placed,) = Reach(SourceTree.of_files({**TREE, "setup.py": b""})).placed([finding])
    assert (placed.tier, placed.stage) == (tier, stage)


FIRST = {"vllm/v1/worker/gpu_model_runner.py": b"from vllm.v1.worker.gpu import shared\n"}
SECOND = {f"vllm/v1/worker/gpu/{name}": b"" for name in ("__init__.py", "shared.py", "sampler.py")}
TRITON = {"vllm/config/vllm.py": b"def use_v2():\n    if not HAS_TRITON:\n        return False\n"}
ASKED = {"vllm/envs.py": b"VLLM_USE_V2_MODEL_RUNNER: bool = False\n"}


@pytest.mark.parametrize(
    ("files", "path", "why"),
    [
        ({**FIRST, **TRITON}, "gpu/sampler.py", "without Triton"),
        ({**FIRST, **ASKED}, "gpu/sampler.py", "has to ask for"),
        ({**FIRST, **TRITON}, "gpu/shared.py", ""),  # the first runner uses it
        (TRITON, "gpu/sampler.py", ""),  # there is no other runner
        (FIRST, "gpu/sampler.py", ""),  # nothing says which is chosen
        ({**FIRST, **TRITON}, "gpu_model_runner.py", ""),
    ],
)
def test_what_only_the_second_model_runner_calls(
    files: dict[str, bytes], path: str, why: str
) -> None:
    found = Reach(SourceTree.of_files({**SECOND, **files})).not_called(f"vllm/v1/worker/{path}")
    assert why in found if why else found == ""
