"""Scripts that write kernels when CMake configures: run each in a scratch folder, and measure.

A script is run as the build runs it, by this Python, with the architectures of Windows GPUs as its
argument.  One that needs what is not here (CUTLASS's Python modules, say) writes nothing to
measure, and is passed over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from portkit.model import Event
from portkit.scan.code import Code
from portkit.scan.cppcode import chains, long_strings
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language
from portkit.scan.rules import Rule
from portkit.scan.tree import SourceTree, language_of

NAME = "generators"
NESTING = "generator-nesting"
STRING = "generator-string"

_ARCHS = "7.5,8.0,8.6,8.9,12.0"
_TIMEOUT = 120.0  # seconds for one script


def detect(context: Context) -> Iterator[Finding]:
    """Generators whose output exceeds a limit of MSVC, at the line that writes it."""
    rules = {rule.id: rule for rule in context.rules.by_detector.get(NAME, ())}
    if not rules:
        return
    scripts = list(_scripts(context.tree))
    for number, script in enumerate(scripts):
        context.events(Event("running generators", number, len(scripts), "scripts"))
        code = Code(context.tree.read(script), Language.PYTHON)
        for path, data in _run(context.tree, script).items():
            text = Code(data, Language.CPP)
            if NESTING in rules:
                for _, length in chains(text.code):
                    yield _at(rules[NESTING], script, code, "else if", f"{path}: {length} branches")
            if STRING in rules:
                for _, size in long_strings(text.strings):
                    yield _at(rules[STRING], script, code, '"', f"{path}: {size} bytes")


def _at(rule: Rule, script: str, code: Code, telltale: str, detail: str) -> Finding:
    """A finding at the first line of a script that holds what its output has too much of."""
    line, column = code.place(max(code.text.find(telltale), 0))
    return rule.at(script, line, column, code.line(line).strip(), detail)


def _scripts(tree: SourceTree) -> Iterator[str]:
    """The generators that the build of CUDA names."""
    listed = tree.read("CMakeLists.txt").decode("utf-8", "replace")
    for path in tree.of_language(Language.PYTHON):
        if PurePosixPath(path).name.startswith("generate") and path in listed:
            yield path


def _run(tree: SourceTree, script: str) -> Mapping[str, bytes]:
    """The C++ files that a script writes beside itself; none where it fails."""
    home = PurePosixPath(script).parent.as_posix()
    given = tree.read_all(path for path in tree.paths if path.startswith(f"{home}/"))
    with tempfile.TemporaryDirectory(prefix="portkit-") as folder:
        for path, data in given.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        command = [sys.executable, "-B", str(Path(folder, script)), _ARCHS]
        environment = {**os.environ, "PYTHONPATH": "", "PYTHONUTF8": "1"}
        try:
            subprocess.run(
                command, cwd=Path(folder, home), env=environment, capture_output=True,
                timeout=_TIMEOUT, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return {}
        return {
            path: data
            for file in sorted(Path(folder).rglob("*"))
            if file.is_file()
            if (path := file.relative_to(folder).as_posix()) and language_of(path) is Language.CPP
            if (data := file.read_bytes()) != given.get(path)
        }
