"""`ci/matrix.toml`: what CI is asked to cover, checked on read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tomli
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from portkit.errors import BadFile

PLAN_FILE = "ci/matrix.toml"

_Dotted = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


def _distinct(values: list[str]) -> list[str]:
    twice = next((one for one in values if values.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice")
    return values


_Distinct = AfterValidator(_distinct)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Toolkit(_Table):
    """The CUDA release CI installs for a toolkit version, and what it is installed from."""

    release: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    source: Literal["redist", "wheels"] = Field(alias="from")


class System(_Table):
    """The label of the hosted runner."""

    runner: str


class Gpu(_Table):
    """The labels every GPU runner has, and the toolkit the kernels are built with there."""

    labels: Annotated[list[str], _Distinct]
    toolkit: _Dotted


class Redist(_Table):
    """NVIDIA's archives: the folder of the manifests, and the components a build needs."""

    url: Annotated[str, Field(pattern=r"^https?://.*/$")]
    components: Annotated[list[str], _Distinct]


class Wheels(_Table):
    """The package whose extras are the components of a toolkit."""

    package: str
    extras: Annotated[list[str], _Distinct]


class Plan(_Table):
    """All of `ci/matrix.toml`."""

    architectures: Annotated[list[_Dotted], _Distinct]
    pythons: Annotated[list[_Dotted], _Distinct]
    toolkits: dict[_Dotted, Toolkit]
    systems: dict[Literal["linux", "windows"], System]
    gpu: Gpu
    torch: dict[_Dotted, list[_Dotted]]
    redist: Redist
    wheels: Wheels


def read(root: Path) -> Plan:
    """The plan of the repository at `root`; raises `BadFile` naming the key that is wrong."""
    file = root / PLAN_FILE
    if not file.is_file():
        raise BadFile(PLAN_FILE, None, "is missing", hint="run from a clone of the repository")
    try:
        plan = Plan.model_validate(tomli.loads(file.read_text("utf-8")))
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadFile(PLAN_FILE, None, f"is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise BadFile(PLAN_FILE, None, f"{key}: {first['msg']}") from error
    if plan.gpu.toolkit not in plan.toolkits:
        raise BadFile(PLAN_FILE, None, f"gpu.toolkit: {plan.gpu.toolkit} is none of the toolkits")
    return plan
