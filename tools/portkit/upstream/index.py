"""The package index: which versions have which files, and fetching one, checked.

The index is the one the user's pip is configured for, else pypi-simple's own default.  pypi-simple
reads the index; the download is ours because it resumes, which pypi-simple's does not.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import requests
import urllib3.exceptions
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoMetadataError,
    NoSuchProjectError,
    ProjectPage,
    PyPISimple,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)
from requests.adapters import HTTPAdapter
from urllib3.util import Retry, parse_url

from portkit.errors import IntegrityError, Unavailable
from portkit.model import Event, Events, silent
from portkit.upstream.archive import describe

RETRIES = Retry(
    total=6,
    backoff_factor=0.5,
    status_forcelist=(429, 500, 502, 503, 504),
    allowed_methods=("GET",),
)
MAX_ARCHIVE = 1 << 30  # bytes

_TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds without a byte
_CHUNK = 1 << 16
_OBJECT = re.compile(r"^<?\w+(\.\w+)*\(.*?\)[^:]*: ")
_WHEEL_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*\.whl")
_HINT = "check the network, or the index that pip is configured for (PIP_INDEX_URL)"


@dataclass(frozen=True)
class IndexFile:
    """A source archive or wheel on the index; `size` in bytes is None where it does not say."""

    name: str
    version: Version
    url: str
    size: int | None
    sha256: str
    withdrawn: bool


@dataclass(frozen=True)
class Release:
    """A file of a project on the index; `requires_python` is a specifier, "" where none is said."""

    filename: str
    requires_python: str
    withdrawn: bool


class UnknownProject(Unavailable):
    """The index has no project of this name."""


def pip_settings() -> dict[str, str]:
    """pip's effective `global` settings (`index-url`, `cert`, …), environment over files."""
    command = [sys.executable, "-m", "pip", "config", "list", "--disable-pip-version-check"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        listing = ""
    else:
        listing = done.stdout.decode("utf-8", "replace")
    found: dict[str, str] = {}
    for section in ("global", ":env:"):
        for line in listing.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key[len(section) + 1 :]] = str(ast.literal_eval(value))
    if "PIP_INDEX_URL" in os.environ:  # also where pip itself is not installed
        found["index-url"] = os.environ["PIP_INDEX_URL"]
    return found


