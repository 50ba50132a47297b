"""The package index, served by a real HTTP server of the test, with every way to fail."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from urllib3.util import Retry

from portkit.errors import IntegrityError, PortError, Unavailable
from portkit.model import Event
from portkit.upstream.index import Index, IndexFile, pip_settings

FAST = Retry(total=3, backoff_factor=0.001, status_forcelist=(429, 503), allowed_methods=("GET",))
DATA = bytes(range(256)) * 2000
NAME = "vllm-1.2.3.tar.gz"


@dataclass
class Served:
    """What the server does: per request of the archive one behaviour, then it serves."""

    url: str = ""
    behaviours: list[str] = field(default_factory=list)
    ranges: list[str | None] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    page_status: list[int] = field(default_factory=list)
    html: bool = False
    resumes: bool = True

    def publish(self, name: str, data: bytes = DATA, **more: Any) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self.files.append(
            {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": digest},
             "size": len(data), **more}
        )  # fmt: skip


def handler_of(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            if self.path.startswith("/files/"):
                self.archive()
            elif served.page_status:
                self.answer(served.page_status.pop(0), "text/plain", b"")
            elif self.path != "/simple/vllm/":
                self.answer(404, "text/plain", b"")
            elif served.html:
                links = (
                    f'<a href="{file["url"]}#sha256={file["hashes"]["sha256"]}">'
                    f"{file['filename']}</a>"
                    for file in served.files
                )
                self.answer(200, "text/html", "".join(links).encode())
            else:
                page = {"meta": {"api-version": "1.1"}, "name": "vllm", "files": served.files}
                kind = "application/vnd.pypi.simple.v1+json"
                self.answer(200, kind, json.dumps(page).encode())

        def archive(self) -> None:
            asked = self.headers["Range"]
            served.ranges.append(asked)
            behaviour = served.behaviours.pop(0) if served.behaviours else "serve"
            if behaviour.isdigit():
                self.answer(int(behaviour), "text/plain", b"")
                return
            data = b"!" + DATA[1:] if behaviour == "wrong" else DATA
            start = 0
            if asked and served.resumes:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    self.answer(416, "text/plain", b"")
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            body = data[start:]
            if behaviour == "break":
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

    return Handler


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """The client may hang up on us: that is what some tests are about."""


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()
    server = QuietServer(("127.0.0.1", 0), handler_of(state))
    state.url = f"http://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def index(served: Served) -> Iterator[Index]:
    with Index("vllm", endpoint=served.url, retries=FAST) as index:
        yield index


def only(index: Index) -> IndexFile:
    (sdist,) = index.sdists.values()
    return sdist


def test_source_archives_are_found_by_version(served: Served, index: Index) -> None:
    served.publish("vllm-1.2.3.tar.gz")
    served.publish("vllm-1.10.0.tar.gz", yanked="broken")
    served.publish("vllm-1.5.0-cp310-abi3-manylinux1_x86_64.whl")
    served.publish("vllm-extra-1.2.3.tar.gz")
    served.publish("vllm-1.4.0.zip")
    served.publish("vllm-..%2f..%2fevil.tar.gz")
    assert set(index.sdists) == {Version("1.2.3"), Version("1.10.0")}
    assert index.sdists[Version("1.10.0")].withdrawn
    sdist = index.sdists[Version("1.2.3")]
    assert (sdist.name, sdist.size, sdist.withdrawn) == (NAME, len(DATA), False)
    assert sdist.sha256 == hashlib.sha256(DATA).hexdigest()
    assert Version("1.5.0") in index.versions


def test_an_index_of_plain_html_serves_too(served: Served, index: Index, tmp_path: Path) -> None:
    served.html = True
    served.publish(NAME)
    assert only(index).size is None
    assert index.download(only(index), tmp_path).read_bytes() == DATA


def test_download_is_whole_and_shows_progress(served: Served, index: Index, tmp_path: Path) -> None:
    served.publish(NAME)
    seen: list[Event] = []
    path = index.download(only(index), tmp_path / "new folder", seen.append)
    assert path == tmp_path / "new folder" / NAME
    assert path.read_bytes() == DATA
    assert [file.name for file in path.parent.iterdir()] == [NAME]
    assert {(event.stage, event.total, event.unit) for event in seen} == {
        (f"downloading {NAME}", len(DATA), "bytes")
    }
    assert [event.done for event in seen] == sorted(event.done for event in seen)
    assert seen[-1].done == len(DATA)


def test_a_broken_transfer_resumes_where_it_stopped(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    served.behaviours = ["break", "break"]
    assert index.download(only(index), tmp_path).read_bytes() == DATA
    half, three_quarters = len(DATA) // 2, len(DATA) * 3 // 4
    assert served.ranges == [None, f"bytes={half}-", f"bytes={three_quarters}-"]


def test_a_server_that_cannot_resume_starts_over(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    served.behaviours, served.resumes = ["break"], False
    assert index.download(only(index), tmp_path).read_bytes() == DATA
    assert len(served.ranges) == 2


def test_a_later_process_resumes_what_an_earlier_one_left(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    served.behaviours = ["break"] * 10
    with pytest.raises(Unavailable, match=f"package index's {NAME} did not serve: ") as caught:
        index.download(only(index), tmp_path)
    assert "PIP_INDEX_URL" in caught.value.hint
    assert not (tmp_path / NAME).exists()
    served.behaviours, served.ranges = [], []
    assert index.download(only(index), tmp_path).read_bytes() == DATA
    (asked,) = served.ranges
    assert asked is not None and int(asked.removeprefix("bytes=").removesuffix("-")) > len(DATA) / 2


def test_a_finished_download_is_not_fetched_again(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    index.download(only(index), tmp_path)
    index.download(only(index), tmp_path)
    assert served.ranges == [None]


def test_a_partial_file_of_something_else_is_replaced(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    sdist = only(index)
    (tmp_path / f"{NAME}.{sdist.sha256[:16]}.part").write_bytes(bytes(len(DATA) + 7))
    assert index.download(sdist, tmp_path).read_bytes() == DATA


def test_busy_servers_are_asked_again(served: Served, index: Index, tmp_path: Path) -> None:
    served.publish(NAME)
    served.page_status = [503, 429]
    served.behaviours = ["503", "503"]
    assert index.download(only(index), tmp_path).read_bytes() == DATA
    assert served.ranges == [None] * 3


def test_a_wrong_digest_is_refused_and_nothing_kept(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME)
    served.behaviours = ["wrong"]
    with pytest.raises(IntegrityError, match="the package index publishes"):
        index.download(only(index), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_published_are_refused(
    served: Served, index: Index, tmp_path: Path
) -> None:
    served.publish(NAME, DATA[:1000])
    with pytest.raises(IntegrityError):
        index.download(only(index), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_index_without_digests_is_refused(served: Served, index: Index, tmp_path: Path) -> None:
    served.publish(NAME, hashes={})
    with pytest.raises(IntegrityError, match="publishes no sha256"):
        index.download(only(index), tmp_path)
    assert served.ranges == []


@pytest.mark.parametrize(("status", "said"), [(503, "503"), (403, "403"), (404, "no project vllm")])
def test_an_index_that_does_not_serve_is_one_sentence(
    served: Served, index: Index, status: int, said: str
) -> None:
    served.page_status = [status] * 10
    with pytest.raises(Unavailable, match=r"^the package index at 127\.0\.0\.1 ") as caught:
        _ = index.sdists
    assert said in caught.value.message
    assert "\n" not in caught.value.message and " at 0x" not in caught.value.message


def test_no_index_at_all_is_one_sentence_without_the_password() -> None:
    with (
        Index("vllm", endpoint="http://me:secret@127.0.0.1:9/simple", retries=FAST) as index,
        pytest.raises(PortError, match=r"did not serve: .*refused") as caught,
    ):
        _ = index.versions
    assert "secret" not in caught.value.message


def test_the_mirror_of_the_environment_and_of_pips_files_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, served: Served
) -> None:
    for name in ("PIP_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.ini"
    config.write_text("[global]\nindex-url = https://mirror.invalid/simple\ncert = /a b/ca.pem\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    settings = pip_settings()
    assert settings["index-url"] == "https://mirror.invalid/simple"
    assert settings["cert"] == "/a b/ca.pem"
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("PIP_CERT", "")
    served.publish(NAME)
    with Index.configured("vllm") as index:
        assert only(index).name == NAME
