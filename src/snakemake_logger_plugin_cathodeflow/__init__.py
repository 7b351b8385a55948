"""Logger plugin of Snakemake (`--logger cathodeflow`): what a person wants to read; `--verbose` gives all of Snakemake.

Snakemake finds it by the name of this package.
"""

import os
import shutil
import sys
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase

from cathodeflow.run_messages import Messages


class LogHandler(LogHandlerBase):
    """Prints a line for each job that begins, ends or fails; on a terminal, the last line says what goes on."""

    def __post_init__(self) -> None:
        """Choose the stream, and what is printed."""
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
        from snakemake.settings.enums import Quietness

        settings: Any = self.common_settings
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb" and not settings.nocolor
        commands = settings.printshellcmds or settings.verbose
        usual = DefaultFilter(settings.quiet, settings.debug_dag, settings.verbose, settings.dryrun, commands)
        silent = Quietness.ALL in (settings.quiet or ())
        # With --quiet Snakemake drops the events of failures, too; its exceptions, which it prints, are left out here.
        self.addFilter(lambda record: usual.filter(record) or (not silent and _is_failure(record)))
        self._messages = Messages(dry_run=settings.dryrun)
        self._complete = None
        if settings.verbose or settings.debug_dag:
            self._complete = ColorizingTextHandler(settings.nocolor, self._stream)
            self._complete.setFormatter(DefaultFormatter(settings.quiet, settings.show_failed_logs))

    def emit(self, record: LogRecord) -> None:
        """Print the lines of a record."""
        try:
            if self._complete:
                self._complete.emit(record)
            else:
                self._print(self._messages.lines(record))
        except BrokenPipeError:
            # As after `snakemake -n | head`: nobody reads on, and the run itself goes on.
            self._unread()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print what is left."""
        if not self._complete:
            try:
                self._print(self._messages.rest())
            except BrokenPipeError:
                self._unread()
        super().close()

    def _unread(self) -> None:
        """Discard all that follows, and what Python writes to a closed pipe as it ends."""
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self._stream.fileno())
        os.close(nothing)

    def _print(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        if self._terminal:
            # The cursor stays at the start of the status, so that whatever is printed next replaces it.
            width = shutil.get_terminal_size().columns - 1
            text = f"\r\x1b[K{text}{self._messages.status()[:width]}\r"
        self._stream.write(text)
        self._stream.flush()

    @property
    def writes_to_stream(self) -> bool:
        """It replaces what Snakemake prints."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """The complete log of Snakemake is kept."""
        return False

    @property
    def has_filter(self) -> bool:
        """Snakemake's filter, with the commands if all is printed."""
        return True

    @property
    def has_formatter(self) -> bool:
        """It formats by itself."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """It draws no graph."""
        return False


def _is_failure(record: LogRecord) -> bool:
    return str(getattr(record, "event", None)) in ("job_error", "group_error")
