"""The command `cathodeflow`, also as `python -m cathodeflow`."""

import os
import signal


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Threads that wait for work give up their core: spinning takes it from other threads and jobs. OpenMP reads this
    # when it is loaded; results do not depend on it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from cathodeflow.cli import main as run

    run()


if __name__ == "__main__":
    main()
