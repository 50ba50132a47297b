"""Headers out of a wheel: by ranges where the index serves them, from the whole wheel elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import random
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.version import Version

from portkit.cuda import torchheaders, wheelheaders
from portkit.cuda.wheelheaders import Wanted, obtain
from portkit.errors import BadInput, IntegrityError, Unavailable
from portkit.upstream.cache import Cache
from portkit.upstream.index import Index

NAME = "torch-2.9.1-cp312-cp312-manylinux_2_28_x86_64.whl"
HEADERS = {f"torch/include/c10/h{number}.h": f"int {number};\n".encode() for number in range(40)}


def wheel(members: dict[str, bytes]) -> bytes:
    """A wheel whose library, which nobody asks for, is most of it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("torch/lib/libtorch_cuda.so", random.Random(1).randbytes(400_000))
        for name, data in members.items():
            archive.writestr(name, data)
        archive.writestr("torch-2.9.1.dist-info/METADATA", b"")
    return out.getvalue()


class Served:
    """A package index with one wheel of torch; `sent` counts the bytes of it that it gave away."""

    def __init__(self) -> None:
        self.data = wheel(HEADERS)
        self.names = [NAME]
        self.ranges = True
        self.sent = 0
        self.url = ""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
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
                body, asked = state.data, self.headers["Range"]
                if asked and state.ranges:
                    start, end = map(int, asked.removeprefix("bytes=").split("-"))
                    body = body[start : end + 1]
                state.sent += len(body)
                partial = asked and state.ranges
                self.answer(206 if partial else 200, "application/octet-stream", body)
                return
            digest = hashlib.sha256(state.data).hexdigest()
            files = [
                {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": digest},
                 "size": len(state.data)}
                for name in state.names
            ]  # fmt: skip
            page = {"meta": {"api-version": "1.1"}, "name": "torch", "files": files}
            kind = "application/vnd.pypi.simple.v1+json"
            self.answer(200, kind, json.dumps(page).encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/simple"
    monkeypatch.setattr(
        Index, "configured", classmethod(lambda cls, project: cls(project, endpoint=state.url))
    )
    monkeypatch.setattr(wheelheaders, "_CHUNK", 5000)
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def unpacked(root: Path) -> dict[str, bytes]:
    folder = root / "torch"
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}


def test_only_the_headers_travel_and_only_once(served: Served, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "a cache")
    headers = torchheaders.torch_headers("2.9.1", cache=cache)
    assert unpacked(headers.root) == HEADERS
    assert 0 < served.sent < 40_000 < len(served.data)
    before = served.sent
    assert torchheaders.torch_headers("2.9.1", cache=cache) == headers
    assert served.sent == before
    assert torchheaders.torch_includes(headers)[0].is_dir()


def test_an_index_without_ranges_gives_the_same_headers(served: Served, tmp_path: Path) -> None:
    by_ranges = torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path / "one"))
    served.ranges = False
    whole = torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path / "two"))
    assert unpacked(whole.root) == HEADERS
    assert whole.digest == by_ranges.digest
    assert not list((tmp_path / "two").rglob("*.whl"))


def test_the_digest_is_of_names_and_contents(served: Served, tmp_path: Path) -> None:
    first = torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path / "one"))
    changed = {**HEADERS, "torch/include/c10/h1.h": b"long 1;\n"}
    served.data = wheel(changed)
    second = torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path / "two"))
    assert second.digest != first.digest


def test_a_damaged_wheel_leaves_nothing(served: Served, tmp_path: Path) -> None:
    at = served.data.index(b"torch/include/c10/h7.h") + len("torch/include/c10/h7.h")
    served.data = served.data[:at] + b"\0\0\0" + served.data[at + 3 :]
    with pytest.raises(IntegrityError, match=re.escape(NAME)):
        torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path))
    assert not list((tmp_path / "headers").glob("torch*/"))


def test_only_linux_wheels_have_the_cuda_build(served: Served, tmp_path: Path) -> None:
    tags = ["cp312-cp312-win_amd64", "cp312-none-macosx_11_0_arm64"]
    served.names = [f"torch-2.9.1-{tag}.whl" for tag in tags]
    with pytest.raises(Unavailable, match="no suitable wheel of torch"):
        torchheaders.torch_headers("2.9.1", cache=Cache(tmp_path))


def test_members_outside_of_the_wheel_are_refused(served: Served, tmp_path: Path) -> None:
    served.data = wheel({"torch/include/../../../evil.h": b""})
    wanted = Wanted("torch", "2.9.1", ("torch/include/",), lambda wheel: True)
    with pytest.raises(IntegrityError, match="evil"):
        obtain(wanted, cache=Cache(tmp_path))


def test_wheels_with_unsafe_names_are_no_wheels(served: Served) -> None:
    served.names = ["../torch-2.9.1-py3-none-any.whl", "torch-2.9.1-py3-none-any.whl"]
    with Index.configured("torch") as index:
        assert [one.name for one in index.wheels(Version("2.9.1"))] == served.names[1:]


def test_the_pins_of_upstream_are_read() -> None:
    assert torchheaders.pinned_torch(b"-r common.txt\ntorch==2.9.1\ntorchaudio==2.9.1\n") == "2.9.1"
    cmake = b'  set(CUTLASS_REVISION "v4.2.1")\n'
    assert torchheaders.pinned_cutlass(cmake) == "4.2.1"
    with pytest.raises(BadInput, match="torch"):
        torchheaders.pinned_torch(b"torchaudio==2.9.1\n")
