"""Has imported what is slow to import, and forks for each job that `Nursery` sends: `python -m ...`.

A job is a line of JSON on its input, ["pytest" | "module" | "snippet", arguments...]; its output has
a line with the number of the process that does it, and at the end a line of JSON with the answer,
[exit status, all that was said]. Of the project itself nothing is imported before the fork, so that a
job sees the source as it then stands.
"""

import atexit
import json
import os
import runpy
import sys
import tempfile
import traceback

import cryptography.hazmat.primitives.asymmetric.ed25519
import dp_accounting.pld
import dp_accounting.rdp
import flax.linen
import msgspec
import optax
import orbax.checkpoint
import pytest
import scipy.stats
import sklearn.datasets

_LONG = (cryptography, dp_accounting, flax, msgspec, optax, orbax, scipy, sklearn)


def _do(kind: str, *arguments: str) -> int:
    if kind == "pytest":
        return int(pytest.main(list(arguments)))
    try:
        if kind == "module":
            sys.argv = list(arguments)
            runpy.run_module(arguments[0], run_name="__main__")
        else:
            exec(compile(arguments[0], "snippet", "exec"), {"__name__": "snippet"})
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _forked(job: list[str]) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            for stream in (1, 2):
                os.dup2(said.fileno(), stream)
            status = 70
            try:
                status = _do(*job)
                atexit._run_exitfuncs()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return status, said.read().decode(errors="replace")


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), flush=True)
