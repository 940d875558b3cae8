"""`python -m headrace.cli.supervised PID ARGUMENT…`: the command line of a replica that process PID keeps alive."""

from __future__ import annotations

import sys

from headrace.cli.main import main
from headrace.engine.remote.lifeline import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
