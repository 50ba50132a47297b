"""Requirements against a package index that the test serves."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from portkit.scan import onindex, wheels
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
    "needs-linux": ["needs_linux-1.0-py3-none-any.whl"],
    "needs-far": ["needs_far-1.0-py3-none-any.whl", "needs_far-2.0rc1-py3-none-any.whl"],
    "needs-pure": ["needs_pure-1.0-py3-none-any.whl"],
    "needs-source": ["needs_source-1.0-py3-none-any.whl"],
    "needs-late": ["needs_late-1.0-py3-none-any.whl"],
    "with-extra": ["with_extra-1.0-py3-none-any.whl"],
    "circular": ["circular-1.0-py3-none-any.whl"],
    "zipped": ["zipped-1.0-py3-none-any.whl"],
    "bounded": ["bounded-1.0-py3-none-any.whl"],
}

# What wheels require, published beside them; "zipped" says it inside of the wheel alone.
REQUIRED = {
    "needs_linux-1.0": ['linux-only>=1; python_version < "3.12"', "pure-package"],
    "needs_far-1.0": ["needs-linux"],
    "needs_pure-1.0": ["pure-package", 'linux-only; sys_platform == "linux"'],
    "needs_source-1.0": ["source-only"],
    "needs_late-1.0": ['late; python_version >= "3.11"'],
    "with_extra-1.0": ['linux-only; extra == "fast"', "not a requirement"],
    "circular-1.0": ["circular[more]", 'linux-only; extra == "more"'],
    "zipped-1.0": ["linux-only"],
    "bounded-1.0": ["older"],
}


def metadata(name: str) -> bytes:
    lines = ["Metadata-Version: 2.1", *(f"Requires-Dist: {one}" for one in REQUIRED.get(name, ()))]
    return "\n".join((*lines, "", "text")).encode()


def zipped() -> bytes:
    """A wheel whose metadata is at its end and whose first part is longer than one range."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("zipped/data", bytes(200_000))
        archive.writestr("zipped-1.0.dist-info/METADATA", metadata("zipped-1.0"))
    return data.getvalue()


ZIPPED = zipped()


class Serving:
    """What the index does: whether it answers, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.sent = 0  # bytes of wheels
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
            if state.broken:
                self.answer(403, b"")
            elif name.startswith("zipped-"):
                self.wheel(name)
            elif name.endswith(".metadata"):
                self.answer(200, metadata("-".join(name.split("-")[:2])))
            else:
                self.page(name)

        def page(self, name: str) -> None:
            sizes = {"size": len(ZIPPED)} if name == "zipped" else {}
            files = [{"filename": n, "url": n, "hashes": {}, **sizes} for n in INDEX.get(name, ())]
            page = {"meta": {"api-version": "1.1"}, "name": name, "files": files}
            self.answer(200 if files else 404, json.dumps(page).encode() if files else b"")

        def wheel(self, name: str) -> None:
            asked = self.headers.get("Range", "").removeprefix("bytes=")
            if name.endswith(".metadata") or not asked:
                self.answer(404, b"")
                return
            start, end = map(int, asked.split("-"))
            state.sent += end + 1 - start
            self.answer(206, ZIPPED[start : end + 1])

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    settings = {"index-url": f"http://127.0.0.1:{server.server_port}/simple"}
    monkeypatch.setattr(onindex, "pip_settings", lambda: settings)
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


@pytest.mark.parametrize(
    ("lines", "rule", "detail"),
    [
        (
            "needs-linux",
            wheels.NEEDS_NO_WHEEL,
            "needs-linux -> linux-only: no wheel of linux-only>=1 for Windows on Python 3.10, 3.11",
        ),
        (
            "needs-far",  # its version before the release is not taken
            wheels.NEEDS_NO_WHEEL,
            "needs-far -> needs-linux -> linux-only: no wheel of linux-only>=1 for Windows on "
            "Python 3.10, 3.11",
        ),
        (
            "needs-late",
            wheels.NEEDS_NO_WHEEL,
            "needs-late -> late: no wheel of late for Windows on Python 3.12",
        ),
        (
            "needs-source",
            wheels.NEEDS_SOURCE,
            "needs-source -> source-only: the index has only sources of source-only",
        ),
        (
            "with-extra[fast]",
            wheels.NEEDS_NO_WHEEL,
            "with-extra -> linux-only: no wheel of linux-only for Windows on "
            "Python 3.10, 3.11, 3.12",
        ),
        ("with-extra", None, ""),
        ("needs-pure", None, ""),
        ("circular", None, ""),
        ("bounded", None, ""),
        (
            "bounded\nolder==2.0; sys_platform == 'linux'",  # says nothing of Windows
            None,
            "",
        ),
        (
            "zipped",
            wheels.NEEDS_NO_WHEEL,
            "zipped -> linux-only: no wheel of linux-only for Windows on Python 3.10, 3.11, 3.12",
        ),
    ],
)
@pytest.mark.usefixtures("serving")
def test_what_a_requirement_requires_is_followed(lines: str, rule: str | None, detail: str) -> None:
    told = [(one.rule, one.detail) for one in wheels.ask(context(lines))]
    assert told == ([(rule, detail)] if rule else [])


@pytest.mark.usefixtures("serving")
def test_what_the_files_ask_for_themselves_bounds_the_version_below() -> None:
    lines = "older>=2.0\nbounded"
    assert [one.excerpt for one in wheels.ask(context(lines))] == ["older>=2.0"]


@pytest.mark.usefixtures("serving")
def test_what_two_require_is_told_once_at_the_shortest_chain() -> None:
    (finding,) = wheels.ask(context("needs-far\nneeds-linux"))
    assert finding.excerpt == "needs-linux"


def test_a_wheel_is_not_fetched_for_its_metadata(serving: Serving, tmp_path: Path) -> None:
    first = found("zipped", cache=tmp_path)
    assert 0 < serving.sent < len(ZIPPED)
    asked = len(serving.asked)
    assert found("zipped", cache=tmp_path, offline=True) == first
    assert len(serving.asked) == asked


def test_offline_says_that_nothing_was_followed(serving: Serving, tmp_path: Path) -> None:
    found("pure-package", cache=tmp_path)
    (tmp_path / "index" / f"{INDEX['pure-package'][0]}.json").unlink()
    notes: list[str] = []
    assert found("pure-package", cache=tmp_path, offline=True, note=notes.append) == {}
    assert notes == [
        "offline: what 1 of 1 requirements require was not looked up on the package index"
    ]


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
