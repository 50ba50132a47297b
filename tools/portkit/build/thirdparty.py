"""The third-party sources of a build: which the pin names, how they come, which patches they get.

Upstream's CMake fetches each with `FetchContent_Declare`, and takes a folder instead where a
variable of its own (`VLLM_CUTLASS_SRC_DIR`) names one.  The build always names folders: what was
fetched is then known, patched by `patch_series/deps/<name>/`, and the same in every configure.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portkit.change import durable
from portkit.errors import BadInput, Unavailable
from portkit.model import Event, Events, Patch, silent
from portkit.patches.apply import apply_change
from portkit.port.facts import resolved
from portkit.text.cmakefile import Command, commands
from portkit.upstream.git import git
from portkit.upstream.tree import long_path

_FILES = re.compile(r"CMakeLists\.txt|cmake/external_projects/[^/]+\.cmake")
_VARIABLE = re.compile(r"\$(?:ENV)?\{(\w+)\}")
_GIT = ("-c", "core.autocrlf=false", "-c", "core.longpaths=true")
_DONE = ".portkit-fetched"  # what a folder of ours was made of; written last


@dataclass(frozen=True)
class Dependency:
    """A third-party source as the pin names it.

    `variable` is upstream's for a folder in its place; `inside` the part of the repository that
    variable stands for, mostly all of it ("").
    """

    name: str
    repository: str
    revision: str
    variable: str
    inside: str = ""


@dataclass(frozen=True)
class Provided:
    """A dependency on the disk: its folder, where it came from, and what identifies its content.

    `content` is a git tree id with its commit, or `sha256:` over names and bytes of all files.
    """

    dependency: Dependency
    folder: Path
    origin: str
    content: str
    patches: tuple[str, ...] = ()

    @property
    def setting(self) -> tuple[str, str]:
        """The environment variable for upstream's CMake, and its value, with forward slashes."""
        folder = self.folder / self.dependency.inside if self.dependency.inside else self.folder
        return self.dependency.variable, folder.as_posix()


def dependencies(files: Iterable[str], read: Callable[[str], bytes]) -> tuple[Dependency, ...]:
    """Those that a CUDA build of upstream fetches, in the order of its CMake files.

    Raises `BadInput` for one whose revision or variable cannot be read.
    """
    found: dict[str, Dependency] = {}
    for path in sorted(path for path in files if _FILES.fullmatch(path)):
        lines = commands(read(path))
        declared = [one for one in lines if one.name == "fetchcontent_declare" and one.arguments]
        for one in declared:
            if one.after("GIT_TAG") is not None:
                name = one.arguments[0]
                found[name] = _dependency(path, lines, one, [d for d in declared if d is not one])
    return tuple(found.values())


def _dependency(
    path: str, lines: Sequence[Command], fetched: Command, others: Sequence[Command]
) -> Dependency:
    name = fetched.arguments[0]
    revision = _value(lines, fetched.after("GIT_TAG"))
    repository = _value(lines, fetched.after("GIT_REPOSITORY"))
    local = next((one for one in others if one.arguments[0] == name), None)
    variable = _VARIABLE.search((local.after("SOURCE_DIR") or "") if local is not None else "")
    if not revision or not repository or variable is None:
        raise BadInput(
            f"{path}:{fetched.line}: the revision, the repository or the folder variable of {name} "
            "cannot be read",
            hint="this release declares it in a new way; portkit/build/thirdparty.py must learn it",
        )
    return Dependency(name, repository, revision, variable[1], fetched.after("SOURCE_SUBDIR") or "")


def _value(lines: Sequence[Command], word: str | None) -> str:
    values = [value for _, value in resolved(lines, word)] if word else []
    return (
        values[-1] if values and values[-1][:1] not in ("$", "") and values[-1] != "unknown" else ""
    )


def patches_of(patches: Iterable[Patch], name: str) -> tuple[Patch, ...]:
    """The patches of the series for the dependency `name`."""
    return tuple(one for one in patches if one.name.startswith(f"deps/{name}/"))


def provide(
    dependency: Dependency,
    home: Path,
    *,
    patches: Sequence[Patch] = (),
    offline: Path | None = None,
    environ: Mapping[str, str] | None = None,
    events: Events = silent,
) -> Provided:
    """Bring a dependency to the disk, patched; what is there already is left alone.

    Taken from the folder its variable names in `environ`, else from `offline/<name>`, else from
    its repository into `home/<name>`.  A person's folder is never written to: where there are
    patches for it, a copy is made.  Raises `BadInput`, `Unavailable`.
    """
    named = (environ or {}).get(dependency.variable, "")
    if named:
        folder = _outer(Path(named), dependency)
        return _from_folder(dependency, folder, dependency.variable, home, patches)
    if offline is not None:
        folder = offline / dependency.name
        if not folder.is_dir():
            raise BadInput(
                f"{offline} has no folder {dependency.name}",
                hint=f"put {dependency.repository} at {dependency.revision} there, with submodules",
            )
        return _from_folder(dependency, folder, "--deps", home, patches)
    folder = home / dependency.name
    wanted = _recipe(dependency, patches)
    if not _is_done(folder, wanted):
        events(Event(f"fetching {dependency.name}"))
        _clear(folder)
        _fetch(dependency, folder)
        _patch(folder, patches)
        durable.write(folder / _DONE, wanted)
    return _provided(dependency, folder, dependency.repository, patches)


