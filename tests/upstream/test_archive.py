"""Importing archives: what is kept, what is left out, and every kind of hostile archive."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portkit.errors import BadFile, PortError, Unavailable
from portkit.model import Event
from portkit.upstream import archive
from portkit.upstream.archive import Limits, archive_members, folder_members, import_members
from portkit.upstream.git import Store
from portkit.upstream.source import Source

TOP = "vllm-1.0.0"
VERSION_FILE = b"__version__ = version = '1.0.0'\n\n__commit_id__ = commit_id = 'gabc123def'\n"
GENERATED_SETUP_CFG = b"[egg_info]\ntag_build = \ntag_date = 0\n\n"
REF = "refs/tags/v1.0.0"
DEFAULT = Limits()


def entry(name: str, data: bytes = b"x\n", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def write_archive(folder: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = folder / f"{TOP}.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "store.git") as store:
        yield store


def do_import(repo: Store, path: Path, limits: Limits = DEFAULT) -> dict[str, bytes]:
    members = archive_members(path, TOP, limits=limits)
    import_members(repo, REF, members, subject="vLLM v1.0.0", trailers={"Archive-Name": path.name})
    return {name: repo.read(found.oid) for name, found in repo.files(REF).items()}


def assert_nothing_left(repo: Store) -> None:
    assert repo.git("for-each-ref") == b""
    names = [file.name for file in repo.path.rglob("*")]
    assert not [name for name in names if "tmp_" in name or "crash" in name]


# what is kept


def test_bytes_names_and_executable_bits_survive(repo: Store, tmp_path: Path) -> None:
    names = {
        f"{TOP}/a b.py": b"\r\n\x0c\xff no newline",
        f"{TOP}/empty": b"",
        f"{TOP}/Case": b"1",
        f"{TOP}/case": b"2",
        f"{TOP}/deep/{'d' * 120}/{'f' * 120}": b"long",
        f'{TOP}/quo"te': b"q",
        f"{TOP}/ünï": b"u",
        f"{TOP}/latin\udcff": b"not utf-8",
    }
    path = write_archive(
        tmp_path,
        entry(f"{TOP}/", b"", type=tarfile.DIRTYPE),
        *(entry(name, data) for name, data in names.items()),
        entry(f"{TOP}/run.sh", mode=0o775),
    )
    files = do_import(repo, path)
    assert files.pop("run.sh") == b"x\n"
    assert files == {name[len(TOP) + 1 :]: data for name, data in names.items()}
    assert repo.files(REF)["run.sh"].mode == "100755"
    assert repo.files(REF)["empty"].mode == "100644"


def test_packaging_metadata_is_left_out_and_the_commit_id_read(repo: Store, tmp_path: Path) -> None:
    path = write_archive(
        tmp_path,
        entry(f"{TOP}/PKG-INFO"),
        entry(f"{TOP}/vllm.egg-info/PKG-INFO"),
        entry(f"{TOP}/vllm.egg-info/SOURCES.txt"),
        entry(f"{TOP}/setup.cfg", GENERATED_SETUP_CFG),
        entry(f"{TOP}/vllm/_version.py", VERSION_FILE),
        entry(f"{TOP}/vllm/version.py"),
        entry(f"{TOP}/tests/PKG-INFO"),
        entry(f"{TOP}/tests/data.egg-info/x"),
        entry(f"{TOP}/tests/setup.cfg", GENERATED_SETUP_CFG),
    )
    assert set(do_import(repo, path)) == {
        "vllm/version.py",
        "tests/PKG-INFO",
        "tests/data.egg-info/x",
        "tests/setup.cfg",
    }
    message = repo.git("cat-file", "commit", REF).decode()
    assert "\nArchive-Name: vllm-1.0.0.tar.gz\n" in message
    assert "\nUpstream-Commit: abc123def\n" in message


@pytest.mark.parametrize(
    "data", [b"[egg_info]\ntag_build =\n[flake8]\nmax = 1\n", b"[metadata]\n", b"junk", b"\xff"]
)
def test_a_setup_cfg_of_upstream_is_kept(repo: Store, tmp_path: Path, data: bytes) -> None:
    assert do_import(repo, write_archive(tmp_path, entry(f"{TOP}/setup.cfg", data))) == {
        "setup.cfg": data
    }


def test_a_folder_imports_like_its_archive(repo: Store, tmp_path: Path) -> None:
    path = write_archive(
        tmp_path,
        entry(f"{TOP}/PKG-INFO"),
        entry(f"{TOP}/vllm/a.py"),
        entry(f"{TOP}/run.sh", mode=0o755),
        entry(f"{TOP}/vllm/_version.py", VERSION_FILE),
    )
    do_import(repo, path)
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path / "out")
    seen: list[Event] = []
    members = folder_members(tmp_path / "out" / TOP, events=seen.append)
    import_members(repo, "refs/given/x", members, subject="x", trailers={})
    if os.name != "nt":  # where there is an executable bit
        assert repo.resolve("refs/given/x^{tree}") == repo.resolve(f"{REF}^{{tree}}")
    assert b"Upstream-Commit: abc123def" in repo.git("cat-file", "commit", "refs/given/x")
    assert seen


def test_progress_reaches_the_end(repo: Store, tmp_path: Path) -> None:
    path = write_archive(tmp_path, entry(f"{TOP}/a"))
    seen: list[Event] = []
    for _ in archive_members(path, TOP, events=seen.append):
        pass
    assert (seen[-1].done, seen[-1].total, seen[-1].unit) == (
        path.stat().st_size,
        path.stat().st_size,
        "bytes",
    )


# hostile names

BAD_NAMES = {
    "/etc/passwd": "absolute",
    f"{TOP}/../up": "'..'",
    "../up": "'..'",
    f"{TOP}/a/../../../up": "'..'",
    f"{TOP}//etc/passwd": "empty path component",
    f"{TOP}/./a": "empty path component",
    f"{TOP}/a\\b": "backslash",
    f"{TOP}\\..\\a": "backslash",
    f"{TOP}/C:/Windows/a": "drive letter",
    f"{TOP}/c:a": "drive letter",
    "C:/a": "drive letter",
    f"{TOP}/.git/config": "'.git'",
    f"{TOP}/sub/.GIT/hooks/pre-commit": "'.git'",
    f"{TOP}/.git. /x": "'.git'",
    f"{TOP}/git~1/x": "'.git'",
    f"{TOP}/.git::$INDEX_ALLOCATION/x": "'.git'",
    f"{TOP}/.g\u200cit/x": "'.git'",
    f"{TOP}/line\nbreak": "control character",
    f"{TOP}/esc\x1b[2J": "control character",
    "vllm-2.0.0/a": f"not in the folder {TOP}/",
    "a": f"not in the folder {TOP}/",
}


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_hostile_names_are_refused(repo: Store, tmp_path: Path, name: str, kind: bytes) -> None:
    data = b"x\n" if kind == tarfile.REGTYPE else b""
    path = write_archive(tmp_path, entry(f"{TOP}/good"), entry(name, data, type=kind))
    with pytest.raises(BadFile, match=r"^vllm-1\.0\.0\.tar\.gz: member ") as caught:
        do_import(repo, path)
    assert BAD_NAMES[name] in caught.value.message
    assert "\n" not in caught.value.message and "\x1b" not in caught.value.message
    assert_nothing_left(repo)


def test_a_file_instead_of_the_top_folder_is_refused(repo: Store, tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=f"is not in the folder {TOP}/"):
        do_import(repo, write_archive(tmp_path, entry(TOP)))


@pytest.mark.parametrize("name", ["a.git", ".gitignore", ".github/x", "git~10", "a..b", "..."])
def test_harmless_names_near_the_hostile_ones_are_kept(
    repo: Store, tmp_path: Path, name: str
) -> None:
    assert set(do_import(repo, write_archive(tmp_path, entry(f"{TOP}/{name}")))) == {name}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (tarfile.SYMTYPE, "is a link"),
        (tarfile.LNKTYPE, "is a link"),
        (tarfile.CHRTYPE, "neither a plain file nor a folder"),
        (tarfile.BLKTYPE, "neither a plain file nor a folder"),
        (tarfile.FIFOTYPE, "neither a plain file nor a folder"),
        (tarfile.CONTTYPE, "neither a plain file nor a folder"),
        (b"Z", "neither a plain file nor a folder"),
    ],
)
def test_only_files_and_folders_are_read(
    repo: Store, tmp_path: Path, kind: bytes, fault: str
) -> None:
    bad = entry(f"{TOP}/bad", b"", type=kind, linkname=f"{TOP}/good")
    with pytest.raises(BadFile, match=fault):
        do_import(repo, write_archive(tmp_path, entry(f"{TOP}/good"), bad))
    assert_nothing_left(repo)


def test_a_sparse_file_is_refused(repo: Store, tmp_path: Path) -> None:
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": f"{TOP}/sparse",
        "GNU.sparse.realsize": "1099511627776",
    }
    data = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
    path = write_archive(tmp_path, entry(f"{TOP}/sparse", data, pax_headers=headers))
    with pytest.raises(BadFile, match="neither a plain file"):
        do_import(repo, path)


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a", "a"], "occurs twice"),
        (["d/a", "b", "d/a"], "occurs twice"),
        (["a", "a/b"], "both a file and a folder"),
        (["a/b/c", "a"], "both a file and a folder"),
        (["a/b/c", "a/b"], "both a file and a folder"),
    ],
)
def test_names_must_be_unique(repo: Store, tmp_path: Path, names: list[str], fault: str) -> None:
    with pytest.raises(BadFile, match=fault):
        do_import(repo, write_archive(tmp_path, *(entry(f"{TOP}/{name}") for name in names)))
    assert_nothing_left(repo)


# too much


def test_limits_stop_a_decompression_bomb(repo: Store, tmp_path: Path) -> None:
    bomb = [entry(f"{TOP}/{number}", bytes(1 << 20)) for number in range(8)]
    path = write_archive(tmp_path, *bomb)
    assert path.stat().st_size < 20_000
    with pytest.raises(BadFile, match="unpacks to over 4,194,304 bytes"):
        do_import(repo, path, Limits(total=4 << 20))
    with pytest.raises(BadFile, match="has 1,048,576 bytes, over the limit"):
        do_import(repo, path, Limits(member=1 << 19))
    with pytest.raises(BadFile, match="holds over 5 members"):
        do_import(repo, path, Limits(members=5))
    assert_nothing_left(repo)
    assert len(do_import(repo, path, Limits(total=9 << 20, member=1 << 20, members=8))) == 8


def test_a_huge_extended_header_is_not_read_into_memory(repo: Store, tmp_path: Path) -> None:
    """tarfile reads a long-name record whole, whatever size its header states."""
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    header.size = 1 << 40
    path = tmp_path / f"{TOP}.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096)))
    with pytest.raises(BadFile, match="holds a record of 1,099,511,627,776 bytes"):
        do_import(repo, path)


def test_endlessly_nested_headers_end_in_one_sentence(repo: Store, tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    block = header.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")
    path = tmp_path / f"{TOP}.tar.gz"
    path.write_bytes(gzip.compress(block * 5000))
    with pytest.raises(BadFile, match="not a sound"):
        do_import(repo, path)


# damage


def damaged(data: bytes) -> dict[str, bytes]:
    tar = gzip.decompress(data)
    broken = bytearray(tar)
    second = tar.index(b"second")
    broken[second + 100] ^= 0xFF  # the mode field of the second header: its sum is wrong
    return {
        "empty": b"",
        "not gzip": b"hello, world" * 100,
        "not tar": gzip.compress(b"hello, world" * 100),
        "cut gzip": data[: len(data) // 2],
        "cut tail": data[:-6],
        "bit flip": data[:40] + bytes([data[40] ^ 4]) + data[41:],
        "broken header": gzip.compress(bytes(broken)),
        "cut between members": gzip.compress(tar[: second - second % 512]),
        "data after the end": gzip.compress(tar + b"more".ljust(512, b"\0")),
        "no end": gzip.compress(tar.rstrip(b"\0").ljust(-(-len(tar.rstrip(b"\0")) // 512) * 512)),
    }


@pytest.mark.parametrize("kind", damaged(gzip.compress(b"second".center(2000))))
def test_damage_is_noticed(repo: Store, tmp_path: Path, kind: str) -> None:
    path = write_archive(
        tmp_path, entry(f"{TOP}/first", b"1" * 600), entry(f"{TOP}/second", os.urandom(3000))
    )
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(BadFile, match=r"^vllm-1\.0\.0\.tar\.gz: is "):
        do_import(repo, path)
    assert_nothing_left(repo)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 2559), st.binary(min_size=1, max_size=12)), max_size=4))
def test_no_corruption_gives_more_than_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]]
) -> None:
    """Whatever the bytes, reading ends in members or in one sentence, never in a traceback."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info, data = entry(f"{TOP}/ünï", b"x" * 30, pax_headers={"mtime": "1.5"})
        tar.addfile(info, io.BytesIO(data))
    raw = bytearray(buffer.getvalue())
    for place, patch in edits:
        raw[place : place + len(patch)] = patch
    path = tmp_path_factory.mktemp("fuzz") / "x.tar.gz"
    path.write_bytes(gzip.compress(bytes(raw), 0))
    with suppress(BadFile):
        paths = [member.path for member in archive_members(path, TOP)]
        assert edits or paths == ["ünï"]


