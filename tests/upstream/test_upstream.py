"""Getting a tag from a clone, an archive, a folder, the cache, an index and a git host."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from portkit.errors import BadInput, Busy, IntegrityError, Unavailable
from portkit.model import Archive, Event, Events, Pin, silent
from portkit.upstream import source as upstream_module
from portkit.upstream.archive import describe
from portkit.upstream.git import Store, git
from portkit.upstream.index import IndexFile
from portkit.upstream.source import (
    CACHE_VARIABLE,
    Cache,
    Source,
    normalise,
    obtain,
    released_tags,
    tags_between,
)

COMMIT = "abc123def"
FILES = {"setup.py": b"setup()\r\n", "vllm/a.py": b"\xff\n", "csrc/math.hpp": b"no newline"}


def packaging_files(version: str) -> dict[str, bytes]:
    return {
        "PKG-INFO": f"Metadata-Version: 2.4\nName: vllm\nVersion: {version}\n".encode(),
        "setup.cfg": b"[egg_info]\ntag_build =\ntag_date = 0\n",
        "vllm/_version.py": (
            f"__version__ = version = '{version}'\n__commit_id__ = commit_id = 'g{COMMIT}'\n"
        ).encode(),
    }


def write_sdist(folder: Path, version: str, files: dict[str, bytes] = FILES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"vllm-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, data in {**files, **packaging_files(version)}.items():
            info = tarfile.TarInfo(f"vllm-{version}/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def write_clone(folder: Path, *tags: str, files: dict[str, bytes] = FILES) -> Path:
    """A repository with one commit per tag; the last one is an annotated tag."""
    git("init", "-q", str(folder))
    # A clone made on Windows: nothing of this may reach the store.
    git("-C", str(folder), "config", "core.autocrlf", "true")
    names = [*files, "tag.txt"]
    with Store(folder / ".git") as store:
        parents: list[str] = []
        for number, tag in enumerate(tags):
            oids = store.write_blobs([*files.values(), f"{tag}\n".encode()])
            lines = [f"100644 {oid} 0\t{path}" for oid, path in zip(oids, names, strict=True)]
            env = {"GIT_INDEX_FILE": str(folder / f"index{number}")}
            store.git("update-index", "--index-info", stdin="\n".join(lines).encode(), env=env)
            tree = store.git("write-tree", env=env).decode().strip()
            commit = store.commit(tree, parents, f"commit of {tag}")
            parents = [commit]
            annotated = ("-a", "-m", "released") if tag == tags[-1] else ()
            store.git("tag", *annotated, tag, commit)
    return folder


def contents(cache: Cache, source: Source) -> dict[str, bytes]:
    return {path: cache.store.read(e.oid) for path, e in cache.store.files(source.tree).items()}


class FakeIndex:
    """Stands where the package index would be; `archives` is what it publishes."""

    archives: dict[str, Path]
    others: tuple[str, ...] = ()
    asked = 0
    error: Exception | None = None

    def __init__(self, *archives: Path) -> None:
        self.archives = {path.name[5:-7]: path for path in archives}

    def configured(self, project: str) -> FakeIndex:
        assert project == "vllm"
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self

    def __enter__(self) -> FakeIndex:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def sdists(self) -> dict[Version, IndexFile]:
        return {
            Version(version): IndexFile(
                path.name,
                Version(version),
                "",
                path.stat().st_size,
                describe(path).sha256,
                withdrawn=version.endswith(".9"),
            )
            for version, path in self.archives.items()
        }

    @property
    def versions(self) -> set[Version]:
        return {Version(version) for version in (*self.archives, *self.others)}

    def download(self, sdist: IndexFile, folder: Path, events: Events = silent) -> Path:
        events(Event("downloading"))
        folder.mkdir(exist_ok=True)
        target = folder / sdist.name
        target.write_bytes(self.archives[str(sdist.version)].read_bytes())
        return target


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache(tmp_path / "the cache")
    yield cache
    cache.store.close()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    folder = tmp_path / "published"
    published = FakeIndex(*(write_sdist(folder, v) for v in ("1.0.0", "1.2.0", "1.2.1", "1.1.9")))
    published.others = ("1.1.0",)
    monkeypatch.setattr(upstream_module, "Index", published)
    return published


def pin_of(tag: str, repository: str = "", **more: object) -> Pin:
    return replace(Pin(repository, tag, "", None, "", ""), **more)  # type: ignore[arg-type]


# tags


@pytest.mark.parametrize(
    ("given_tag", "tag"),
    [
        ("v0.17.1", "v0.17.1"),
        ("0.17.1", "v0.17.1"),
        ("V0.17.1", "v0.17.1"),
        ("0.17", "v0.17.0"),
        ("0.9.0.1", "v0.9.0.1"),
        ("v0.8.5.post1", "v0.8.5.post1"),
        ("0.17.0-rc1", "v0.17.0rc1"),
        ("0.17rc1", "v0.17.0rc1"),
        (" v0.17.1\n", "v0.17.1"),
    ],
)
def test_tags_are_normalised(given_tag: str, tag: str) -> None:
    assert normalise(given_tag) == tag


@pytest.mark.parametrize(
    "tag", ["main", "", "v", "HEAD", "d7de043d5", "v0.17.1+cu126", "1!0.17.1", "--to", "v0.17.*"]
)
def test_what_is_no_release_tag_gets_one_sentence(tag: str, cache: Cache) -> None:
    with pytest.raises(BadInput, match="is not the tag of an upstream release") as caught:
        obtain(tag, cache=cache)
    assert "v0.17.1" in caught.value.hint
    assert not cache.path.exists()


@given(st.text(max_size=20))
def test_any_text_is_a_tag_or_bad_input(text: str) -> None:
    try:
        tag = normalise(text)
    except BadInput:
        return
    assert normalise(tag) == tag and tag.startswith("v")


def test_steps_go_through_every_release_between() -> None:
    released = ["v1.10.0", "v1.0.0", "v1.2.1", "v1.2.0", "v2.0.0"]
    assert tags_between("1.0.0", "v1.10.0", released) == ["v1.2.0", "v1.2.1", "v1.10.0"]
    assert tags_between("v1.0.0", "v1.5.0rc1", released) == ["v1.2.0", "v1.2.1", "v1.5.0rc1"]
    assert tags_between("v1.0.0", "v1.0.0", released) == []
    with pytest.raises(BadInput, match=r"v1\.0\.0 is older than v1\.2\.0"):
        tags_between("v1.2.0", "v1.0.0", released)


def test_released_tags_leave_out_pre_releases_and_withdrawn_ones(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    index.archives["1.3.0rc1"] = write_sdist(tmp_path, "1.3.0rc1")
    assert released_tags() == ["v1.0.0", "v1.2.0", "v1.2.1"]
    obtain("1.2.0", cache=cache)
    obtain("1.0.0", cache=cache)
    assert released_tags(cache=cache, offline=True) == ["v1.0.0", "v1.2.0"]
    assert released_tags(upstream=tmp_path / "published") == [
        "v1.0.0", "v1.1.9", "v1.2.0", "v1.2.1",
    ]  # fmt: skip
    clone = write_clone(tmp_path / "clone", "v1.10.0", "v1.9.0", "nightly", "vllm", "v2.0.0rc1")
    assert released_tags(upstream=clone) == ["v1.9.0", "v1.10.0"]


# package index and cache


def test_a_tag_is_fetched_once(index: FakeIndex, cache: Cache) -> None:
    first = obtain("v1.2.0", cache=cache)
    assert contents(cache, first) == FILES
    assert (first.tag, first.commit, first.origin) == ("v1.2.0", COMMIT, "package index")
    assert first.archive == describe(index.archives["1.2.0"])
    assert obtain("1.2.0", cache=cache.path) == replace(first, origin="cache")
    assert index.asked == 1
    assert list((cache.path / "downloads").iterdir()) == []
    assert cache.store.resolve("refs/tags/v1.2.0^{tree}") == first.tree


def test_a_version_without_archive_says_so_and_names_its_neighbours(
    index: FakeIndex, cache: Cache
) -> None:
    with pytest.raises(Unavailable, match=r"v1\.1\.0 could not be obtained") as caught:
        obtain("v1.1.0", cache=cache)
    assert "the package index has no source archive of it" in caught.value.message
    assert "(nearest: v1.0.0, v1.1.9)" in caught.value.hint
    assert "--upstream" in caught.value.hint


def test_an_unknown_version_is_bad_input(index: FakeIndex, cache: Cache) -> None:
    with pytest.raises(BadInput, match=r"v9\.0\.0 is not a released version \(nearest: v1\.2\.1\)"):
        obtain("v9.0.0", cache=cache)


def test_offline_asks_nobody(index: FakeIndex, cache: Cache) -> None:
    with pytest.raises(Unavailable, match="work is offline"):
        obtain("v1.2.0", cache=cache, offline=True)
    assert index.asked == 0
    obtain("v1.2.0", cache=cache)
    assert obtain("v1.2.0", cache=cache, offline=True).origin == "cache"


def test_the_place_of_the_cache_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "mine"))
    assert Cache.default().path == tmp_path / "mine"
    monkeypatch.delenv(CACHE_VARIABLE)
    assert "vllm-windows-build" in Cache.default().path.parts


def test_a_cache_that_cannot_be_written_is_one_sentence(index: FakeIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot use the cache") as caught:
        obtain("v1.2.0", cache=tmp_path / "file" / "cache")
    assert CACHE_VARIABLE in caught.value.hint


def test_a_hostile_archive_leaves_no_tag_and_no_download(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    index.archives["1.2.0"] = write_sdist(tmp_path, "1.2.0", {"../evil": b"x"})
    with pytest.raises(BadInput, match="climbs out of the archive"):
        obtain("v1.2.0", cache=cache)
    assert cache.tags() == []
    assert list((cache.path / "downloads").iterdir()) == []
    assert list(tmp_path.rglob("evil")) == []


# pins


def test_pins_are_checked(index: FakeIndex, cache: Cache) -> None:
    source = obtain("v1.2.0", cache=cache)
    assert source.archive is not None
    good = pin_of("v1.2.0", commit=COMMIT + "0" * 31, archive=source.archive, tree=source.tree)
    assert obtain("v1.2.0", cache=cache, pins=[good, pin_of("v1.0.0", tree="0" * 40)])
    wrong = Archive(source.archive.name, source.archive.size, "0" * 64)
    for bad, said in [
        (replace(good, tree="1" * 40), "tree"),
        (replace(good, commit="fff"), "commit"),
        (replace(good, archive=wrong), "sha256"),
    ]:
        with pytest.raises(IntegrityError, match=f"is not the pinned one: .*{said}") as caught:
            obtain("v1.2.0", cache=cache, pins=[bad])
        assert str(cache.path) in caught.value.hint


def test_a_pinned_archive_the_index_changed_is_not_even_fetched(
    index: FakeIndex, cache: Cache
) -> None:
    pin = pin_of("v1.2.0", archive=Archive("vllm-1.2.0.tar.gz", 1, "0" * 64))
    with pytest.raises(IntegrityError, match="the pin says 0000"):
        obtain("v1.2.0", cache=cache, pins=[pin])
    assert cache.tags() == []


# a path a person gave


@pytest.mark.parametrize("bare", [False, True])
def test_a_clone_serves_its_tags(
    index: FakeIndex, cache: Cache, tmp_path: Path, bare: bool
) -> None:
    clone = write_clone(tmp_path / "my clone", "v1.2.0", "v2.0.0")
    if bare:
        git("clone", "-q", "--bare", str(clone), str(tmp_path / "bare"))
        clone = tmp_path / "bare"
    for tag in ("v2.0.0", "v1.2.0"):
        source = obtain(tag, cache=cache, upstream=clone)
        assert contents(cache, source) == {**FILES, "tag.txt": f"{tag}\n".encode()}
        assert source.commit == git("-C", str(clone), "rev-parse", f"{tag}^0").decode().strip()
        assert (source.archive, source.origin) == (None, str(clone))
    assert index.asked == 0
    assert cache.store.git("for-each-ref", "refs/incoming") == b""


def test_what_a_person_gave_never_passes_for_upstream_later(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    given_source = obtain("v1.2.0", cache=cache, upstream=write_clone(tmp_path / "clone", "v1.2.0"))
    later = obtain("v1.2.0", cache=cache)
    assert later.origin == "package index" and later.tree != given_source.tree


def test_a_moved_tag_of_a_clone_is_fetched_anew(cache: Cache, tmp_path: Path) -> None:
    clone = write_clone(tmp_path / "clone", "v1.2.0", "v2.0.0")
    first = obtain("v1.2.0", cache=cache, upstream=clone)
    git("-C", str(clone), "tag", "-f", "v1.2.0", "v2.0.0^0")
    assert obtain("v1.2.0", cache=cache, upstream=clone).tree != first.tree


def test_archives_serve_their_versions_and_import_once(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    path = write_sdist(tmp_path / "my archives", "3.0.0")
    for place in (path, path.parent):
        seen: list[Event] = []
        source = obtain("v3.0.0", cache=cache, upstream=place, events=seen.append)
        assert contents(cache, source) == FILES
        assert (source.archive, source.commit) == (describe(path), COMMIT)
        assert bool(seen) == (place == path)  # the second time it is known by its sha256
    assert index.asked == 0 and path.exists()


def test_an_archive_of_another_version_inside_is_refused(cache: Cache, tmp_path: Path) -> None:
    path = write_sdist(tmp_path, "3.0.0").rename(tmp_path / "vllm-3.1.0.tar.gz")
    with pytest.raises(BadInput, match=r"is not in the folder vllm-3\.1\.0/"):
        obtain("v3.1.0", cache=cache, upstream=path)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_an_unpacked_folder_serves_its_version(
    cache: Cache, tmp_path: Path, inside: bool, named: bool
) -> None:
    folder = tmp_path / ("vllm-3.0.0" if named or inside else "anything")
    files = FILES if named else {**FILES, **packaging_files("3.0.0")}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    source = obtain("v3.0.0", cache=cache, upstream=folder.parent if inside else folder)
    assert contents(cache, source) == FILES
    assert source.commit == ("" if named else COMMIT)


def test_a_path_without_the_tag_is_passed_over(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    """A refresh needs two tags, of which a person's folder may hold one."""
    clone = write_clone(tmp_path / "clone", "v2.0.0")
    assert obtain("v1.2.0", cache=cache, upstream=clone).origin == "package index"
    with pytest.raises(BadInput, match="clone does not hold it; the package index has no such"):
        obtain("v5.0.0", cache=cache, upstream=clone)


