"""From an exception of vLLM's start to one sentence and what to do about it."""

from __future__ import annotations

import re

from .errors import BadInput, EngineFailed, LauncherError, MachineRefuses

KNOWN: tuple[tuple[str, type[LauncherError], str, str], ...] = (
    (
        r"\(?([\d.]+) GiB KV cache is needed.*?\(?([\d.]+) GiB\)?.*?"
        r"estimated maximum model length is (\d+)",
        MachineRefuses,
        "one request of the full length needs {0} GiB of KV cache and {1} GiB are left",
        "--max-model-len {2}, or a higher --gpu-memory-utilization",
    ),
    (
        r"No available memory for the cache blocks",
        MachineRefuses,
        "the weights leave no memory for the KV cache",
        "raise --gpu-memory-utilization, or choose a smaller or quantised model",
    ),
    (
        r"Free memory on device .*?\(([\d.]+)/([\d.]+) GiB\)"
        r".*?utilization \(([\d.]+), ([\d.]+) GiB",
        MachineRefuses,
        "only {0} of {1} GiB of GPU memory are free, and --gpu-memory-utilization {2} asks for {3}",
        "close other programs that use the GPU, or lower --gpu-memory-utilization",
    ),
    (
        r"(?:CUDA out of memory|OutOfMemoryError).*",
        MachineRefuses,
        "the GPU's memory ran out while the engine started",
        "raise --gpu-memory-utilization, lower --max-num-seqs, or choose a smaller model",
    ),
    (
        r"larger than the derived max_model_len \(.*?=(\d+)",
        BadInput,
        "--max-model-len is more than the {0} tokens the model was made for",
        "--max-model-len {0} or less",
    ),
    (
        r"Model architectures (\[[^\]]*\]).*not supported",
        BadInput,
        "this vLLM has no model {0}",
        "a newer vLLM may have it",
    ),
    (
        r"(?:is not a local folder and is not a valid model identifier|Repository Not Found|"
        r"couldn't connect to 'https://huggingface.co'|LocalEntryNotFoundError|"
        r"cannot find the requested files in the local cache|Invalid repository ID).*",
        BadInput,
        "the model is neither a folder here nor one that can be fetched from the model hub",
        "check the spelling of --model, the network, and access to the model (HF_TOKEN)",
    ),
    (
        r"no kernel image is available",
        MachineRefuses,
        "vLLM was built for other GPUs than this one",
        "build it with this GPU's compute capability in TORCH_CUDA_ARCH_LIST",
    ),
    (
        r"DLL load failed while importing (\S+?):",
        MachineRefuses,
        "Windows could not load vLLM's compiled module {0}, or a library it needs",
        "install the torch it was built with, and the CUDA version of that torch",
    ),
    (
        r"unsupported gloo device",
        MachineRefuses,
        "torch for Windows has no gloo transport, and this vLLM is not patched for that",
        "use the patched source tree",
    ),
    (
        r"Failed to infer device type|No CUDA GPUs are available|no NVIDIA driver",
        MachineRefuses,
        "there is no GPU that vLLM can use",
        "check the driver with nvidia-smi, and that torch is a CUDA build",
    ),
    (
        r"paging file is too small|WinError 1455",
        MachineRefuses,
        "the paging file is too small to load the model",
        "give Windows a larger one (System > Advanced > Performance > Virtual memory)",
    ),
)


def diagnose(error: BaseException) -> LauncherError:
    """What an exception of the start means.

    Returns an error with a sentence of its own for what users meet; else one that quotes the
    innermost message, with exit code 1.
    """
    if isinstance(error, LauncherError):
        return error
    chain = _chain(error)
    for text in chain:
        for pattern, kind, message, hint in KNOWN:
            if found := re.search(pattern, text, re.DOTALL):
                return kind(message.format(*found.groups()), hint.format(*found.groups()))
    invalid = type(error).__name__ == "ValidationError"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if invalid and len(lines) > 1:  # pydantic: a count, a field, then the sentence
        said = re.sub(
            r"^Value error, |\s*\[type=.*$", "", lines[-2] if "https" in lines[-1] else lines[-1]
        )
        return BadInput(said, "see --help=all for the options")
    said = lines[0] if lines else "no message"
    return EngineFailed(
        f"the engine did not start: {type(error).__name__}: {said}",
        "--verbose shows vLLM's own log and where it failed",
    )


def is_known(error: LauncherError) -> bool:
    """Whether the sentence says it all, so that a traceback would only be in the way."""
    return not isinstance(error, EngineFailed)


def _chain(error: BaseException | None) -> list[str]:
    """The texts of an exception and of what caused it."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return texts
