"""`headrace serve` with an engine process that fails on cue, and is started again at once; for the tests alone."""

from __future__ import annotations

import sys

from headrace.cli.main import main
from headrace.engine.remote import RestartPolicy
from headrace.engine.remote.process import EngineProcess
from tests.remote.harness import FAULTY_COMMAND

if __name__ == "__main__":
    defaults = EngineProcess.__init__.__kwdefaults__
    assert defaults is not None
    defaults["command"] = FAULTY_COMMAND
    defaults["restart"] = RestartPolicy(first_delay_s=0.05, most_delay_s=0.1, max_failures=3)
    sys.exit(main(["serve", *sys.argv[1:]]))