# interruption


def test_an_interrupted_import_leaves_no_tag(repo: Store, tmp_path: Path) -> None:
    path = write_archive(
        tmp_path, *(entry(f"{TOP}/{number}", os.urandom(100_000)) for number in range(40))
    )

    def interrupted() -> Iterator[archive.Member]:
        for number, member in enumerate(archive_members(path, TOP)):
            if number == 30:
                raise KeyboardInterrupt
            yield member

    with pytest.raises(KeyboardInterrupt):
        import_members(repo, REF, interrupted(), subject="x", trailers={})
    assert_nothing_left(repo)
    assert len(do_import(repo, path)) == 40


def test_a_failing_store_is_one_sentence(repo: Store, tmp_path: Path) -> None:
    path = write_archive(
        tmp_path, *(entry(f"{TOP}/{number}", os.urandom(100_000)) for number in range(40))
    )
    shutil.rmtree(repo.path / "objects")
    (repo.path / "objects").write_text("no folder")
    with pytest.raises(Unavailable, match="git fast-import failed: fatal"):
        import_members(repo, REF, archive_members(path, TOP), subject="x", trailers={})


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege there")
def test_a_folder_with_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/passwd")
    with pytest.raises(PortError, match="member 'a' is neither a plain file nor a folder"):
        list(folder_members(tmp_path))


# the real thing


@pytest.mark.parametrize(
    ("tag", "tree", "commit"),
    [
        ("v0.14.1", "eef2fed6f7f45ed1eee978f6eb10c5abce3a9ffd", "d7de043d5"),
        ("v0.33.0", "31d93248e02225a117068fe236b02e0ec40ece44", "4ba787ec9"),
    ],
)
def test_real_archives_give_upstreams_tree(
    obtain_tag: Callable[[str], Source], store: Store, tag: str, tree: str, commit: str
) -> None:
    source = obtain_tag(tag)
    assert (source.tree, source.commit[:9]) == (tree, commit)
    files = store.files(tree)
    assert "setup.py" in files and files["vllm/envs.py"].mode == "100755"
    assert not {"PKG-INFO", "setup.cfg", "vllm/_version.py"} & set(files)
