"""Types of the arguments of stages, and of options, that name files."""

from typing import Annotated, Any, NamedTuple, TypeAlias, get_args


class FileArgument(NamedTuple):
    """Kind of an argument that names a file.

    metavar : str, its name in the help of the command line.
    output : bool, whether the stage writes it.
    """

    metavar: str
    output: bool = False


InputFile: TypeAlias = Annotated[str, FileArgument("FILE")]
InputFolder: TypeAlias = Annotated[str, FileArgument("FOLDER")]
InputStore: TypeAlias = Annotated[str, FileArgument("STORE")]
#: Raw data: a file, a folder, a glob pattern, or `FILE.h5::/DATASET`.
Source: TypeAlias = Annotated[str, FileArgument("SOURCE")]
OutputFile: TypeAlias = Annotated[str, FileArgument("FILE", output=True)]
OutputFolder: TypeAlias = Annotated[str, FileArgument("FOLDER", output=True)]
OutputStore: TypeAlias = Annotated[str, FileArgument("STORE", output=True)]


def file_argument(annotation: Any) -> FileArgument | None:
    """Return the kind of a file argument, also if it is optional or a sequence; None for any other argument."""
    for item in get_args(annotation):
        if isinstance(item, FileArgument):
            return item
        if found := file_argument(item):
            return found
    return None
