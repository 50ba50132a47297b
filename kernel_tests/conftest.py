"""`pytest kernel_tests`: options, a marker for each kernel and arch, the fixtures of the cases."""

from __future__ import annotations

import importlib.util
import json
import secrets
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT)]

from kernel_tests import run as kernel_run  # noqa: E402
from portkit.errors import PortError  # noqa: E402
from portkit.kernels import manifest as kernelmanifest  # noqa: E402

if TYPE_CHECKING:
    from kernel_tests.bench import Bench, Check

MANIFEST = kernelmanifest.load(ROOT)
_HAS_TORCH = importlib.util.find_spec("torch") is not None
collect_ignore_glob = [] if _HAS_TORCH else ["cases/*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kernels")
    group.addoption("--against", choices=("build", "installed"), default="build")
    group.addoption("--archs", default="native", help="native, or 9.0,… to build for")
    group.addoption("--kernels", default="", help="names of the manifest, with commas")
    group.addoption("--trees", type=Path, help="prepared source, for a machine without network")
    group.addoption("--cache", type=Path, help="where objects and libraries are kept")
    group.addoption("--jobs", type=int, help="compilers at a time")
    group.addoption("--seed", type=int, help="repeat a run's inputs")
    group.addoption("--measure", action="store_true", help="time both builds")
    group.addoption("--libraries", type=Path, help="JSON of libraries that are built already")
    group.addoption("--small", type=int, default=0, help="at most so many cases of each test")
    group.addoption("--records", type=Path, help="write what each case found, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    for name, kernel in MANIFEST.kernels.items():
        config.addinivalue_line("markers", f"{name}: {kernel.about}")
        for arch in kernel.archs:
            config.addinivalue_line(
                "markers", f"{_arch_marker(arch)}: upstream builds it for {arch}"
            )
    config.addinivalue_line("markers", "every_arch: upstream builds it for every arch")
    if config.option.seed is None:
        config.option.seed = secrets.randbelow(2**31)


def pytest_report_header(config: pytest.Config) -> str:
    return f"kernels: against {config.option.against}, --seed {config.option.seed}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = kernel_run.selected(MANIFEST, config.option.kernels)
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    skip = _no_gpu()
    for item in items:
        name = _kernel_of(item)
        kernel = MANIFEST.kernels[name]
        item.add_marker(name)
        for marker in map(_arch_marker, kernel.archs) if kernel.archs else ("every_arch",):
            item.add_marker(marker)
        if skip:
            item.add_marker(pytest.mark.skip(reason=skip))
        (kept if name in asked else left).append(item)
    if config.option.small:
        kept, more = kernel_run.thinned(kept, config.option.small)
        left += more
    items[:] = kept
    if left:
        config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def extensions(request: pytest.FixtureRequest) -> Any:
    """The libraries under test, built on first use."""
    option = request.config.option
    names = sorted({_kernel_of(item) for item in request.session.items})
    try:
        return kernel_run.extensions(ROOT, MANIFEST, names, option)
    except PortError as error:
        pytest.exit(f"{error.message}; {error.hint}", returncode=int(error.exit_code))


@pytest.fixture
def modules(request: pytest.FixtureRequest, extensions: Any) -> tuple[ModuleType | None, ...]:
    """The loaded sides of the case's kernel: patched, then upstream's where there is one."""
    name = _kernel_of(request.node)
    try:
        loaded: tuple[ModuleType | None, ...] = extensions.load(name, MANIFEST.kernels[name])
    except PortError as error:
        pytest.fail(error.message, pytrace=False)
    return loaded


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, modules: tuple[ModuleType | None, ...], extensions: Any
) -> Bench:
    """The case's own `Bench`, on the first GPU."""
    import torch  # noqa: PLC0415

    from kernel_tests.bench import Bench  # noqa: PLC0415

    option = request.config.option
    seed = zlib.crc32(f"{option.seed} {request.node.nodeid.partition('::')[2]}".encode())
    made = Bench(
        torch.device("cuda", 0), seed, extensions.sides[: len(modules)], measure=option.measure
    )
    request.node.stash[_BENCH] = made
    return made


_BENCH: pytest.StashKey[Any] = pytest.StashKey()
_RECORDS: pytest.StashKey[list[dict[str, Any]]] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" and report.outcome == "passed":
        return
    found = item.stash.get(_BENCH, None)
    record = {
        "case": item.nodeid.rpartition("/")[2],
        "kernel": _kernel_of(item),
        "outcome": "passed" if report.outcome == "passed" else report.outcome,
        "seconds": round(report.duration, 4),
        "message": _message(report),
        "checks": _worst(found.checks) if found else [],
        "timings": [vars(timing) for timing in found.timings] if found else [],
    }
    item.session.stash.setdefault(_RECORDS, []).append(record)


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.option.records
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "seed": session.config.option.seed,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "cases": session.stash.get(_RECORDS, []),
        }
        file.write_text(json.dumps(data, indent=1) + "\n", "utf-8")


def _worst(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The worst of the checks with the same words."""
    worst: dict[str, Check] = {}
    for check in checks:
        if check.what not in worst or check.error > worst[check.what].error:
            worst[check.what] = check
    return [vars(check) for check in worst.values()]


def _message(report: pytest.TestReport) -> str:
    if report.outcome == "passed":
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr)).partition("\n")[0]


def _kernel_of(item: pytest.Item) -> str:
    """The kernel that the item's file tests."""
    file = item.path.name
    for name, kernel in MANIFEST.kernels.items():
        if kernel.cases == file:
            return name
    raise pytest.UsageError(f"{file} tests no kernel of {kernelmanifest.MANIFEST_FILE}")


def _arch_marker(arch: str) -> str:
    return f"sm_{arch.replace('.', '')}"


def _no_gpu() -> str:
    """Why no case can run here, or the empty string."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return "no CUDA GPU: python -m kernel_tests --compile-only checks that everything compiles"
    return ""
