"""Requirements against a package index that the test serves."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from portkit.scan import wheels
from portkit.scan.detectors import Context
from portkit.scan.model import Tier
from portkit.scan.rules import Rule, Snippet, files_of, load
from portkit.scan.tree import SourceTree

ROOT = Path(__file__).resolve().parents[2]
RULES = load(ROOT)
PYPROJECT = '[project]\nrequires-python = ">=3.10,<3.13"\n[build-system]\nrequires = ["wheel"]\n'
LINUX = "manylinux_2_28_x86_64"

INDEX = {
    "pure-package": ["pure_package-1.0-py3-none-any.whl"],
    "source-only": ["source-only-1.0.tar.gz"],
    "linux-only": [f"linux_only-1.0-cp38-abi3-{LINUX}.whl", "linux-only-1.0.tar.gz"],
    "both": [f"both-1.0-cp38-abi3-{LINUX}.whl", "both-1.0-cp38-abi3-win_amd64.whl"],
    "late": [
        *(f"late-1.0-cp3{n}-cp3{n}-{LINUX}.whl" for n in (10, 11, 12)),
        *(f"late-1.0-cp3{n}-cp3{n}-win_amd64.whl" for n in (10, 11)),
    ],
    "older": [
        f"older-2.0-cp38-abi3-{LINUX}.whl",
        "older-1.0-cp38-abi3-win_amd64.whl",
        f"older-1.0-cp38-abi3-{LINUX}.whl",
    ],
    "binary": ["binary-1.0-py3-none-win_amd64.whl", f"binary-1.0-py3-none-{LINUX}.whl"],
    "nowhere": ["nowhere-1.0-cp38-abi3-macosx_11_0_arm64.whl"],
}


class Serving:
    """What the index does: whether it answers, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.broken = False


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    state = Serving()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.strip("/").split("/")[-1]
            state.asked.append(name)
            status = 403 if state.broken else 200 if name in INDEX else 404
            files = [{"filename": n, "url": n, "hashes": {}} for n in INDEX.get(name, ())]
            page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
            body = json.dumps(page).encode() if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    settings = {"index-url": f"http://127.0.0.1:{server.server_port}/simple"}
    monkeypatch.setattr(wheels, "pip_settings", lambda: settings)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def context(text: str, **more: object) -> Context:
    files = {"requirements/cuda.txt": text.encode(), "pyproject.toml": PYPROJECT.encode()}
    return replace(Context(SourceTree.of_files(files), RULES), **more)  # type: ignore[arg-type]


def found(text: str, **more: object) -> dict[str, str]:
    """What the index is found to lack: the requirement's line to the rule."""
    return {one.excerpt: one.rule for one in wheels.ask(context(text, **more))}


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("pure-package", None),
        ("both>=1", None),
        ("binary", None),
        ("older", None),  # pip takes the older version
        ("linux-only", wheels.NO_WHEEL),
        ("older==2.0", wheels.NO_WHEEL),
        ("late", wheels.NO_WHEEL),
        ("source-only", wheels.SOURCE_ONLY),
        ("nowhere", None),  # Linux has none either
        ("pure-package==9", None),  # no such version, on no system
        ("unheard-of", None),
        ('linux-only; sys_platform == "linux"', None),
        ('linux-only; platform_machine == "x86_64"', None),
        ('linux-only; python_version < "3.9"', None),
    ],
)
@pytest.mark.usefixtures("serving")
def test_a_requirement_is_judged_by_what_linux_has(line: str, rule: str | None) -> None:
    assert found(line).get(line) == rule


@pytest.mark.usefixtures("serving")
def test_a_wheel_that_lacks_some_pythons_is_less_sure_and_names_them() -> None:
    (finding,) = wheels.ask(context("late"))
    assert finding.tier is Tier.LIKELY and finding.detail.endswith("Python 3.12")


@pytest.mark.usefixtures("serving")
@pytest.mark.parametrize("rule", RULES.by_detector[wheels.WHEELS], ids=lambda rule: str(rule.id))
def test_the_rules_snippets(rule: Rule) -> None:
    def rules_in(snippet: Snippet) -> set[str]:
        tree = SourceTree.of_files(files_of(rule, snippet))
        return {finding.rule for finding in wheels.ask(Context(tree, RULES))}

    assert all(rule.id in rules_in(snippet) for snippet in rule.bad)
    assert not any(rule.id in rules_in(snippet) for snippet in rule.good)


def test_the_index_is_asked_once_a_day_and_offline_uses_what_it_said(
    serving: Serving, tmp_path: Path
) -> None:
    first = found("linux-only", cache=tmp_path)
    assert serving.asked.count("linux-only") == 1
    assert found("linux-only", cache=tmp_path) == first
    assert found("linux-only", cache=tmp_path, offline=True) == first
    assert serving.asked.count("linux-only") == 1


def test_offline_says_what_was_not_looked_up(serving: Serving) -> None:
    notes: list[str] = []
    assert found("linux-only", offline=True, note=notes.append) == {}
    assert serving.asked == []
    assert notes == ["offline: 2 of 2 requirements were not looked up on the package index"]


def test_an_index_that_does_not_answer_is_said_and_stops_nothing(serving: Serving) -> None:
    serving.broken = True
    notes: list[str] = []
    assert found("linux-only", note=notes.append) == {}
    assert sorted(note.partition(":")[0] for note in notes) == [
        "linux-only was not looked up",
        "wheel was not looked up",
    ]


def test_included_files_are_read_and_named() -> None:
    files = {
        "requirements/build/cuda.txt": b"# build\n-r ../common.txt\nninja\n",
        "requirements/common.txt": b"a>=1  # why\nb ; platform_machine == 'x86_64'\n",
        "requirements/rocm.txt": b"c\n",
    }
    entries = list(wheels.entries(SourceTree.of_files(files)))
    assert [(e.requirement.name, e.path, e.line) for e in entries] == [
        ("a", "requirements/common.txt", 1),
        ("b", "requirements/common.txt", 2),
        ("ninja", "requirements/build/cuda.txt", 3),
    ]