@pytest.mark.parametrize("kind", ["missing", "empty", "nameless", "junk file"])
def test_a_path_that_is_no_source_is_bad_input(cache: Cache, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "given"
    if kind == "junk file":
        path.write_text("hello")
    elif kind != "missing":
        path.mkdir()
    if kind == "nameless":
        (path / "setup.py").write_text("")
        (path / "vllm").mkdir()
    with pytest.raises(BadInput) as caught:
        obtain("v1.2.0", cache=cache, upstream=path)
    assert str(path) in caught.value.message and caught.value.hint


# the git host


def as_host(clone: Path) -> str:
    """The URL of `clone` with what a git host allows."""
    git("-C", str(clone), "config", "uploadpack.allowFilter", "true")
    return clone.as_uri()


def test_the_git_host_serves_what_the_index_lacks(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    clone = write_clone(tmp_path / "host", "v1.1.0", "v4.0.0")
    pin = pin_of("v1.0.0", as_host(clone))
    for tag in ("v1.1.0", "v4.0.0"):
        source = obtain(tag, cache=cache, pins=[pin])
        assert source.origin == "git host"
        assert source.commit == git("-C", str(clone), "rev-parse", f"{tag}^0").decode().strip()
    # Complete: everything is there when the host is gone.
    clone.rename(tmp_path / "gone")
    for tag in ("v1.1.0", "v4.0.0"):
        again = obtain(tag, cache=cache, pins=[pin])
        assert again.origin == "cache"
        assert contents(cache, again) == {**FILES, "tag.txt": f"{tag}\n".encode()}
    assert b"remote" not in cache.store.git("config", "--list", "--local")
    cache.store.git("fsck", "--connectivity-only")


def test_a_host_that_lacks_the_tag_or_is_gone_is_named(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    host = as_host(write_clone(tmp_path / "host", "v4.0.0"))
    with pytest.raises(Unavailable, match=r"couldn't find remote ref refs/tags/v1\.1\.0"):
        obtain("v1.1.0", cache=cache, pins=[pin_of("v1.0.0", host)])
    with pytest.raises(Unavailable) as caught:
        obtain("v1.1.0", cache=cache, pins=[pin_of("v1.0.0", host + "-gone")])
    assert f"{host}-gone did not serve it" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_host_serves_when_the_index_does_not_answer(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    index.error = Unavailable("the package index is away")
    host = as_host(write_clone(tmp_path / "host", "v1.2.0"))
    assert obtain("v1.2.0", cache=cache, pins=[pin_of("v1.0.0", host)]).origin == "git host"
    with pytest.raises(Unavailable, match=r"v1\.2\.1 .*: the package index is away; "):
        obtain("v1.2.1", cache=cache, pins=[pin_of("v1.0.0", host)])


# two processes, and a killed one


def test_two_at_once_import_one_after_the_other(index: FakeIndex, cache: Cache) -> None:
    sources: list[Source] = []
    lock = filelock.FileLock(cache.path / "lock")
    waiting = threading.Event()

    def wait_seen(event: Event) -> None:
        if event.stage == "waiting for another import":
            waiting.set()

    def run() -> None:
        sources.append(obtain("v1.2.0", cache=Cache(cache.path), events=wait_seen))

    cache.path.mkdir()
    thread = threading.Thread(target=run)
    with lock:
        thread.start()
        assert waiting.wait(20)
        assert sources == []
    thread.join(20)
    assert [source.tag for source in sources] == ["v1.2.0"]


def test_a_cache_held_for_too_long_is_busy(
    index: FakeIndex, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portkit.upstream.cache._LOCK_TIMEOUT", 0.1)
    cache.path.mkdir()
    with filelock.FileLock(cache.path / "lock"), pytest.raises(Busy, match="holds the cache"):
        obtain("v1.2.0", cache=cache)


def test_a_killed_import_leaves_nothing_that_matters(
    index: FakeIndex, cache: Cache, tmp_path: Path
) -> None:
    """The process dies in the middle of an import; the next one cleans up and succeeds."""
    path = write_sdist(tmp_path, "1.2.0", {f"{n}.py": bytes(50_000) for n in range(400)})
    script = (
        "import os, sys; from pathlib import Path; from portkit.upstream.source import obtain\n"
        "def die(event):\n"
        "    if event.stage.startswith('importing') and event.done: os._exit(9)\n"
        "cache, upstream = map(Path, sys.argv[1:])\n"
        "obtain('v1.2.0', cache=cache, upstream=upstream, events=die)"
    )
    tools = str(Path(upstream_module.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", script, str(cache.path), str(path)],
        env={**os.environ, "PYTHONPATH": tools},
        check=False,
    )
    assert done.returncode == 9
    assert cache.store.git("for-each-ref") == b""
    assert len(contents(cache, obtain("v1.2.0", cache=cache, upstream=path))) == 400
    names = [file.name for file in cache.store.path.rglob("*")]
    assert not [name for name in names if name.startswith(("tmp_", "fast_import_crash"))]


# the real thing


def test_the_first_pin(obtain_tag: Callable[[str], Source]) -> None:
    source = obtain_tag("v0.14.1")
    assert source.commit == "d7de043d5"
    assert source.archive == Archive(
        "vllm-0.14.1.tar.gz",
        19_698_767,
        "c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac",
    )
