"""Interim: commands of the techniques whose stages are not functions yet."""

from collections.abc import Callable
from typing import Any

import click

from cathodeflow.flags import flag, variable
from cathodeflow.options import Options, from_flags
from cathodeflow.parallel import thread_count
from cathodeflow.progress import progress

__all__ = ["Stages", "progress", "stage_command", "thread_count"]


class Stages(click.Group):
    """Commands in the order of the stages, not of the alphabet."""

    section: type[Options]

    def list_commands(self, context: click.Context) -> list[str]:
        """Names of the commands."""
        order = [name.replace("_", "-") for name in self.section.model_fields]
        return sorted(super().list_commands(context), key=order.index)


def stage_command(group: click.Group, options: type[Options]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add a function as a command of `group`, with a flag for every option.

    The function gets its arguments from the decorators below this one, and the options as `options`. The command's
    name is the function's with dashes. The function itself is returned unchanged.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        def run(**arguments: Any) -> None:
            values = {name: arguments.pop(variable(name)) for name in options.model_fields}
            function(options=from_flags(options, values), **arguments)

        parameters = list(reversed(getattr(function, "__click_params__", [])))
        parameters += [flag(name, field) for name, field in options.model_fields.items()]
        summary = (function.__doc__ or "").strip()
        group.add_command(
            click.Command(function.__name__.replace("_", "-"), callback=run, params=parameters, help=summary)
        )
        return function

    return decorate
