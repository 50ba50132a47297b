"""The six patched Python files, run as Windows would run them.

Each test executes a whole file of the tree, with `sys.platform` saying
`win32`, the modules Windows lacks missing, and everything that is not in the
standard library replaced by stand-ins. The unpatched file fails the same way
as it does for a Windows user; the patched one must work.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import errno
import importlib
import os
import socket
import struct
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from portkit.audit import pyfold

CAPTURER = "vllm/model_executor/layers/fused_moe/routed_experts_capturer.py"
NETWORK = "vllm/utils/network_utils.py"
SYSTEM = "vllm/utils/system_utils.py"
CLIENT = "vllm/v1/engine/core_client.py"
PARALLEL = "vllm/distributed/parallel_state.py"
SERVER = "vllm/entrypoints/openai/api_server.py"
FILES = (CAPTURER, NETWORK, SYSTEM, CLIENT, PARALLEL, SERVER)

NOT_ON_WINDOWS = frozenset({"fcntl", "resource", "uvloop"})

Namespace = dict[str, Any]
Modules = dict[str, types.ModuleType]


class Proxy(types.ModuleType):
    """A module seen through: some names changed, some missing."""

    def __init__(self, module: Any, missing: Sequence[str] = (), **changed: Any) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(changed)
        self.__dict__["_behind"] = (module, frozenset(missing))

    def __getattr__(self, name: str) -> Any:
        module, missing = self.__dict__["_behind"]
        if name in missing:
            raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
        return getattr(module, name)


class StandIn(types.ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__version__":
            raise AttributeError(name)
        value = MagicMock(name=f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


class Imports:
    """The import statement of one file.

    The standard library is real, save what the platform lacks; `modules` are
    given; any other module becomes a stand-in and is added to them.
    """

    def __init__(self, platform: str, modules: Modules, real: frozenset[str]) -> None:
        self.missing = NOT_ON_WINDOWS if platform == "win32" else frozenset()
        self.real = real | sys.stdlib_module_names
        self.modules = modules
        modules["sys"] = Proxy(sys, platform=platform)

    def _module(self, name: str) -> types.ModuleType:
        if name not in self.modules:
            self.modules[name] = StandIn(name)
            parent, _, last = name.rpartition(".")
            if parent:
                setattr(self._module(parent), last, self.modules[name])
        return self.modules[name]

    def __call__(
        self,
        name: str,
        globals_: Namespace | None = None,
        locals_: Namespace | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> types.ModuleType:
        name = "." * level + name if level else name
        root = name.partition(".")[0]
        if name not in self.modules:
            if root in self.missing:
                raise ModuleNotFoundError(f"No module named {root!r}", name=root)
            if root in self.real:
                return __import__(name, globals_, locals_, fromlist, level)
        module = self._module(name)
        return module if fromlist or level else self._module(root)


def load(
    tree: Path,
    name: str,
    platform: str = "win32",
    modules: Modules | None = None,
    real: Sequence[str] = (),
) -> Namespace:
    """Execute a file of a tree as on the named platform; its global names."""
    imports = Imports(platform, {} if modules is None else modules, frozenset(real))
    scope: Namespace = {
        "__name__": __name__,  # dataclasses look it up
        "__builtins__": {**vars(builtins), "__import__": imports},
    }
    # Annotations stay text: those of stand-ins need not evaluate.
    flags = __future__.annotations.compiler_flag
    source = (tree / name).read_bytes()
    exec(compile(source, name, "exec", flags, dont_inherit=True), scope)
    return scope


# --- not Windows: the same program ------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_elsewhere_the_program_is_upstreams(
    pristine_tree: Path, patched_tree: Path, name: str
) -> None:
    upstream, patched = (pristine_tree / name).read_bytes(), (patched_tree / name).read_bytes()
    assert ast.dump(ast.parse(patched)) != ast.dump(ast.parse(upstream))
    pyfold.compare(upstream, patched)


@pytest.mark.parametrize("name", FILES)
def test_patched_file_loads_without_unix_modules(patched_tree: Path, name: str) -> None:
    modules = {"msvcrt": types.ModuleType("msvcrt")}
    assert load(patched_tree, name, modules=modules)["sys"].platform == "win32"


@pytest.mark.parametrize(("name", "module"), [(CAPTURER, "fcntl"), (SERVER, "uvloop")])
def test_unpatched_file_does_not_load(pristine_tree: Path, name: str, module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=module):
        load(pristine_tree, name)


# --- the lock of the routed experts -----------------------------------------


def _msvcrt() -> Any:
    """msvcrt.locking over locks that belong, as on Windows, to the open file.

    Linux' open file description locks are byte ranges from the file position
    too; the rest is what the C runtime adds.
    """
    if sys.platform == "win32":
        return importlib.import_module("msvcrt")
    fcntl = pytest.importorskip("fcntl")
    if not hasattr(fcntl, "F_OFD_SETLK"):
        pytest.skip("no open file description locks")
    held: dict[int, tuple[int, int]] = {}
    module: Any = types.ModuleType("msvcrt")
    module.LK_UNLCK, module.LK_LOCK, module.LK_NBLCK = 0, 1, 2

    def set_lock(fd: int, kind: int, nbytes: int) -> None:
        start = os.lseek(fd, 0, os.SEEK_CUR)
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, nbytes, 0)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)

    def locking(fd: int, mode: int, nbytes: int) -> None:
        region = (os.lseek(fd, 0, os.SEEK_CUR), nbytes)
        if mode == module.LK_UNLCK:
            if held.pop(fd, None) != region:
                raise PermissionError(errno.EACCES, "Permission denied")
            set_lock(fd, fcntl.F_UNLCK, nbytes)
            return
        for _ in range(10 if mode == module.LK_LOCK else 1):
            try:
                set_lock(fd, fcntl.F_WRLCK, nbytes)
            except OSError:
                continue
            held[fd] = region
            return
        if mode == module.LK_LOCK:
            raise OSError(errno.EDEADLK, "Resource deadlock avoided")
        raise PermissionError(errno.EACCES, "Permission denied")

    module.locking, module.held = locking, held
    return module


FileLock = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def file_lock(patched_tree: Path) -> FileLock:
    lock: FileLock = load(patched_tree, CAPTURER, modules={"msvcrt": _msvcrt()})["_file_lock"]
    return lock


def test_file_lock_excludes_other_handles(file_lock: FileLock, tmp_path: Path) -> None:
    path = tmp_path / "vllm routed experts.lock"
    path.write_bytes(b"")
    inside = most = rounds = 0
    failures: list[BaseException] = []

    def work(mode: str) -> None:
        nonlocal inside, most, rounds
        try:
            for _ in range(20):
                with file_lock(str(path), mode):
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.0005)
                    rounds += 1
                    inside -= 1
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(mode,)) for mode in ("wb+", "rb+") * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (failures, most, rounds) == ([], 1, 80)


def test_file_lock_waits_as_long_as_it_takes(file_lock: FileLock, tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    order: list[str] = []

    def wait() -> None:
        with file_lock(path, "rb+"):
            order.append("waiter")

    with file_lock(path):
        waiter = threading.Thread(target=wait)
        waiter.start()
        waiter.join(0.3)
        assert waiter.is_alive()
        order.append("holder")
    waiter.join(10)
    assert order == ["holder", "waiter"]


def test_file_lock_is_released_by_an_exception(patched_tree: Path, tmp_path: Path) -> None:
    msvcrt = _msvcrt()
    file_lock = load(patched_tree, CAPTURER, modules={"msvcrt": msvcrt})["_file_lock"]
    path = str(tmp_path / "lock")
    with pytest.raises(ZeroDivisionError), file_lock(path):
        raise ZeroDivisionError
    # Unlocked, not left for the system to unlock some time after the close.
    assert not getattr(msvcrt, "held", {})
    with file_lock(path, "rb+"):
        pass


# --- addresses ----------------------------------------------------------------


def test_zmq_address_is_a_free_loopback_port(pristine_tree: Path, patched_tree: Path) -> None:
    assert load(pristine_tree, NETWORK)["get_open_zmq_ipc_path"]().startswith("ipc://")
    scope = load(patched_tree, NETWORK)
    scope["envs"].VLLM_PORT = 5000
    addresses = [scope["get_open_zmq_ipc_path"]() for _ in range(4)]
    # All are asked for before one is bound: a fixed first port would repeat.
    assert len(set(addresses)) > 1
    for address in set(addresses):
        scheme, _, rest = address.partition("://")
        host, port = scope["split_host_port"](rest)
        assert (scheme, host) == ("tcp", "127.0.0.1")
        with socket.socket() as listener:
            listener.bind((host, port))


def test_zmq_address_elsewhere_stays_ipc(patched_tree: Path) -> None:
    scope = load(patched_tree, NETWORK, platform="linux")
    scope["envs"].VLLM_RPC_BASE_PATH = "/run/vllm"
    assert scope["get_open_zmq_ipc_path"]().startswith("ipc:///run/vllm/")


# --- processes ------------------------------------------------------------------


def _mp_context(tree: Path, platform: str) -> str:
    """The start method chosen where only spawn exists and VLLM's variable is unset."""

    def get_context(method: str) -> str:
        if method != "spawn":
            raise ValueError(f"cannot find context for {method!r}")
        return method

    scope = load(tree, SYSTEM, platform)
    scope["multiprocessing"] = Proxy(scope["multiprocessing"], get_context=get_context)
    for question in ("cuda_is_initialized", "xpu_is_initialized", "is_in_ray_actor"):
        scope[question] = lambda: False
    # The answer of envs' cache, whatever os.environ says by then.
    scope["envs"].VLLM_WORKER_MULTIPROC_METHOD = "fork"
    method = str(scope["get_mp_context"]())
    assert not scope["logger"].warning.called
    return method


