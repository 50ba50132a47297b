"""What a type checker sees on Windows and not on Linux: names of the library that Windows lacks.

`ty` reads the Python files twice, told once that the platform is `win32` and once `linux`.  What it
says both times is upstream's own affair, packages that are not installed here among it; the
difference is ours.  Third-party packages are kept away from it, so that the result is the same on
every machine, and it is kept in the cache by what was read.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from portkit.change import durable
from portkit.errors import IntegrityError, Unavailable
from portkit.model import Event
from portkit.scan.detectors import Context
from portkit.scan.model import Finding, Language
from portkit.scan.python_guards import Guards
from portkit.scan.python_reach import is_run

NAME = "typecheck"
MISSING = "python-missing-name"

_PYTHON = "3.12"
_TIMEOUT = 900.0  # seconds for one pass
_PROBE = "vllm_port_probe.py"
_PROBE_TEXT = b"import os\n\nos.geteuid()\nos.startfile\n"  # the one is missing on Windows, ...
_PROBE_LINES = {"win32": 3, "linux": 4}

# Imports of these modules fail on Windows: a rule of its own reports them, once per file.
_WHOLLY_MISSING = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "posix")

_FAILS = re.compile("attribute|member|import|unresolved|unknown-argument|undefined")
_MEMBER = re.compile(r"Module `([\w.]+)` has no member `(\w+)`")
_UNRESOLVED = re.compile(r"resolve imported module `(\w+)")
_OF_TYPE = re.compile(r"type `([\w.]+)` has no attribute `(\w+)`")
_KEYWORD = re.compile(r"Argument `(\w+)` does not match .*? `([\w.]+)`")


@dataclass(frozen=True)
class Diagnostic:
    """One message of the type checker; `line` and `column` are 1-based, `check` is its rule."""

    path: str
    line: int
    column: int
    check: str
    message: str


def detect(context: Context) -> Iterator[Finding]:
    """Names that are missing on Windows, one finding per function; raises `Unavailable`."""
    if NAME not in context.rules.by_detector:
        return
    paths = [p for p in context.tree.of_language(Language.PYTHON) if is_run(p)]
    files = dict(context.tree.read_all(paths))
    if not files:
        return
    for path, diagnostics in _by_file(_difference(context, files)).items():
        yield from _findings(context, path, files[path], diagnostics)


def _findings(
    context: Context, path: str, data: bytes, diagnostics: list[Diagnostic]
) -> Iterator[Finding]:
    """One finding per function, at its first place, with all the names in it."""
    guards = Guards(data)
    lines = data.decode("utf-8", "replace").split("\n")
    groups: dict[tuple[int, int], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        groups.setdefault(guards.scope(diagnostic.line), []).append(diagnostic)
    for group in groups.values():
        first = group[0]
        names = dict.fromkeys(_name(diagnostic) for diagnostic in group)
        detail = ", ".join(names)
        if len(group) > len(names):
            detail += f" ({len(group)} places)"
        excerpt = lines[first.line - 1].strip()
        yield context.rules[MISSING].at(path, first.line, first.column, excerpt, detail)


def _name(diagnostic: Diagnostic) -> str:
    """What is missing (`os.fork`), or the message where it names nothing."""
    for pattern in (_MEMBER, _OF_TYPE):
        if match := pattern.search(diagnostic.message):
            return f"{match[1]}.{match[2]}"
    if match := _KEYWORD.search(diagnostic.message):
        return f"{match[2]}({match[1]}=)"
    return diagnostic.message


def _by_file(diagnostics: list[Diagnostic]) -> Mapping[str, list[Diagnostic]]:
    found: dict[str, list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        member = _MEMBER.search(diagnostic.message)
        unresolved = _UNRESOLVED.search(diagnostic.message)
        # A package that only code for Windows imports is not there in the other pass.
        foreign = unresolved is not None and unresolved[1] not in sys.stdlib_module_names
        # Another type (a PipeConnection for a Connection) is mostly harmless: not reported.
        fails = _FAILS.search(diagnostic.check) is not None
        if fails and not foreign and not (member is not None and member[1] in _WHOLLY_MISSING):
            found.setdefault(diagnostic.path, []).append(diagnostic)
    return found


def _difference(context: Context, files: Mapping[str, bytes]) -> list[Diagnostic]:
    """What is said of `files` for Windows only, from the cache if it holds it."""
    place = None
    if context.cache is not None:
        place = context.cache / f"typecheck-{_key(files)}.json"
        if place.is_file():
            return [Diagnostic(*fields) for fields in json.loads(place.read_bytes())]
    found = _compare(context, files)
    if place is not None:
        durable.put(place, json.dumps([astuple(one) for one in found]).encode())
    return found


def _key(files: Mapping[str, bytes]) -> str:
    """Names what was read, and by which version of the checker."""
    digest = hashlib.sha256(f"{_version()} {_PYTHON}".encode())
    for path, data in sorted(files.items()):
        digest.update(f"\0{path}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


def _version() -> str:
    try:
        return importlib.metadata.version("ty")
    except importlib.metadata.PackageNotFoundError:
        raise Unavailable(
            "the type checker ty is not installed", hint="pip install ty, or leave it out"
        ) from None


def _compare(context: Context, files: Mapping[str, bytes]) -> list[Diagnostic]:
    _version()
    with tempfile.TemporaryDirectory(prefix="portkit-") as folder:
        root = Path(folder).resolve()
        for path, data in {**files, _PROBE: _PROBE_TEXT}.items():
            file = root / "source" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        said: dict[str, set[Diagnostic]] = {}
        for number, platform in enumerate(("win32", "linux")):
            context.events(Event("type checking for Windows and for Linux", number, 2, "passes"))
            said[platform] = _check(root, platform)
    ours = said["win32"] - said["linux"]
    return sorted((d for d in ours if d.path != _PROBE), key=astuple)


def _check(root: Path, platform: str) -> set[Diagnostic]:
    """One pass over `root`/source; raises `Unavailable` where the checker does not do its work."""
    site = (
        Path("Lib/site-packages") if os.name == "nt" else Path(f"lib/python{_PYTHON}/site-packages")
    )
    (root / "empty" / site).mkdir(parents=True, exist_ok=True)
    (root / "empty/pyvenv.cfg").write_text(f"home = {root}\nversion = {_PYTHON}\n", "utf-8")
    (root / "ty.toml").write_bytes(b"")
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("TY_", "VIRTUAL_ENV", "CONDA_"))
    }
    command = [
        *(sys.executable, "-m", "ty", "check", "--project", "source", "--config-file", "ty.toml"),
        *("--python", "empty", "--python-version", _PYTHON, "--python-platform", platform),
        *("--output-format", "gitlab", "--no-progress", "--exit-zero", "source"),
    ]
    try:
        done = subprocess.run(
            command, cwd=root, env=kept, capture_output=True, timeout=_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the type checker ty did not finish: {error}") from error
    if done.returncode != 0:
        reason = " ".join(done.stderr.decode("utf-8", "replace").split())
        raise Unavailable(f"the type checker ty failed ({done.returncode}): {reason[-300:]}")
    found = set(_diagnostics(done.stdout))
    probed = {diagnostic.line for diagnostic in found if diagnostic.path == _PROBE}
    if probed != {_PROBE_LINES[platform]}:
        raise IntegrityError(
            f"ty did not take {platform} as its platform: in a file that uses one name which "
            f"only Windows lacks and one which only Linux lacks it reports lines {sorted(probed)}",
            hint="this version of ty spells platforms differently; install another one",
        )
    return found


def _diagnostics(output: bytes) -> Iterator[Diagnostic]:
    for entry in json.loads(output):
        place = entry["location"]
        begin = place["positions"]["begin"]
        path = place["path"].replace("\\", "/").removeprefix("source/")
        message = entry["description"].partition(": ")[2]
        yield Diagnostic(path, begin["line"], begin["column"], entry["check_name"], message)
