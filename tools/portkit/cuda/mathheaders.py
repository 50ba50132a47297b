"""Headers of the CUDA math libraries, where the toolkit was installed without them.

torch's headers include those of cuBLAS, cuSPARSE and others, which a toolkit made of wheels (or a
small installation) lacks.  The `cuda-toolkit` package of the index says which version of each
library belongs to a toolkit; its headers are fetched like torch's.
"""

from __future__ import annotations

import email
import io
import json
import re
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from portkit.change import durable
from portkit.cuda.toolkits import Toolkit
from portkit.cuda.wheelheaders import Headers, Wanted, obtain
from portkit.errors import Unavailable
from portkit.model import Events, silent
from portkit.upstream.cache import Cache
from portkit.upstream.index import Index, IndexFile, wheel_tags

# The library and a header that shows whether the toolkit has it.
_LIBRARIES = {
    "cublas": "cublas_v2.h",
    "curand": "curand.h",
    "cusolver": "cusolverDn.h",
    "cusparse": "cusparse.h",
}


def math_headers(
    toolkit: Toolkit, *, cache: Cache | None = None, events: Events = silent
) -> tuple[Headers, ...]:
    """Headers of the libraries that `toolkit` lacks, in the version that belongs to it.

    Raises `Unavailable` when the index does not serve or does not know the toolkit.
    """
    missing = [name for name, file in _LIBRARIES.items() if not (toolkit.include / file).is_file()]
    if not missing:
        return ()
    release = f"{toolkit.version.major}.{toolkit.version.minor}"
    versions = _versions(release, Cache.at(cache).path / "headers" / f"cuda-{release}.json")
    suffix = "" if toolkit.version.major >= 13 else f"-cu{toolkit.version.major}"
    wanted = (
        Wanted(
            f"nvidia-{name}{suffix}",
            versions[name],
            (f"nvidia/cu{toolkit.version.major}/include/", f"nvidia/{name}/include/"),
            _is_for_linux,
        )
        for name in missing
    )
    return tuple(obtain(one, cache=cache, events=events) for one in wanted)


def math_includes(headers: Headers) -> tuple[Path, ...]:
    """The include folder of one library's unpacked headers."""
    return tuple(sorted((headers.root / "nvidia").glob("*/include")))


def _versions(release: str, kept: Path) -> dict[str, str]:
    """The version of each library for a toolkit release (`13.0`), remembered in `kept`."""
    try:
        known = json.loads(kept.read_bytes())
        if set(known) == set(_LIBRARIES):
            return {str(name): str(version) for name, version in known.items()}
    except (OSError, ValueError, TypeError):
        pass
    found = _published(release)
    durable.put(kept, json.dumps(found, indent=2).encode() + b"\n")
    return found


def _published(release: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for requirement in _requirements(release):
        library = re.fullmatch(r"nvidia-(\w+?)(-cu\d+)?", requirement.name)
        if library is None or library[1] not in _LIBRARIES:
            continue
        with Index.configured(requirement.name) as index:
            versions = sorted(requirement.specifier.filter(index.versions))
        if versions:
            found[library[1]] = str(versions[-1])
    if set(found) != set(_LIBRARIES):
        lacking = ", ".join(sorted(set(_LIBRARIES) - set(found)))
        raise Unavailable(
            f"the package index names no {lacking} for CUDA {release}",
            hint="install the math libraries of the toolkit, with their headers",
        )
    return found


def _requirements(release: str) -> list[Requirement]:
    """What the newest `cuda-toolkit` package of a release is made of."""
    with Index.configured("cuda-toolkit") as index:
        fitting = [v for v in index.versions if f"{v.major}.{v.minor}" == release]
        wheel = next(iter(index.wheels(max(fitting))), None) if fitting else None
        data = index.read_range(wheel, 0, wheel.size) if wheel and wheel.size else None
    if wheel is None or data is None:
        raise Unavailable(
            f"the package index has no cuda-toolkit {release}",
            hint="install the math libraries of the toolkit, with their headers",
        )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def _is_for_linux(wheel: IndexFile) -> bool:
    return any(
        "linux" in tag.platform and "x86_64" in tag.platform for tag in wheel_tags(wheel.name)
    )
