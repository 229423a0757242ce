"""Every registered decoder writes the same on eight devices, however the batch is split."""

import os
import pathlib
import subprocess
import sys

import jax

from nar.testing import random_model
from tests.cases import ON, check

ROOT = pathlib.Path(__file__).parents[1]
EIGHT_DEVICES = ("mesh", "shard_map", "pmap")


def test_eight_devices():
    """In a process of its own: the number of simulated devices is fixed when JAX starts.

    NPROC is the size of XLA's pool of threads; with fewer than devices, collectives can deadlock.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "NPROC": "16", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.test_contract_devices"]
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("on 8 devices") == len(ON)


def on_all_devices():
    for name, encoder in ON:
        model = random_model(encoder=encoder)
        check(name, model, points=(4,), modes=EIGHT_DEVICES if encoder else EIGHT_DEVICES[:1])
        print(f"{name} keeps point 4 on {jax.device_count()} devices")


if __name__ == "__main__":
    on_all_devices()
