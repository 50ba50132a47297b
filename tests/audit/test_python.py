"""Python, with the Windows guards folded: what passes for the same program, and what never may."""

from __future__ import annotations

import textwrap

import pytest

from portkit.audit import pyfold
from portkit.audit.doubt import Doubt

UPSTREAM = """
    import os
    import socket
    import uvloop

    LIMIT = 3

    def connect(name, backend="gloo"):
        if name:
            raise ValueError(name)
        return socket.socket(name, backend)
    """


def text(source: str) -> bytes:
    return textwrap.dedent(source).encode()


def doubt(upstream: str, patched: str) -> str:
    """Why the two differ, "" if they are the same program elsewhere."""
    try:
        pyfold.compare(text(upstream), text(patched))
    except Doubt as found:
        return str(found)
    return ""


GUARDED = [
    ("if name:", "if sys.platform == 'win32':\n            return None\n        if name:"),
    ("if name:", "if os.name == 'nt' or name:"),
    ("if name:", "if sys.platform != 'win32' and name:"),
    ("if name:", "if not (sys.platform == 'win32') and name:"),
    ("if name:", "if sys.platform in ('win32',):\n            pass\n        elif name:"),
    ("if name:", "if sys.platform.startswith('win'):\n            pass\n        elif name:"),
    ("if name:", "if platform.system() == 'Windows':\n            pass\n        elif name:"),
    ("if name:", "if on_windows():\n            pass\n        elif name:"),
    ("name, backend)", "name, 'fake' if sys.platform == 'win32' else backend)"),
    (
        "return socket",
        "if sys.platform != 'win32':\n            return socket.socket(name, backend)\n"
        "        return socket",
    ),
    (
        "import uvloop",
        "if sys.platform == 'win32':\n        import asyncio as uvloop\n"
        "    else:\n        import uvloop",
    ),
    ("LIMIT = 3", "LIMIT = 3\n    SUFFIX = '.exe' if sys.platform == 'win32' else ''"),
]
IMPORTS = "import os\n    import platform\n    import sys"
HELPER = "def on_windows():\n        return os.name == 'nt'\n\n    LIMIT = 3"


@pytest.mark.parametrize(("old", "new"), GUARDED)
def test_a_guarded_change_is_none_elsewhere(old: str, new: str) -> None:
    patched = UPSTREAM.replace(old, new, 1).replace("import os", IMPORTS)
    assert doubt(UPSTREAM, patched.replace("LIMIT = 3", HELPER, 1)) == ""


def test_a_loop_on_a_guard_is_not_taken_apart() -> None:
    patched = UPSTREAM.replace("if name:", "while sys.platform == 'win32':\n            pass\n        if name:")  # fmt: skip  # noqa: E501
    assert doubt(UPSTREAM, patched.replace("import os", IMPORTS))


def test_paths_and_texts_of_the_system_are_those_of_posix() -> None:
    upstream = (
        'import sys\nimport os\nx = ":".join(sys.path)\ny = f"{x}/nvcc" + x\nz = x + "/bin/nvcc"\n'
    )
    patched = (
        "import sys\nimport os\n"
        'EXE = "nvcc.exe" if sys.platform == "win32" else "nvcc"\n'
        "x = os.pathsep.join(sys.path)\n"
        'y = f"{x}/{EXE}" + x.replace(os.sep, "/")\n'
        'z = x + "/bin/" + EXE\n'
    )
    assert doubt(upstream, patched) == ""
    assert "`z = x + '/bin/nvcc'`" in doubt(upstream, patched.replace('"/bin/"', '"/lib/"'))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if name:", "if sys.platform == 'win32':\n            pass\n        else:\n            name = 1\n        if name:"),  # noqa: E501
        ("if name:", "if sys.platform != 'win32':\n            return None\n        if name:"),
        ("if name:", "if sys.platform == 'linux':\n            return None\n        if name:"),
        ("if name:", "if name and sys.platform == 'win32':"),
        ("if name:", "if sys.platform == 'win32' or not name:"),
        ("backend=\"gloo\"", "backend=\"fake\""),
        ("import uvloop", "import asyncio as uvloop"),
        ("import uvloop", "if sys.platform == 'win32':\n        import uvloop"),
        ("import socket", "import socket\n    import msvcrt"),
        ("import socket", "import _socket as socket"),
        ("LIMIT = 3", "LIMIT = 3 if sys.platform == 'win32' else 4"),
        ("raise ValueError(name)", "pass"),
        ("return socket.socket(name, backend)", "socket.socket(name, backend)"),
    ],
)  # fmt: skip
def test_a_change_for_everyone_is_found(old: str, new: str) -> None:
    patched = UPSTREAM.replace(old, new, 1).replace("import os", "import os\n    import sys")
    assert doubt(UPSTREAM, patched)


def test_a_guard_without_its_import_fails_elsewhere() -> None:
    patched = UPSTREAM.replace("if name:", "if sys.platform == 'win32':\n            pass\n        elif name:")  # fmt: skip  # noqa: E501
    assert "became `pass`" in doubt(UPSTREAM, patched)
    late = patched + "\n    import sys\n"
    assert doubt(UPSTREAM, late)


def test_a_guard_on_another_sys_is_no_guard() -> None:
    patched = UPSTREAM.replace("import os", "import os\n    import sys")
    patched = patched.replace("def connect(name,", "def connect(name, sys=None,")
    patched = patched.replace("if name:", "if sys.platform == 'win32':\n            pass\n        elif name:")  # fmt: skip  # noqa: E501
    assert doubt(UPSTREAM, patched)


def test_a_dead_branch_must_not_make_a_name_local() -> None:
    upstream = """
        import socket
        def connect(name):
            return socket.socket(name)
        """
    patched = """
        import socket
        import sys
        def connect(name):
            if sys.platform == "win32":
                import socket
            return socket.socket(name)
        """
    assert "makes socket local to connect" in doubt(upstream, patched)


def test_a_dead_branch_must_not_make_a_generator() -> None:
    upstream = "import sys\ndef f(x):\n    return x\n"
    patched = (
        "import sys\ndef f(x):\n    if sys.platform == 'win32':\n        yield x\n    return x\n"
    )
    assert "makes a generator of f" in doubt(upstream, patched)


def test_a_constant_of_upstream_is_not_taken_for_a_helper() -> None:
    upstream = "import sys\nEXE = 'nvcc'\ndef f(EXE):\n    return EXE\n"
    patched = upstream.replace("return EXE", "return 'nvcc'")
    assert doubt(upstream, patched)


def test_a_file_that_does_not_parse_is_a_doubt() -> None:
    assert "does not parse" in doubt("x = 1\n", "x = (\n")
