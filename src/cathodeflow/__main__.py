"""The command `cathodeflow`, also as `python -m cathodeflow`."""

import signal


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback, also while modules are imported."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cathodeflow.cli import main as run

    run()


if __name__ == "__main__":
    main()
