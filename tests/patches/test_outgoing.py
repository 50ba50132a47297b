"""Mails for upstream: only the change and its reasons, and any byte survives."""

from __future__ import annotations

import base64
import email
import email.header
from pathlib import Path

import pytest
from world import World, header, world

from portkit.commands import series as series_command
from portkit.errors import BadInput
from portkit.face import console
from portkit.model import Patch
from portkit.patches import series
from portkit.patches.outgoing import Sender, file_name, forwardable, mail
from portkit.patches.patchfile import format_change
from portkit.upstream.pristine import Pristine

SENDER = Sender("J\u00f6rg Someone", "someone@example.org")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("VLLM_PORT_CACHE", str(tmp_path / "cache"))
    return world(tmp_path, tmp_path / "cache")


def made(world: World, end: str, **options: object) -> bytes:
    (patch,) = (p for p in series.load(world.root).patches if p.path.endswith(end))
    return sent(world, patch, **options)


def sent(world: World, patch: Patch, **options: object) -> bytes:
    with Pristine(world.pin) as pristine:
        return mail(patch, pristine, sender=SENDER, **options)  # type: ignore[arg-type]


def test_a_mail_has_no_field_that_is_ours_alone(small: World) -> None:
    data = made(small, "setup.py")
    for field in (b"Test:", b"Archs:", b"Diagnostic:", b"Forwarded:", b"test_it", b"12.0a"):
        assert field not in data
    said = email.message_from_bytes(data)
    assert said["Subject"] == "[PATCH] Let setup.py build"
    assert str(email.header.make_header(email.header.decode_header(said["From"]))) == (
        "J\u00f6rg Someone <someone@example.org>"
    )
    text = said.get_payload()
    assert isinstance(text, str)
    assert text.startswith("MSVC says C1061 here.\n---\n setup.py | +1 -1\n\ndiff --git ")
    assert "index " in text


def test_numbers_and_sign_off(small: World) -> None:
    data = made(small, "setup.py", number=3, total=12, sign_off=True)
    assert b"Subject: [PATCH 03/12] Let" in data
    assert "\nSigned-off-by: J\u00f6rg Someone <someone@example.org>\n---\n".encode() in data


def test_what_mail_would_change_is_encoded(small: World) -> None:
    for end in ("CMakeLists.txt", "latin.py"):  # CRLF; not UTF-8
        (patch,) = (p for p in series.load(small.root).patches if p.path.endswith(end))
        data = sent(small, patch)
        head, _, body = data.partition(b"\n\n")
        assert b"Content-Transfer-Encoding: base64" in head
        change = format_change(patch.change).split(b"--- ", 1)[1]
        assert change in base64.decodebytes(body)


def test_a_description_that_git_would_misread_is_indented(small: World) -> None:
    (patch,) = (p for p in series.load(small.root).patches if p.path == "setup.py")
    text = "Let it build\n Before.\n --- a/x\n ---\n diff of both\n From me at 12:30 Mon\n After."
    data = sent(small, Patch(patch.name, header("setup.py", Description=text), patch.change))
    body = data.partition(b"\n\n")[2]
    assert b"\n --- a/x\n ---\ndiff of both\n From me at 12:30 Mon\nAfter.\n---\n" in body


def test_a_summary_that_is_not_ascii_is_encoded(small: World) -> None:
    (patch,) = (p for p in series.load(small.root).patches if p.path == "setup.py")
    text = "\u00c4ndere etwas\n Mehr."
    data = sent(small, Patch(patch.name, header("setup.py", Description=text), patch.change))
    said = email.message_from_bytes(data)
    assert str(email.header.make_header(email.header.decode_header(said["Subject"]))) == (
        "[PATCH] \u00c4ndere etwas"
    )


def test_stubs_and_senders_without_address_are_refused(small: World) -> None:
    (patch,) = (p for p in series.load(small.root).patches if p.path == "setup.py")
    with pytest.raises(BadInput, match="has no summary"):
        sent(small, Patch(patch.name, b"Description: TODO: one line\n", patch.change))
    with pytest.raises(BadInput, match="has no mail address"):
        Sender.parse("the maintainers")


def test_patches_that_upstream_has_no_use_for_stay() -> None:
    patches = series.load(Path(__file__).resolve().parents[2]).patches
    kept = Patch("a", header("a", Forwarded="not-needed"), patches[0].change)
    assert forwardable([*patches, kept]) == [*patches]


def test_file_names_are_what_git_gives(small: World) -> None:
    (patch,) = (p for p in series.load(small.root).patches if p.path == "setup.py")
    assert file_name(patch, 7) == "0007-Let-setup.py-build.patch"


def test_export_refuses_one_patch_without_upstream(
    small: World, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["export", "setup.py"]
    assert console.run(lambda words: series_command.main(words, small.root), given) == 2
    assert "diff PATCH" in capsys.readouterr().err
