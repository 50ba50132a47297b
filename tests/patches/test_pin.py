"""The pin file: round trip, and one clear sentence for each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portkit.errors import BadFile
from portkit.model import Archive, Pin
from portkit.patches import pin as pinfile

ARCHIVE = Archive(
    "vllm-0.14.1.tar.gz",
    19698767,
    "c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac",
)
PIN = Pin("https://example.org/vllm.git", "v0.14.1", "d7de043d5", ARCHIVE, "1" * 40, "2" * 40)


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=count, max_size=count)


archives = st.builds(
    Archive,
    st.from_regex(r"\A[\w.+-]+\.tar\.gz\Z", alphabet=st.characters(codec="ascii")),
    st.integers(1, 10**12),
    digits(64),
)
pins = st.builds(
    Pin,
    st.sampled_from(["https://example.org/v", "git@example.org:v.git", "C:/a#b"]),
    st.sampled_from(["v0.14.1", "v0.16.0rc2", "v1.0.post1"]),
    st.integers(7, 40).flatmap(digits),
    st.none() | archives,
    digits(40),
    digits(40),
)


@given(pins)
def test_round_trip(pin: Pin) -> None:
    assert pinfile.parse(pinfile.render(pin)) == pin


def test_the_file_a_person_sees() -> None:
    lines = pinfile.render(PIN).decode().splitlines()
    assert lines[0].startswith("# The upstream release")
    assert [line for line in lines if not line.startswith("#")] == [
        "repository: https://example.org/vllm.git",
        "tag: v0.14.1",
        "commit: d7de043d5",
        "archive: vllm-0.14.1.tar.gz",
        "archive-size: 19698767",
        "archive-sha256: c7c6d0a729d29e70ac10baacbc7186930da24f8ae34f60451330527ff0be84ac",
        "tree: 1111111111111111111111111111111111111111",
        "patched-tree: 2222222222222222222222222222222222222222",
    ]


def test_comments_blank_lines_and_crlf_are_read() -> None:
    data = b"# note\r\n\r\n" + pinfile.render(PIN).replace(b"\n", b"\r\n")
    assert pinfile.parse(data) == PIN


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("tag: v0.14.1", "tag v0.14.1", "pin:5: expected `key: value`, found 'tag v0.14.1'"),
        ("tag:", "tga:", "pin:5: unknown key 'tga'"),
        (
            "tag: v0.14.1",
            "tag: main",
            "pin:5: tag is 'main', expected a release tag such as v0.14.1",
        ),
        (
            "commit: d7de043d5",
            "commit: xyz",
            "pin:6: commit is 'xyz', expected 7 to 40 lower-case hex digits",
        ),
        (
            "archive-size: 19698767",
            "archive-size: 19 MB",
            "pin:8: archive-size is '19 MB', expected a number of bytes",
        ),
        (
            "archive-size: 19698767",
            "archive-size: 0",
            "pin:8: archive-size is '0', expected a number of bytes",
        ),
        (
            "archive-size: 19698767",
            "archive-size: ٣",
            "pin:8: archive-size is '٣', expected a number of bytes",
        ),
        (
            "archive: vllm",
            "archive: ../vllm",
            "pin:7: archive is '../vllm-0.14.1.tar.gz', expected the name of a .tar.gz file",
        ),
        ("tree: 1", "tree: F", f"pin:10: tree is 'F{'1' * 39}', expected 40 lower-case hex digits"),
        ("tree: 1", "commit: 1", "pin:10: commit is given twice"),
        ("archive-size: 19698767\n", "", "pin: archive-size is missing"),
        ("repository: https://example.org/vllm.git\n", "", "pin: repository is missing"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(old: str, new: str, message: str) -> None:
    text = pinfile.render(PIN).decode()
    # The comment is three lines; keys begin at line 4.
    assert text.splitlines()[3].startswith("repository")
    with pytest.raises(BadFile) as caught:
        pinfile.parse(text.replace(old, new, 1).encode(), "pin")
    assert caught.value.message == message


def test_a_pin_without_archive_is_complete() -> None:
    pin = Pin("r", "v1.2", "1234567", None, "1" * 40, "2" * 40)
    assert b"archive" not in pinfile.render(pin).replace(pinfile._COMMENT.encode(), b"")
    assert pinfile.parse(pinfile.render(pin)) == pin


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"upstream_pin\.txt: is missing"):
        pinfile.read(tmp_path / "upstream_pin.txt")
    (tmp_path / "upstream_pin.txt").write_bytes(pinfile.render(PIN))
    assert pinfile.read(tmp_path / "upstream_pin.txt") == PIN
