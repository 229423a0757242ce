"""Every registered decoder writes the same on eight devices, however the batch is split."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from nar.testing import random_model
from tests.cases import ON, check, of_a_loop

ROOT = pathlib.Path(__file__).parents[1]
EIGHT_DEVICES = ("mesh", "shard_map", "pmap")


LOOPS = [one for one in ON if of_a_loop(*one)]
REST = [one for one in ON if not of_a_loop(*one)]


@pytest.mark.parametrize(
    "which", [LOOPS, pytest.param(REST, marks=pytest.mark.rest)], ids=["loops", "rest"]
)
def test_eight_devices(which):
    """In a process of its own: the number of simulated devices is fixed when JAX starts.

    NPROC is the size of XLA's pool of threads; with fewer than devices, collectives can deadlock.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    named = [f"{name}:{'encoder' if encoder else ''}" for name, encoder in which]
    command = [sys.executable, "-m", "tests.test_contract_devices", *named]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("on 8 devices") == len(which)


def on_all_devices(named):
    for name, encoder in (one.split(":") for one in named):
        model = random_model(encoder=bool(encoder))
        check(name, model, points=(4,), modes=EIGHT_DEVICES if encoder else EIGHT_DEVICES[:1])
        print(f"{name} keeps point 4 on {jax.device_count()} devices")


if __name__ == "__main__":
    on_all_devices(sys.argv[1:])