def test_processes_are_spawned(
    pristine_tree: Path, patched_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_WORKER_MULTIPROC_METHOD", raising=False)
    assert _mp_context(patched_tree, "win32") == "spawn"
    for tree, platform in ((pristine_tree, "win32"), (patched_tree, "linux")):
        with pytest.raises(ValueError, match="fork"):
            _mp_context(tree, platform)


class _NoSuchProcess(Exception):
    pass


def _process_table() -> tuple[Any, list[int]]:
    """A psutil with process 1, its children 2 and 3, of which 2 has just ended."""
    killed: list[int] = []

    class Process:
        def __init__(self, pid: int) -> None:
            self.pid = pid

        def children(self, recursive: bool = False) -> list[Process]:
            assert recursive
            return [Process(2), Process(3)]

        def kill(self) -> None:
            if self.pid == 2:
                raise _NoSuchProcess
            killed.append(self.pid)

    psutil: Any = types.ModuleType("psutil")
    psutil.Process, psutil.NoSuchProcess = Process, _NoSuchProcess
    return psutil, killed


def test_process_tree_is_killed_without_sigkill(pristine_tree: Path, patched_tree: Path) -> None:
    def prepare(tree: Path) -> tuple[Namespace, list[int]]:
        psutil, killed = _process_table()
        scope = load(tree, SYSTEM, modules={"psutil": psutil})
        scope["signal"] = Proxy(scope["signal"], missing=("SIGKILL",))
        scope["os"] = Proxy(os, kill=MagicMock(side_effect=OSError(22, "WinError 87")))
        return scope, killed

    scope, _ = prepare(pristine_tree)
    with pytest.raises(AttributeError, match="SIGKILL"):
        scope["kill_process_tree"](1)
    scope, killed = prepare(patched_tree)
    scope["kill_process_tree"](1)
    assert killed == [3, 1]


# --- the engine's clients ---------------------------------------------------------


def _clients(scope: Namespace) -> tuple[str, str, str]:
    """What make_client makes: default, in process, asynchronous."""
    for name in ("InprocClient", "SyncMPClient", "AsyncMPClient"):
        scope[name] = lambda *args, name=name: name
    config = MagicMock()
    config.parallel_config.data_parallel_size = 1

    def make(multiprocess: bool, asyncio: bool) -> str:
        client = scope["EngineCoreClient"].make_client
        return str(client(multiprocess, asyncio, config, object, False))

    try:
        asynchronous = make(True, True)
    except NotImplementedError as refusal:
        asynchronous = f"refused: {refusal}"
    return make(True, False), make(False, False), asynchronous


def test_synchronous_client_is_in_process(patched_tree: Path) -> None:
    default, in_process, asynchronous = _clients(load(patched_tree, CLIENT))
    assert (default, in_process) == ("InprocClient", "InprocClient")
    assert asynchronous.startswith("refused: ")
    assert "Windows" in asynchronous


@pytest.mark.parametrize("tree", ["pristine_tree", "patched_tree"])
def test_clients_elsewhere_are_upstreams(request: pytest.FixtureRequest, tree: str) -> None:
    scope = load(request.getfixturevalue(tree), CLIENT, platform="linux")
    assert _clients(scope) == ("SyncMPClient", "InprocClient", "AsyncMPClient")


def test_async_client_can_be_replaced(patched_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = load(patched_tree, CLIENT)
    client = scope["EngineCoreClient"]
    monkeypatch.setattr(client, "make_async_mp_client", lambda *args: "in-thread")
    assert _clients(scope)[2] == "in-thread"


# --- process groups ---------------------------------------------------------------


class _WindowsDistributed(types.ModuleType):
    """torch.distributed of a Windows build, as far as one rank sees it."""

    def __init__(self, plugins: set[str]) -> None:
        super().__init__("torch.distributed")
        self.plugins = plugins
        self.default: tuple[str, int, int] | None = None
        self.ProcessGroup = type("ProcessGroup", (), {})
        self.Backend = types.SimpleNamespace(NCCL="nccl", GLOO="gloo")
        self.barriers: list[object] = []

    def _check(self, backend: str) -> None:
        if backend == "gloo":
            raise RuntimeError("makeDeviceForHostname(): unsupported gloo device")
        if backend == "nccl":
            raise RuntimeError("Distributed package doesn't have NCCL built in")
        assert backend in self.plugins, f"Unknown c10d backend type {backend.upper()}"

    def is_initialized(self) -> bool:
        return self.default is not None

    def is_backend_available(self, backend: str) -> bool:
        return backend == "gloo" or backend in self.plugins

    def is_gloo_available(self) -> bool:
        return True

    def init_process_group(self, backend: str, **options: Any) -> None:
        assert self.default is None, "trying to initialize the default process group twice!"
        self._check(backend)
        self.default = (backend, options["rank"], options["world_size"])

    def new_group(self, ranks: list[int], backend: str) -> Any:
        self._check(backend)
        group = self.ProcessGroup()
        group.backend, group.ranks = backend, ranks
        return group

    def get_backend(self, group: Any = None) -> str:
        return str(group.backend if group else (self.default or ("",))[0])

    def get_rank(self, group: Any = None) -> int:
        assert self.default
        return self.default[1]

    def get_world_size(self, group: Any = None) -> int:
        assert self.default
        return len(group.ranks) if group else self.default[2]

    def barrier(self, group: Any) -> None:
        self.barriers.append(group)

    def destroy_process_group(self, group: Any = None) -> None:
        if group is None:
            self.default = None


def _parallel_state(tree: Path, torch: str = "stand-in") -> Namespace:
    modules: Modules = {}
    real: tuple[str, ...] = ()
    if torch == "real":
        pytest.importorskip("torch.distributed")
        real = ("torch",)
    else:
        fake_pg: Any = types.ModuleType("torch.testing._internal.distributed.fake_pg")
        fake_pg.FakeStore = object
        distributed = _WindowsDistributed({"fake"})
        root: Any = StandIn("torch")
        root.distributed = distributed
        modules = {m.__name__: m for m in (root, distributed, fake_pg)}
    scope = load(tree, PARALLEL, modules=modules, real=real)
    config: Any = StandIn("vllm.config")
    config.get_current_vllm_config_or_none = lambda: None
    platforms: Any = StandIn("vllm.platforms")
    for kind in ("cuda_alike", "xpu", "out_of_tree", "tpu", "cpu"):
        getattr(platforms.current_platform, f"is_{kind}").return_value = False
    modules |= {"vllm.config": config, "vllm.platforms": platforms}
    scope["suppress_stdout"] = nullcontext
    scope["supports_custom_op"] = lambda: False
    return scope


@pytest.fixture(params=["stand-in", "real"])
def torch_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _start(scope: Namespace, world_size: int = 1) -> None:
    scope["init_distributed_environment"](
        world_size=world_size,
        rank=0,
        distributed_init_method="tcp://127.0.0.1:1",
        local_rank=0,
        backend="nccl",
    )


def test_one_rank_needs_no_transport(patched_tree: Path, torch_kind: str) -> None:
    scope = _parallel_state(patched_tree, torch_kind)
    distributed = scope["torch"].distributed
    try:
        _start(scope)
        _start(scope)  # again: nothing to do
        if torch_kind == "real":
            scope["initialize_model_parallel"]()
            groups = [scope[name] for name in ("_WORLD", "_TP", "_DCP", "_PCP", "_PP", "_DP")]
        else:
            make = scope["init_model_parallel_group"]
            groups = [scope["_WORLD"], make([[0]], 0, "fake", group_name="tp")]
        tensor = scope["torch"].ones(4)
        for group in groups:
            assert (group.rank, group.world_size, group.rank_in_group) == (0, 1, 0)
            assert group.is_first_rank
            assert group.is_last_rank
            backends = {distributed.get_backend(g) for g in (group.cpu_group, group.device_group)}
            assert backends == {"fake"}
            group.barrier()
            for operation in ("all_reduce", "all_gather", "reduce_scatter", "gather", "broadcast"):
                assert getattr(group, operation)(tensor) is tensor
            assert group.broadcast_object({"a": 1}) == {"a": 1}
            assert group.broadcast_tensor_dict({"t": tensor}) == {"t": tensor}
        assert scope["get_node_count"]() == 1
        assert scope["is_global_first_rank"]()
        assert scope["is_local_first_rank"]()
    finally:
        scope["destroy_model_parallel"]()
        scope["destroy_distributed_environment"]()
    assert not distributed.is_initialized()


def test_unpatched_group_fails_for_want_of_a_transport(pristine_tree: Path) -> None:
    scope = _parallel_state(pristine_tree)
    with pytest.raises(RuntimeError, match="unsupported gloo device"):
        _start(scope)


def test_several_ranks_are_refused(patched_tree: Path) -> None:
    scope = _parallel_state(patched_tree)
    with pytest.raises(RuntimeError, match=r"single GPU.*world_size=2"):
        _start(scope, world_size=2)
    assert not scope["torch"].distributed.is_initialized()


# --- the server's socket ------------------------------------------------------------


def _windows_socket(scope: Namespace) -> dict[int, int]:
    """Give the file a Windows socket module; returns the options set through it."""
    options: dict[int, int] = {}

    class Socket(socket.socket):
        def setsockopt(self, level: int, option: int, value: Any) -> None:  # type: ignore[override]
            assert level == socket.SOL_SOCKET
            options[option] = value

    exclusive = ~socket.SO_REUSEADDR
    scope["socket"] = Proxy(
        socket,
        missing=("SO_REUSEPORT", "AF_UNIX"),
        socket=Socket,
        SO_EXCLUSIVEADDRUSE=exclusive,
    )
    scope["is_valid_ipv6_address"] = lambda address: False
    return options


def test_server_socket_without_reuse_port(pristine_tree: Path, patched_tree: Path) -> None:
    scope = load(pristine_tree, SERVER, modules={"uvloop": types.ModuleType("uvloop")})
    _windows_socket(scope)
    with pytest.raises(AttributeError, match="SO_REUSEPORT"):
        scope["create_server_socket"](("127.0.0.1", 0))
    scope = load(patched_tree, SERVER)
    options = _windows_socket(scope)
    with scope["create_server_socket"](("127.0.0.1", 0)) as sock:
        assert sock.getsockname()[1] > 0
    # SO_REUSEADDR would hand the port to whoever asks for it next.
    assert options == {~socket.SO_REUSEADDR: 1}


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="a Unix socket option")
def test_server_socket_elsewhere_is_upstreams(patched_tree: Path) -> None:
    scope = load(patched_tree, SERVER, platform="linux")
    scope["is_valid_ipv6_address"] = lambda address: False
    with scope["create_server_socket"](("127.0.0.1", 0)) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_server_runs_on_asyncio(patched_tree: Path) -> None:
    scope = load(patched_tree, SERVER)

    async def serve() -> str:
        return "served"

    assert scope["uvloop"].run(serve()) == "served"
