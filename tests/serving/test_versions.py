"""What the launcher takes for granted of vLLM holds in its versions, told from their source."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher import compat
from portkit.upstream.git import Store
from portkit.upstream.source import Source

TAGS = ("v0.14.1", "v0.16.0", "v0.17.1", "v0.21.0", "v0.26.0", "v0.33.0")
OURS = ast.parse((Path(compat.__file__).parent / "engine.py").read_bytes())
NOT_ONE_ENGINE = {"scale_elastic_ep", "commit_elastic_ep", "prepare_elastic_ep"}
NOT_ONE_ENGINE |= {"abort_external_elastic_ep", "get_external_elastic_ep_status"}
"""Calls that several engines need; the launcher has one."""


class Version:
    """The source of one version, parsed on demand."""

    def __init__(self, store: Store, source: Source) -> None:
        self._store, self._files = store, store.files(source.tree)

    def has(self, path: str) -> bool:
        return path in self._files

    def tree(self, path: str) -> ast.Module:
        return ast.parse(self._store.read(self._files[path].oid))


@pytest.fixture(scope="module", params=TAGS)
def version(
    request: pytest.FixtureRequest, store: Store, obtain_tag: Callable[[str], Source]
) -> Version:
    return Version(store, obtain_tag(request.param))


Function = ast.FunctionDef | ast.AsyncFunctionDef


def class_of(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)


def methods(node: ast.ClassDef) -> dict[str, Function]:
    return {n.name: n for n in node.body if isinstance(n, Function)}


def parameters(function: Function) -> set[str]:
    arguments = function.args
    return {a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}


def attributes(node: ast.AST, owner: str = "self", stored: bool = False) -> set[str]:
    """Names of the attributes of `owner` that are read (or stored) in a piece of source."""
    kind = ast.Store if stored else ast.Load
    return {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute)
        and ast.unparse(n.value) == owner
        and isinstance(n.ctx, kind)
    }


def calls(node: ast.AST, name: str) -> Iterator[ast.Call]:
    return (
        n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith(name)
    )


def client_chain(version: Version) -> dict[str, Function]:
    tree = version.tree("vllm/v1/engine/core_client.py")
    chain = ("EngineCoreClient", "MPClient", "AsyncMPClient")
    return {k: m for name in chain for k, m in methods(class_of(tree, name)).items()}


def test_front_end_finds_all_it_calls(version: Version) -> None:
    """Every attribute that AsyncLLM reads of its client is upstream's method or set by ours."""
    used = attributes(version.tree("vllm/v1/engine/async_llm.py"), "self.engine_core")
    ours = class_of(OURS, "ThreadClient")
    there = set(client_chain(version)) | attributes(ours, stored=True)
    assert used
    assert used - there - NOT_ONE_ENGINE == set()


def test_inherited_calls_need_no_sockets(version: Version) -> None:
    """The calls of AsyncLLM reach the engine through the methods that ours replaces."""
    tree = version.tree("vllm/v1/engine/async_llm.py")
    inherited = client_chain(version)
    ours = class_of(OURS, "ThreadClient")
    given = attributes(ours, stored=True) | set(methods(ours))
    waiting = attributes(tree, "self.engine_core") - NOT_ONE_ENGINE
    reached: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in given or name in reached:
            continue
        assert name in inherited, name
        reached.add(name)
        waiting |= attributes(inherited[name])
    assert "call_utility_async" in reached
    assert not reached & {"_send_input_message", "input_socket", "ctx", "encoder", "decoder"}


def test_resources_have_what_is_read(version: Version) -> None:
    tree = version.tree("vllm/v1/engine/async_llm.py")
    ours = attributes(class_of(OURS, "_Resources"), stored=True)
    assert attributes(tree, "self.engine_core.resources") <= ours


def test_client_is_made_by_name(version: Version) -> None:
    tree = version.tree("vllm/v1/engine/async_llm.py")
    made = list(calls(tree, "EngineCoreClient.make_async_mp_client"))
    assert made
    for call in made:
        assert not call.args
        assert {"vllm_config", "executor_class", "log_stats"} <= {k.arg for k in call.keywords}


def test_core_is_built_by_name_and_has_the_seams(version: Version) -> None:
    tree = version.tree("vllm/v1/engine/core.py")
    core, process = class_of(tree, "EngineCore"), class_of(tree, "EngineCoreProc")
    made = methods(process)["__init__"]
    asked = {"vllm_config", "local_client", "handshake_address", "executor_class", "log_stats"}
    assert asked <= parameters(made)
    defaults = len(made.args.defaults)
    required = {a.arg for a in made.args.args[1 : len(made.args.args) - defaults]}
    assert required == asked
    there = set(methods(core)) | set(methods(process))
    replaced = methods(class_of(OURS, "ThreadCore"))
    assert set(replaced) - {"__init__", "_admitted"} <= there
    assert {"preprocess_add_request", "run_busy_loop", "_handle_request_preproc_error"} <= there
    stored = attributes(core, stored=True) | attributes(process, stored=True)
    assert {"input_queue", "output_queue", "aborts_queue", "output_thread"} <= stored


def test_engine_only_puts_into_the_output_queue(version: Version) -> None:
    """Which is why handing the outputs over at once is all that the queue must do."""
    process = class_of(version.tree("vllm/v1/engine/core.py"), "EngineCoreProc")
    for name, method in methods(process).items():
        if name != "process_output_sockets":
            assert attributes(method, "self.output_queue") <= {"put_nowait", "empty"}, name


def test_input_thread_tells_that_it_is_ready_with_its_last_argument(version: Version) -> None:
    process = class_of(version.tree("vllm/v1/engine/core.py"), "EngineCoreProc")
    arguments = [a.arg for a in methods(process)["process_input_sockets"].args.args]
    assert arguments[-1] == "ready_event"


def test_engine_is_made_by_name(version: Version) -> None:
    tree = version.tree("vllm/v1/engine/async_llm.py")
    taken = parameters(methods(class_of(tree, "AsyncLLM"))["from_vllm_config"])
    assert {"vllm_config", "usage_context", "enable_log_requests", "disable_log_stats"} <= taken


@pytest.mark.parametrize("name", sorted(compat.PLACES))
def test_name_is_where_it_is_looked_for(version: Version, name: str) -> None:
    found = [
        place
        for place in compat.PLACES[name]
        if version.has(path := place.replace(".", "/") + ".py")
        and name in {getattr(n, "name", None) for n in version.tree(path).body}
    ]
    optional = {"get_uvicorn_log_config", "load_log_config", "_add_shutdown_handlers"}
    optional |= {"configure_logging_from_args"}
    assert found or name in optional


def test_log_config_is_read_one_way_or_the_other(version: Version) -> None:
    def there(name: str) -> bool:
        return any(
            version.has(path := place.replace(".", "/") + ".py")
            and name in {getattr(n, "name", None) for n in version.tree(path).body}
            for place in compat.PLACES[name]
        )

    assert there("get_uvicorn_log_config") or there("load_log_config")
