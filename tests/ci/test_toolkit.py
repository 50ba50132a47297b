"""A CUDA toolkit from the vendor's archives: checked, merged, whole or not there."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from portkit.ci import plan as planfile
from portkit.ci import toolkit
from portkit.ci.plan import Plan
from portkit.errors import BadInput, IntegrityError, Unavailable

ROOT = Path(__file__).resolve().parents[2]
NVCC = "bin/nvcc.exe" if sys.platform == "win32" else "bin/nvcc"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[tuple[Path, Plan]]:
    """A server like the vendor's, and a plan that asks it for two components of CUDA 12.6."""
    folder = tmp_path / "vendor"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    plan = planfile.read(ROOT)
    redist = plan.redist.model_copy(
        update={
            "url": f"http://127.0.0.1:{server.server_port}/",
            "components": ["cuda_nvcc", "cuda_cudart"],
        }
    )
    publish(folder, {"cuda_nvcc": {NVCC: b"nvcc"}, "cuda_cudart": {"include/cuda.h": b"cuda"}})
    yield folder, plan.model_copy(update={"redist": redist})
    server.shutdown()
    server.server_close()


def publish(folder: Path, components: dict[str, dict[str, bytes]], suffix: str = ".tar.xz") -> None:
    """Write archives and their manifest as the vendor does: one top folder in each."""
    manifest: dict[str, Any] = {"release_date": "2024-11-21"}
    for name, files in components.items():
        path = f"{name}/any/{name}-12.6-archive{suffix}"
        data = pack(f"{name}-12.6-archive", files, suffix)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        entry = {"relative_path": path, "sha256": hashlib.sha256(data).hexdigest()}
        manifest[name] = {"linux-x86_64": entry, "windows-x86_64": entry}
    (folder / "redistrib_12.6.3.json").write_text(json.dumps(manifest))


def pack(top: str, files: dict[str, bytes], suffix: str) -> bytes:
    made = io.BytesIO()
    if suffix == ".zip":
        with zipfile.ZipFile(made, "w") as zipped:
            for name, data in files.items():
                zipped.writestr(f"{top}/{name}", data)
    else:
        with tarfile.open(fileobj=made, mode="w:xz") as tarred:
            for name, data in files.items():
                member = tarfile.TarInfo(f"{top}/{name}")
                member.size = len(data)
                tarred.addfile(member, io.BytesIO(data))
    return made.getvalue()


@pytest.mark.parametrize("suffix", [".tar.xz", ".zip"])
def test_components_are_merged_into_one_toolkit(
    vendor: tuple[Path, Plan], tmp_path: Path, suffix: str
) -> None:
    folder, plan = vendor
    publish(
        folder,
        {"cuda_nvcc": {NVCC: b"nvcc"}, "cuda_cudart": {"include/cuda.h": b"cuda"}},
        suffix,
    )
    home = toolkit.install(plan, "12.6", tmp_path / "my cuda")
    assert home == tmp_path / "my cuda"
    assert (home / NVCC).read_bytes() == b"nvcc"
    assert (home / "include/cuda.h").read_bytes() == b"cuda"


def _changed_archive(folder: Path) -> None:
    next(folder.glob("cuda_cudart/any/*")).write_bytes(b"not what was published")


def _lacks_a_component(folder: Path) -> None:
    publish(folder, {"cuda_nvcc": {NVCC: b"nvcc"}})


def _has_no_nvcc(folder: Path) -> None:
    publish(folder, {"cuda_nvcc": {"bin/ptxas": b""}, "cuda_cudart": {"include/cuda.h": b""}})


def _path_climbs_out(folder: Path) -> None:
    file = folder / "redistrib_12.6.3.json"
    file.write_text(file.read_text().replace("cuda_nvcc/any/", "../any/"))


def _is_a_login_page(folder: Path) -> None:
    (folder / "redistrib_12.6.3.json").write_text("<html>sign in</html>")


@pytest.mark.parametrize(
    ("breaks", "error", "message"),
    [
        (_changed_archive, IntegrityError, "does not have the SHA-256 that the manifest publishes"),
        (_lacks_a_component, Unavailable, "the manifest has no cuda_cudart for"),
        (_has_no_nvcc, Unavailable, "what was installed has no bin/nvcc"),
        (_path_climbs_out, IntegrityError, "the manifest's cuda_nvcc"),
        (_is_a_login_page, Unavailable, "gave no valid answer"),
    ],
)
def test_nothing_is_left_of_a_toolkit_that_is_not_whole(
    vendor: tuple[Path, Plan],
    tmp_path: Path,
    breaks: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    folder, plan = vendor
    breaks(folder)
    with pytest.raises(error, match=message):
        toolkit.install(plan, "12.6", tmp_path / "cuda")
    assert [path.name for path in tmp_path.iterdir()] == ["vendor"]


def test_a_folder_in_use_and_an_unknown_version_are_refused(
    vendor: tuple[Path, Plan], tmp_path: Path
) -> None:
    _, plan = vendor
    with pytest.raises(BadInput, match="is not empty"):
        toolkit.install(plan, "12.6", tmp_path)
    with pytest.raises(BadInput, match=r"no toolkit 11\.8"):
        toolkit.install(plan, "11.8", tmp_path / "cuda")
