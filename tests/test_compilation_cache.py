"""Programs are kept where the environment says, or in the home directory, by processor."""

import os
import pathlib
import subprocess
import sys

from nar import compilation_cache

SCRIPT = """
import jax
from nar import compilation_cache
{}
jax.jit(lambda x: x + 1)(1).block_until_ready()
print(jax.config.jax_compilation_cache_dir)
"""


def run(home, body, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body)],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


def test_small_programs_are_kept_in_a_folder_of_the_processor(tmp_path):
    folder = run(tmp_path, "compilation_cache.enable()")
    assert folder == str(tmp_path / ".cache" / "nar" / compilation_cache.processor())
    assert any(pathlib.Path(folder).glob("jit__lambda*"))


def test_for_a_block_of_code_alone(tmp_path):
    assert run(tmp_path, "with compilation_cache.enabled(): jax.jit(lambda x: -x)(1)") == "None"
    assert len([*(tmp_path / ".cache" / "nar").rglob("jit__lambda*-cache")]) == 1


def test_the_environment_decides(tmp_path):
    chosen = str(tmp_path / "chosen")
    found = run(tmp_path, "compilation_cache.enable()", JAX_COMPILATION_CACHE_DIR=chosen)
    assert found == chosen
    assert not (tmp_path / ".cache").exists()


def test_other_instruction_sets_are_another_processor(tmp_path, monkeypatch):
    for flags in ("sse avx2", "sse avx2 avx512f"):
        (tmp_path / flags).write_text(f"model name : A\nflags : {flags}\ncpu MHz : {len(flags)}\n")
    ids = []
    for name in ("sse avx2", "sse avx2", "sse avx2 avx512f"):
        monkeypatch.setattr(compilation_cache, "_CPUINFO", tmp_path / name)
        ids.append(compilation_cache.processor())
    assert ids[0] == ids[1] != ids[2]
