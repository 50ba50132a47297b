"""Which units a patch touches: through includes, quoted or not, and by what generates them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.build import cmakereply, units
from portkit.build.cmakereply import Reply, Unit

FILES = {
    "csrc/a.cu": '#include "core/math.hpp"\n',
    "csrc/b.cu": '#include <core/other.h>\n  #  include "b.h"\n',
    "csrc/b.h": '#if 0\n#include "core/math.hpp"\n#endif\n',
    "csrc/core/math.hpp": '#include "detail.h"\n',
    "csrc/core/detail.h": '#include <cuda_runtime.h>\n#include "math.hpp"\n',
    "csrc/core/other.h": "",
    "csrc/moe/generate_kernels.py": "",
    "csrc/moe/kernel_u4.cu": '#include "template.h"\n',
    "csrc/moe/template.h": "",
    "csrc/moe/ops.cu": '#ifndef X\n#include "kernel_selector.h"\n#endif\n',
    "csrc/moe/kernel_selector.h": "",
}
GENERATED = {"csrc/moe/kernel_u4.cu", "csrc/moe/kernel_selector.h"}


@pytest.fixture
def reply(tmp_path: Path) -> Reply:
    for path, text in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    compiled = [path for path in FILES if path.endswith(".cu")]
    folders = (tmp_path / "csrc", Path("/usr/include"))
    made = [Unit(tmp_path / path, "_C", f"{path}.o", (), folders, ("sm_86",)) for path in compiled]
    return Reply(tmp_path / "build", tmp_path, tuple(made), (), (), {})


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("csrc/a.cu", ["csrc/a.cu"]),
        ("csrc/core/detail.h", ["csrc/a.cu", "csrc/b.cu"]),
        ("csrc/core/other.h", ["csrc/b.cu"]),
        ("csrc/moe/generate_kernels.py", ["csrc/moe/kernel_u4.cu", "csrc/moe/ops.cu"]),
        ("csrc/moe/template.h", ["csrc/moe/kernel_u4.cu"]),
        ("setup.py", []),
    ],
)
def test_what_a_change_reaches(reply: Reply, changed: str, expected: list[str]) -> None:
    pinned = dict.fromkeys(set(FILES) - GENERATED)
    found = units.affected(reply, [changed], pinned)
    assert [one.unit.source.relative_to(reply.source).as_posix() for one in found] == expected
    assert all(one.touched == (changed,) for one in found)


@pytest.mark.skipif(shutil.which("c++") is None, reason="asks a compiler")
def test_no_file_that_the_compiler_reads_is_missed(reply: Reply) -> None:
    """What the preprocessor opens below the source is always in what the scanner follows."""
    (reply.source / "csrc/core/detail.h").write_text('#pragma once\n#include "math.hpp"\n')
    for unit in reply.units:
        said = subprocess.run(
            ["c++", "-MM", "-x", "c++", f"-I{reply.source / 'csrc'}", unit.source],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        opened = {Path(word) for word in said.replace("\\\n", " ").split()[1:]}
        for path in opened:
            changed = path.relative_to(reply.source).as_posix()
            assert unit in [one.unit for one in units.affected(reply, [changed], FILES)]


def test_commands_of_either_system_are_split_as_they_were_joined() -> None:
    windows = (
        r"C:\PROGRA~1\CUDA\bin\nvcc.exe -forward-unknown-to-host-compiler -DNAME=\"_C\" "
        r'-I"C:\Program Files\CUDA\include" -IC:\vllm\csrc -x cu -c C:\vllm\csrc\a.cu -o a.obj'
    )
    words = cmakereply.split_command(windows)
    assert words[0] == r"C:\PROGRA~1\CUDA\bin\nvcc.exe"
    assert r"-IC:\Program Files\CUDA\include" in words
    assert r"C:\vllm\csrc\a.cu" in words
    assert cmakereply.split_command("c++ -I'/the work' -DA=\\\"x\\\" -c a.cpp") == [
        "c++", "-I/the work", '-DA="x"', "-c", "a.cpp",
    ]  # fmt: skip


words = st.text("abcXYZ/._-+=", min_size=1, max_size=8)


@given(st.lists(words, min_size=1, max_size=6))
def test_plain_words_survive_either_way(listed: list[str]) -> None:
    assert cmakereply.split_command(" ".join(listed)) == listed
    assert cmakereply.split_command(" ".join(["C:\\cl.exe", *listed])) == ["C:\\cl.exe", *listed]
