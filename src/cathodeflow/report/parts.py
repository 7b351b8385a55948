"""Parts of the report, which the modules of the techniques fill and the page shows."""

from typing import NamedTuple


class Finding(NamedTuple):
    """A number and what it is.

    Attributes
    ----------
    name : str
        Quantity.
    value : str
        With its unit.
    interval : str
        Such as `95 % interval 0.80 to 0.99`; empty if there is none.
    note : str
        What it was computed from, or what one would expect.
    """

    name: str
    value: str
    interval: str = ""
    note: str = ""


class Grid(NamedTuple):
    """A table to show: a title, one heading for each column with its unit, and rows of text.

    A `folded` one is long, and opened on demand.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str = ""
    folded: bool = False


class Content(NamedTuple):
    """What a technique found: question, numbers, tables, checks and warnings.

    `leading` has the names of the figures, without their suffixes, that are shown first, and `first_samples` the
    samples whose figures of this name are preferred to those of others.
    """

    title: str
    question: str
    findings: list[Finding]
    grids: list[Grid]
    checks: list[Finding]
    warnings: list[str]
    leading: tuple[str, ...] = ()
    first_samples: frozenset[str] = frozenset()


class Picture(NamedTuple):
    """A figure.

    Attributes
    ----------
    name, caption : str
        The caption is HTML.
    source : str
        `data:` address of the image; empty if it is not contained in the page.
    width, height : int
        Size [px].
    link : str
        Address of the original, relative to the page.
    """

    name: str
    caption: str
    source: str
    width: int
    height: int
    link: str

    @property
    def wide(self) -> bool:
        """Whether it needs the width of the page to be read, as it has several panels beside each other."""
        return self.width > max(1050, 1.05 * self.height)


class Attachment(NamedTuple):
    """A file to download (`source`, a `data:` address) or to open where the page lies beside the results (`link`)."""

    name: str
    kind: str
    size: str
    source: str
    link: str


class Section(NamedTuple):
    """A technique in the report.

    `figures` are shown first, `more` on demand; `origin` says in a sentence what the data are.
    """

    key: str
    content: Content
    figures: list[Picture]
    more: list[Picture]
    attachments: list[Attachment]
    origin: str
    data: Grid
    records: Grid

    @property
    def views(self) -> list[Attachment]:
        """Movies and 3D views, which open in a browser."""
        return [file for file in self.attachments if file.kind in ("movie", "3D view")]
