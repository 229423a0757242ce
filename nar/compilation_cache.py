"""Compiled programs that outlive their process: JAX's persistent cache, one folder a processor."""

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Iterator

import jax

_CPUINFO = pathlib.Path("/proc/cpuinfo")


def folder() -> pathlib.Path:
    """Where compiled programs are kept for this processor.

    XLA compiles for the processor that it runs on. A home directory that several machines share
    must not give one the programs of another: they may use instructions that it lacks.
    """
    return pathlib.Path.home() / ".cache" / "nar" / processor()


def processor() -> str:
    """An id of what the processor can do: its architecture, name and instruction sets."""
    about = [platform.machine(), platform.processor()]
    if _CPUINFO.is_file():
        named = ("vendor_id", "model name", "flags", "Features", "CPU part")  # x86 and Arm
        lines = _CPUINFO.read_text(errors="replace").splitlines()
        about += sorted({line for line in lines if line.startswith(named)})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def enable() -> None:
    """Keeps every program of this process: to find one is quicker than to compile the smallest.

    Where the environment says what JAX shall do (`JAX_COMPILATION_CACHE_DIR`), it does that.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def enabled() -> Iterator[None]:
    """Keeps the programs of a block of code; what is benchmarked after it is compiled for real."""
    from jax.experimental.compilation_cache import compilation_cache

    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    if not before[names[0]]:
        enable()
    compilation_cache.reset_cache()  # JAX decides once whether it has a cache
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
