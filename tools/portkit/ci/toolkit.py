"""A CUDA toolkit for one CI cell: from the vendor's archives or from wheels, never an installer.

NVIDIA publishes every component of a release as an archive of its own, and per release a manifest
`redistrib_<release>.json` with the paths and the SHA-256 of all of them:
https://docs.nvidia.com/cuda/cuda-installation-guide-linux/#tarball-and-zip-archive-deliverables
The wheels of `cuda-toolkit` hold the same files from CUDA 13 on; those of CUDA 12 lack nvcc.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from portkit.ci.plan import Plan, Redist, Toolkit, Wheels
from portkit.errors import BadInput, IntegrityError, Unavailable
from portkit.model import Event, Events, silent
from portkit.patches.diffparse import unsafe_path
from portkit.upstream.index import serving

_TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds without a byte
_PLATFORMS = {"linux": "linux-x86_64", "win32": "windows-x86_64"}


@dataclass(frozen=True)
class Archive:
    """One component's archive, as the manifest gives it."""

    component: str
    path: str
    sha256: str


def install(plan: Plan, version: str, folder: Path, events: Events = silent) -> Path:
    """Install the toolkit `version` (`12.6`) of the plan into `folder`; gives its CUDA_HOME.

    `folder` must be new or empty, and is left as it was when something fails.
    """
    toolkit = plan.toolkits.get(version)
    if toolkit is None:
        known = ", ".join(plan.toolkits)
        raise BadInput(f"no toolkit {version} in ci/matrix.toml", hint=f"toolkits: {known}")
    if folder.exists() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not empty", hint="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        made = Path(work) / "toolkit"
        if toolkit.source == "redist":
            _from_archives(plan.redist, toolkit, made, Path(work) / "archives", events)
        else:
            _from_wheels(plan.wheels, toolkit, made, events)
        home = _home(made)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return folder / home


def _home(made: Path) -> PurePosixPath:
    """The folder below `made` that holds `bin/nvcc`."""
    name = "nvcc.exe" if sys.platform == "win32" else "nvcc"
    found = sorted(made.rglob(f"bin/{name}"))
    if not found:
        raise Unavailable(f"what was installed has no bin/{name}", hint="see ci/matrix.toml")
    return PurePosixPath(found[0].parent.parent.relative_to(made).as_posix())


# the vendor's archives


def archives(manifest: dict[str, Any], wanted: Redist, platform: str) -> list[Archive]:
    """The archives of the wanted components; raises `Unavailable` where one is not there."""
    found: list[Archive] = []
    for component in wanted.components:
        try:
            entry = manifest[component][platform]
            one = Archive(component, str(entry["relative_path"]), str(entry["sha256"]).lower())
        except (KeyError, TypeError):
            raise Unavailable(f"the manifest has no {component} for {platform}") from None
        if reason := unsafe_path(one.path):
            raise IntegrityError(f"the manifest's {component}: {one.path!r} {reason}")
        found.append(one)
    return found


def _from_archives(
    redist: Redist, toolkit: Toolkit, folder: Path, downloads: Path, events: Events
) -> None:
    platform = _PLATFORMS.get(sys.platform)
    if platform is None:
        raise BadInput(f"CUDA is not published for {sys.platform}")
    manifest = _manifest(f"{redist.url}redistrib_{toolkit.release}.json")
    wanted = archives(manifest, redist, platform)
    for number, archive in enumerate(wanted):
        events(Event(f"fetching {archive.component}", number, len(wanted), "archives"))
        unpack(_fetch(redist.url, archive, downloads), folder)


def _manifest(url: str) -> dict[str, Any]:
    with serving(f"the manifest {url}"):
        answer = requests.get(url, timeout=_TIMEOUT)
        answer.raise_for_status()
        found = json.loads(answer.content)
        if not isinstance(found, dict):
            raise ValueError("not a table")
    return found


def _fetch(base: str, archive: Archive, folder: Path) -> Path:
    url = base + archive.path
    pooch.get_logger().setLevel("WARNING")
    with serving(url):
        try:
            file = pooch.retrieve(
                url,
                known_hash=f"sha256:{archive.sha256}",
                fname=PurePosixPath(archive.path).name,
                path=folder,
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT),
            )
        except ValueError as error:  # pooch's word for a wrong hash
            raise IntegrityError(
                f"{url} does not have the SHA-256 that the manifest publishes",
                hint="a proxy may have changed it; nothing was kept",
            ) from error
    return Path(file)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`, less the one folder that everything in it lies in."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as work:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                zipped.extractall(work)
        else:
            with tarfile.open(archive) as tarred:
                tarred.extractall(work, filter="data")
        tops = list(Path(work).iterdir())
        if len(tops) != 1 or not tops[0].is_dir():
            raise IntegrityError(f"{archive.name} does not hold one folder")
        shutil.copytree(tops[0], folder, symlinks=True, dirs_exist_ok=True)


# wheels


def _from_wheels(wheels: Wheels, toolkit: Toolkit, folder: Path, events: Events) -> None:
    events(Event(f"installing {wheels.package} {toolkit.release}", 0, None))
    package = f"{wheels.package}[{','.join(wheels.extras)}]=={toolkit.release}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "--target", str(folder), package],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [""]
        raise Unavailable(f"pip could not install {package}: {said[-1]}")
