"""What a doctor says beyond a build's own checks: driver, installed vllm, its settings, a model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from portkit.build.catalogue import recognise_all
from portkit.build.examine import Findings
from portkit.build.failure import failures
from portkit.build.kvcache import Fit, Model
from portkit.build.machine import Machine
from portkit.build.pinned import Pinned
from portkit.build.toolchain import GIB
from portkit.build.words import Check, Status, fail, info, ok, some, warn

# The oldest driver branch for each major version of CUDA, in NVIDIA's release notes.
_DRIVERS = {11: 450, 12: 525, 13: 580}
# What only a build needs; without it an installed vllm still runs.
BUILD_ONLY = frozenset(
    ("build packages", "toolkits", "toolkit", "compiler", "architectures", "jobs", "git", "disk",
     "paths", "letters", "slow folder", "virus scanner", "compiler cache")
)  # fmt: skip


def running(machine: Machine, found: Findings, pinned: Pinned) -> Iterator[Check]:
    """The checks of what an installed vllm needs to run."""
    yield from _driver(found)
    yield from _vllm(found, pinned)
    yield from _settings(machine, found)


def _driver(found: Findings) -> Iterator[Check]:
    torch = found.target.torch if found.target is not None else None
    release = torch.cuda_release if torch is not None else None
    for gpu in found.gpus[:1]:
        needed = _DRIVERS.get(release[0], 0) if release is not None else 0
        try:
            branch = Version(gpu.driver).major
        except InvalidVersion:
            branch = needed
        if branch < needed:
            yield fail(
                "driver",
                f"{gpu.driver}, and CUDA {torch.cuda if torch else ''} needs {needed} or newer",
                "install a newer driver from NVIDIA, and restart",
            )
        else:
            yield ok("driver", gpu.driver)
        if torch is not None and not torch.error and torch.cuda is not None and not torch.gpu:
            yield fail(
                "torch's GPU",
                "torch does not see the GPU that nvidia-smi lists",
                "look at CUDA_VISIBLE_DEVICES; else reinstall the driver",
            )


def _vllm(found: Findings, pinned: Pinned) -> Iterator[Check]:
    target = found.target
    if target is None:
        return
    if target.vllm is None:
        yield info("vllm", "not installed in this Python")
        return
    broken = {name: error for name, error in target.modules.items() if error}
    ours = target.platform.startswith("win") and not target.vllm.endswith(".win")
    for name, error in broken.items():
        known = recognise_all([error])
        remedy = known[0].known.remedy if known else "install the wheel again"
        yield fail("vllm", f"{target.vllm}: {name} does not load: {error}", remedy)
    if not target.modules:
        yield fail(
            "vllm", f"{target.vllm} has no compiled modules", "install the wheel of this project"
        )
    elif ours:
        yield warn(
            "vllm",
            f"{target.vllm} is not this project's build for Windows",
            "the versions of its wheels end in .win",
        )
    elif not broken:
        told = f"{len(target.modules)} compiled modules load"
        if Version(target.vllm).public != pinned.version:
            told += f"; the pin is {pinned.version}"
        yield ok("vllm", f"{target.vllm}, {told}")


def _settings(machine: Machine, found: Findings) -> Iterator[Check]:
    if not machine.windows or found.target is None or found.target.vllm is None:
        return
    wanted = {"VLLM_ATTENTION_BACKEND": "FLASH_ATTN", "VLLM_HOST_IP": "127.0.0.1"}
    other = [
        f"{name}={value}" for name, value in wanted.items() if machine.environ.get(name) != value
    ]
    if other:
        yield warn(
            "settings",
            f"not set: {some(other)}",
            "the launcher sets them; so do it for scripts of your own",
        )
    else:
        yield ok("settings", some(f"{name}={value}" for name, value in wanted.items()))


def log_checks(text: str) -> list[Check]:
    """What is known of the failures in a log, one line each; else its first errors."""
    known = recognise_all(text.splitlines())
    if known:
        return [
            fail(f"line {one.line + 1}", f"{one.known.title}: {_short(one.text)}",
                 f"{one.known.cause} {one.known.remedy}")
            for one in known
        ]  # fmt: skip
    found = failures(text)
    if found:
        return [
            warn(
                f"line {one.line}",
                _short(one.error),
                "not in the catalogue: report it with this log",
            )
            for one in found[:5]
        ]
    return [ok("log", "no failure that is known, and no error")]


def _short(text: str, limit: int = 160) -> str:
    plain = re.sub(r"\s+", " ", text).strip()
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def model_check(model: Model, fit: Fit, card: str, free: int | None) -> Check:
    """The KV-cache arithmetic in a sentence; `free` bytes of the card, where that is known."""
    said = (
        f"{model.name} on {card}: {fit.requested / GIB:.1f} GiB asked for = weights "
        f"{fit.weights / GIB:.1f} + about {fit.overhead / GIB:.1f} for CUDA and activations "
        f"+ cache {fit.cache / GIB:.1f}, which is {fit.blocks} blocks of {fit.page} bytes in each "
        f"of {model.layers} layers = {fit.tokens} tokens"
    )
    if fit.blocks == 0:
        return fail(
            "model", f"{said}: no cache", "a larger --gpu-memory-utilization, or a smaller model"
        )
    if fit.tokens < fit.per_request:
        return fail(
            "model",
            f"{said}, less than one request of {fit.context}",
            f"--max-model-len {fit.tokens} or less, or a larger --gpu-memory-utilization",
        )
    if free is not None and fit.requested > free:
        return fail(
            "model",
            f"{said}; but only {free / GIB:.1f} GiB of the card are free",
            "close other programs that use the GPU, or lower --gpu-memory-utilization",
        )
    return ok("model", f"{said}, {fit.concurrency:.1f} requests of {fit.context} at once")


def for_running(checks: list[Check]) -> list[Check]:
    """The checks for someone who runs an installed vllm: what only a build lacks is no failure."""
    return [
        Check(one.name, Status.WARN, f"{one.said} (only to build)", one.remedy)
        if one.status is Status.FAIL and one.name in BUILD_ONLY
        else one
        for one in checks
    ]
