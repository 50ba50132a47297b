"""The state of a waiting refresh, and the files it leaves to edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from portkit.errors import BadInput, IntegrityError
from portkit.port.session import Session, State, now

STATE = State(
    started=now(), from_tag="v1.0.0", tags=("v1.0.0", "v1.1.0"), upstream=None, fingerprint={}
)
FILES = {"vllm/a.py": b"<<<<<<< ours\r\n", "CMakeLists.txt": b"one\n"}


@pytest.fixture
def session(tmp_path: Path) -> Session:
    root = tmp_path / "a clone"
    root.mkdir()
    return Session(root)


def test_without_a_refresh_nothing_waits(session: Session) -> None:
    assert session.load() is None
    with pytest.raises(BadInput, match="no refresh is under way"):
        session.required()
    session.end()


def test_what_is_saved_is_loaded(session: Session) -> None:
    state = STATE.model_copy(
        update={
            "upstream": "C:\\up stream",
            "skipped": ("build/setup.py.patch",),
            "moved": {"kernels/a.cu.patch": "csrc/b.cu"},
            "drops_accepted": True,
        }
    )
    saved = session.save(state, FILES, ())
    assert session.load() == saved == session.required()
    assert saved.to_tag == "v1.1.0"
    assert saved.model_copy(update={"written": {}}) == state
    for path, data in FILES.items():
        assert session.read(path) == data


def test_saving_again_keeps_the_edits(session: Session) -> None:
    state = session.save(STATE, FILES, ())
    (session.work / "vllm/a.py").write_bytes(b"half settled\n<<<<<<< ours\r\n")
    state = session.save(state, FILES, ())
    assert session.read("vllm/a.py") == b"half settled\n<<<<<<< ours\r\n"
    assert session.edited(state, "vllm/a.py")
    assert not session.edited(state, "CMakeLists.txt")


def test_a_file_with_other_conflicts_is_written_anew_unless_it_was_edited(session: Session) -> None:
    state = session.save(STATE, FILES, ())
    state = session.save(state, {**FILES, "CMakeLists.txt": b"two\n"}, ())
    assert session.read("CMakeLists.txt") == b"two\n"
    (session.work / "CMakeLists.txt").write_bytes(b"mine\n")
    before = session.load()
    with pytest.raises(BadInput, match=r"work/refresh/CMakeLists\.txt was edited"):
        session.save(state, {"vllm/a.py": b"new\n", "CMakeLists.txt": b"three\n"}, ())
    assert session.read("CMakeLists.txt") == b"mine\n"
    assert session.read("vllm/a.py") == FILES["vllm/a.py"], "all or nothing"
    assert session.load() == before


def test_a_settled_file_stays_whatever_would_be_written(session: Session) -> None:
    state = session.save(STATE, FILES, ())
    (session.work / "CMakeLists.txt").write_bytes(b"settled\n")
    session.save(state, {**FILES, "CMakeLists.txt": b"three\n"}, ["CMakeLists.txt"])
    assert session.read("CMakeLists.txt") == b"settled\n"


def test_a_file_without_conflicts_goes_unless_it_was_edited(session: Session) -> None:
    state = session.save(STATE, FILES, ())
    one = {"vllm/a.py": FILES["vllm/a.py"]}
    state = session.save(state, one, ())
    assert session.read("CMakeLists.txt") is None
    assert set(state.written) == {"vllm/a.py"}
    (session.work / "vllm/a.py").write_bytes(b"mine\n")
    with pytest.raises(BadInput, match="was edited"):
        session.save(state, {}, ())
    assert session.read("vllm/a.py") == b"mine\n"


def test_a_file_that_was_there_before_is_not_written_over(session: Session) -> None:
    (session.work / "vllm").mkdir(parents=True)
    (session.work / "vllm/a.py").write_bytes(b"someone's\n")
    with pytest.raises(BadInput, match="was edited, and would be written anew"):
        session.save(STATE, FILES, ())
    assert session.read("vllm/a.py") == b"someone's\n"
    assert session.load() is None


def test_a_deleted_file_is_written_anew(session: Session) -> None:
    state = session.save(STATE, FILES, ())
    (session.work / "vllm/a.py").unlink()
    assert session.read("vllm/a.py") is None
    session.save(state, FILES, ())
    assert session.read("vllm/a.py") == FILES["vllm/a.py"]


def test_the_end_leaves_no_trace(session: Session) -> None:
    session.save(STATE, FILES, ())
    session.end()
    assert session.load() is None
    assert not session.work.exists()


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"version": 2}',
     STATE.model_dump_json().replace('"version":1', '"version":2').encode(),
     STATE.model_dump_json().replace('"upstream"', '"downstream"').encode()],
)  # fmt: skip
def test_a_damaged_state_is_refused_in_a_sentence(session: Session, damaged: bytes) -> None:
    session.save(STATE, FILES, ())
    (session.root / ".port/refresh.json").write_bytes(damaged)
    with pytest.raises(IntegrityError, match="is not the state of a refresh") as caught:
        session.load()
    assert "--abort" in caught.value.hint
