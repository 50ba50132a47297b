"""Requirement files: the same on Linux, whatever Windows leaves out."""

from __future__ import annotations

import pytest

from portkit.audit import markers
from portkit.audit.doubt import Doubt

PYTHONS = ("3.10", "3.13")
UPSTREAM = b"-r common.txt\n\nnumba == 0.61.2 # a comment\nray>=2.48\nflash==0.5.3\n"


def test_a_marker_for_windows_changes_nothing_on_linux() -> None:
    patched = UPSTREAM.replace(b"0.5.3", b'0.5.3; sys_platform != "win32"')
    said = markers.compare(UPSTREAM, patched, PYTHONS)
    assert said == "the same requirements on Linux, Python 3.10 to 3.13"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"flash==0.5.3", b"# flash==0.5.3", "lacks `flash==0.5.3`"),
        (b"0.5.3", b'0.5.3; sys_platform == "win32"', "lacks `flash==0.5.3`"),
        (b"0.5.3", b'0.5.3 # ; sys_platform != "win32"', "nothing on Windows either"),
        (b"0.5.3", b'0.5.3; sys_platform != "win32" and python_version < "3.13"', "Python 3.13"),
        (b"0.5.3", b'0.5.3; platform_machine == "x86_64"', "aarch64"),
        (b"0.5.3", b'0.5.2; sys_platform != "win32"', "lacks `flash==0.5.3`"),
        (b"-r common.txt\n", b"", "lacks `-r common.txt`"),
        (b"ray>=2.48", b"ray>=2.48\nwinloop", "adds `winloop`"),
        (b"ray>=2.48", b"ray >= = 2", "is no requirement"),
    ],
)
def test_what_linux_would_notice_is_found(old: bytes, new: bytes, why: str) -> None:
    with pytest.raises(Doubt) as caught:
        markers.compare(UPSTREAM, UPSTREAM.replace(old, new), PYTHONS)
    assert why in str(caught.value)


def test_the_pythons_are_those_of_the_project() -> None:
    text = b'[project]\nrequires-python = ">=3.10,<3.14"\n'
    assert markers.supported_pythons(text) == ("3.10", "3.11", "3.12", "3.13")