def _outer(folder: Path, dependency: Dependency) -> Path:
    """The repository's folder of the part that a variable names."""
    parts = Path(dependency.inside).parts
    if parts and folder.parts[-len(parts) :] == parts:
        return Path(*folder.parts[: -len(parts)])
    if parts:
        raise BadInput(
            f"{dependency.variable} is {folder}, which does not end in {dependency.inside}",
            hint="name that folder inside a clone of the repository",
        )
    return folder


def _from_folder(
    dependency: Dependency, folder: Path, origin: str, home: Path, patches: Sequence[Patch]
) -> Provided:
    folder = folder.absolute()
    if not folder.is_dir() or next(folder.iterdir(), None) is None:
        raise BadInput(f"{folder} ({origin}, for {dependency.name}) is not a folder with sources")
    _check_revision(dependency, folder)
    if patches:
        copy = home / dependency.name
        wanted = _recipe(dependency, patches) + content(folder).encode()
        if not _is_done(copy, wanted):
            _clear(copy)
            shutil.copytree(
                long_path(folder), long_path(copy), ignore=shutil.ignore_patterns(".git")
            )
            _patch(copy, patches)
            durable.write(copy / _DONE, wanted)
        folder = copy
    return _provided(dependency, folder, origin, patches)


def _provided(
    dependency: Dependency, folder: Path, origin: str, patches: Sequence[Patch]
) -> Provided:
    names = tuple(one.name for one in patches)
    return Provided(dependency, folder, origin, content(folder), names)


def _check_revision(dependency: Dependency, folder: Path) -> None:
    """Refuse a clone that is at another revision than the pin names."""
    if not (folder / ".git").exists():
        return  # an unpacked archive does not say
    head = git("rev-parse", "HEAD", cwd=folder).decode().strip()
    wanted = (
        git(
            "rev-parse",
            "-q",
            "--verify",
            f"{dependency.revision}^{{commit}}",
            cwd=folder,
            ok=(0, 1, 128),
        )
        .decode()
        .strip()
    )
    if head != (wanted or dependency.revision):
        raise BadInput(
            f"{folder} is at {head[:12]}, and the pin names {dependency.name} "
            f"{dependency.revision}",
            hint=f"git -C {folder} checkout {dependency.revision}, then git submodule update",
        )


def _recipe(dependency: Dependency, patches: Sequence[Patch]) -> bytes:
    """What a folder of ours is made of, in a line."""
    total = hashlib.sha256(f"{dependency.repository}\n{dependency.revision}\n".encode())
    for one in patches:
        total.update(repr((one.name, one.change)).encode())
    return f"{dependency.revision} {total.hexdigest()}\n".encode()


def _is_done(folder: Path, wanted: bytes) -> bool:
    try:
        return (folder / _DONE).read_bytes() == wanted
    except OSError:
        return False


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(long_path(folder))


def _fetch(dependency: Dependency, folder: Path) -> None:
    """One commit with its submodules; where only a part is used, only that is checked out.

    A person's git settings count here (proxies, `insteadOf`), unlike for a merge.
    """
    folder.mkdir(parents=True)
    settings = {"GIT_CONFIG_GLOBAL": str(Path.home() / ".gitconfig"), "GIT_CONFIG_NOSYSTEM": "0"}

    def run(*words: str) -> None:
        git(*_GIT, *words, cwd=folder, env=settings)

    try:
        run("init", "--quiet")
        run("config", "core.autocrlf", "false")
        run("config", "core.longpaths", "true")
        filters = []
        if dependency.inside:
            run("sparse-checkout", "set", dependency.inside)
            filters = ["--filter=blob:none"]
        run("remote", "add", "origin", dependency.repository)
        run("fetch", "--quiet", "--depth=1", *filters, "origin", dependency.revision)
        run("checkout", "--quiet", "FETCH_HEAD")
        if not dependency.inside:
            run("submodule", "update", "--init", "--recursive", "--depth=1", "--quiet")
    except Unavailable as error:
        raise Unavailable(
            f"{dependency.name} {dependency.revision} could not be fetched: {error.message}",
            hint=f"check the network, or give the sources as a folder: --deps DIR with "
            f"DIR/{dependency.name}, or {dependency.variable}",
        ) from None


def _patch(folder: Path, patches: Sequence[Patch]) -> None:
    for one in patches:
        change = one.change
        before = (folder / change.old_path).read_bytes() if change.old_path is not None else None
        after = apply_change(change, before)
        if change.old_path is not None and change.old_path != change.new_path:
            (folder / change.old_path).unlink()
        if after is not None:
            target = folder / change.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(after)


def content(folder: Path) -> str:
    """What identifies the sources in a folder, whatever way they came."""
    total = hashlib.sha256()
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    for path in sorted(files, key=lambda one: one.relative_to(folder).as_posix()):
        if path.name != _DONE:
            name = path.relative_to(folder).as_posix()
            total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()} {name}\n".encode())
    return f"sha256:{total.hexdigest()}"