class Index:
    """The files of one project on a package index; a context manager.

    Every method raises `Unavailable` when the index does not serve.
    """

    def __init__(
        self,
        project: str,
        *,
        endpoint: str = PYPI_SIMPLE_ENDPOINT,
        cert: str = "",
        retries: Retry = RETRIES,
    ) -> None:
        session = requests.Session()
        session.verify = cert or True
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        self._client = PyPISimple(endpoint, session=session)
        self._project = project
        self._retries = retries

    @classmethod
    def configured(cls, project: str) -> Index:
        """The index that the user's pip uses."""
        settings = pip_settings()
        endpoint = settings.get("index-url") or PYPI_SIMPLE_ENDPOINT
        return cls(project, endpoint=endpoint, cert=settings.get("cert", ""))

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.s.close()

    @cached_property
    def _page(self) -> ProjectPage:
        with serving(f"the package index at {_host(self._client.endpoint)}"):
            return self._client.get_project_page(self._project, timeout=_TIMEOUT)

    @cached_property
    def versions(self) -> frozenset[Version]:
        """Every version the index has files of, with or without a source archive."""
        return frozenset(filter(None, (_version(package) for package in self._page.packages)))

    @cached_property
    def sdists(self) -> dict[Version, IndexFile]:
        """The source archives by version.

        Only the canonical name `<project>-<version>.tar.gz` counts, so that a name from the index
        is safe as a file name.
        """
        found: dict[Version, IndexFile] = {}
        for package in self._page.packages:
            version = _version(package)
            if version is not None and package.filename == f"{self._project}-{version}.tar.gz":
                found[version] = _file(package, version)
        return found

    def wheels(self, version: Version) -> tuple[IndexFile, ...]:
        """The wheels of one version, by name."""
        found = (
            _file(package, version)
            for package in self._page.packages
            if _version(package) == version and wheel_tags(package.filename)
        )
        return tuple(sorted(found, key=lambda wheel: wheel.name))

    def metadata(self, file: IndexFile) -> bytes | None:
        """The METADATA of a wheel, where the index publishes it beside the wheel."""
        package = next(one for one in self._page.packages if one.filename == file.name)
        if package.has_metadata is False:
            return None
        with serving(f"the package index's {file.name}"):
            try:
                known = bool(package.metadata_digests)  # not every index publishes them
                return self._client.get_package_metadata_bytes(
                    package, verify=known, timeout=_TIMEOUT
                )
            except NoMetadataError:
                return None

    def read_range(self, file: IndexFile, start: int, end: int) -> bytes | None:
        """Bytes `start` to `end` (exclusive) of `file`; None where the index serves no ranges."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{end - 1}"}
        with (
            serving(f"the package index's {file.name}"),
            self._client.s.get(file.url, headers=headers, stream=True, timeout=_TIMEOUT) as answer,
        ):
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                return None
            data = answer.content
        if len(data) != end - start:
            raise Unavailable(
                f"the package index's {file.name} broke off: {len(data)} of {end - start} bytes",
                hint=_HINT,
            )
        return data

    @cached_property
    def releases(self) -> tuple[Release, ...]:
        """Every file of the project; raises `UnknownProject` where the index has none."""
        return tuple(
            Release(package.filename, package.requires_python or "", package.is_yanked)
            for package in self._page.packages
        )

    def download(self, sdist: IndexFile, folder: Path, events: Events = silent) -> Path:
        """Fetch `sdist` into `folder` and return its path; the file is there whole or not at all.

        A broken transfer goes on where it stopped, also one of an earlier process.  Raises
        `IntegrityError` when size or sha256 are not the published ones.
        """
        if not sdist.sha256:
            raise IntegrityError(f"the package index publishes no sha256 of {sdist.name}")
        target = folder / sdist.name
        if target.exists() and describe(target).sha256 == sdist.sha256:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{sdist.name}.{sdist.sha256[:16]}.part"
        with serving(f"the package index's {sdist.name}"):
            self._receive_all(sdist, part, events)
        found = describe(part)
        if found.sha256 != sdist.sha256 or sdist.size not in (None, found.size):
            part.unlink()
            raise IntegrityError(
                f"{sdist.name} arrived with {found.size:,} bytes and sha256 {found.sha256}, "
                f"the package index publishes {sdist.size or '?'} bytes and {sdist.sha256}",
                hint="a proxy may have changed it; nothing was kept",
            )
        part.replace(target)
        return target

    def _receive_all(self, sdist: IndexFile, part: Path, events: Events) -> None:
        """Fill `part`, resuming after each break as long as the retry policy allows."""
        retries = self._retries
        while True:
            try:
                return self._receive(sdist, part, events)
            except urllib3.exceptions.HTTPError as broken:  # while the body arrived
                retries = retries.increment("GET", sdist.url, error=broken)
                retries.sleep()

    def _receive(self, sdist: IndexFile, part: Path, events: Events) -> None:
        """One request for what `part` still lacks."""
        held = part.stat().st_size if part.exists() else 0
        if held and held == sdist.size:
            return
        headers = {"Accept-Encoding": "identity"}
        if held:
            headers["Range"] = f"bytes={held}-"
        with self._client.s.get(
            sdist.url, headers=headers, stream=True, timeout=_TIMEOUT
        ) as response:
            if held and response.status_code == requests.codes.requested_range_not_satisfiable:
                part.unlink()  # not a beginning of this file: start over
                raise urllib3.exceptions.ProtocolError("cannot resume")
            response.raise_for_status()
            resumed = response.headers.get("Content-Range", "").startswith(f"bytes {held}-")
            if response.status_code != requests.codes.partial_content or not resumed:
                held = 0
            limit = sdist.size or MAX_ARCHIVE
            with part.open("ab" if held else "wb") as file:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    file.write(chunk)
                    held += len(chunk)
                    events(Event(f"downloading {sdist.name}", held, sdist.size, "bytes"))
                    if held > limit:
                        break  # the check of size and sha256 refuses it


def _file(package: DistributionPackage, version: Version) -> IndexFile:
    digest = (package.digests or {}).get("sha256", "").lower()
    return IndexFile(
        package.filename, version, package.url, package.size, digest, package.is_yanked
    )


def wheel_tags(name: str) -> frozenset[Tag]:
    """The tags of a wheel; none for what is no wheel's name or not safe as a file name."""
    if not _WHEEL_NAME.fullmatch(name):
        return frozenset()
    try:
        return parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return frozenset()


def _version(package: DistributionPackage) -> Version | None:
    try:
        return Version(package.version or "")
    except InvalidVersion:
        return None


def _host(url: str) -> str:
    """The host of `url`: a configured index may carry a password in its URL."""
    return parse_url(url).host or url


@contextmanager
def serving(what: str) -> Iterator[None]:
    """Turn what the libraries raise into one sentence about `what`."""
    try:
        yield
    except NoSuchProjectError as error:
        raise UnknownProject(f"{what} has no project {error.project}", hint=_HINT) from error
    except requests.HTTPError as error:
        answer = error.response
        status = f"{answer.status_code} {answer.reason}" if answer is not None else "an error"
        raise Unavailable(f"{what} answered {status}", hint=_HINT) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Unavailable(f"{what} did not serve: {_reason(error)}", hint=_HINT) from error
    except (UnsupportedContentTypeError, UnsupportedRepoVersionError, ValueError) as error:
        raise Unavailable(f"{what} gave no valid answer: {error}", hint=_HINT) from error


def _reason(error: BaseException) -> str:
    """The innermost reason of a chain of library errors, without the connection's repr."""
    inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else error
    inner = getattr(inner, "reason", None) or inner
    return _OBJECT.sub("", str(inner)) or type(inner).__name__
