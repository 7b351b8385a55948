"""XML in the tags of images."""

import base64
import binascii
import codecs
import re
from collections.abc import Iterator
from xml.etree import ElementTree

# Larger texts are no settings.
_MAX_BYTES = 2**22


def parse_xml(text: str | bytes) -> ElementTree.Element | None:
    """Parse a text that is XML, or XML in base64; None for anything else."""
    data = text.encode() if isinstance(text, str) else text
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        # The declaration of the encoding would contradict the text in UTF-8.
        decoded = data.decode("utf-16", errors="replace").strip("\0 \r\n\t")
        data = re.sub(r"^<\?xml[^>]*\?>", "", decoded).encode()
    data = data.strip(b"\0 \r\n\t")
    if len(data) > _MAX_BYTES:
        return None
    if not data.removeprefix(b"\xef\xbb\xbf").startswith(b"<"):
        try:
            data = base64.b64decode(b"".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            return None
    try:
        return ElementTree.fromstring(data.removeprefix(b"\xef\xbb\xbf"))
    except (ElementTree.ParseError, ValueError, LookupError):
        return None


def local_name(element: ElementTree.Element) -> str:
    """Return the name of an element without its name space."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def found(root: ElementTree.Element, *names: str) -> Iterator[ElementTree.Element]:
    """Yield the elements of any of these names, whatever their name space or level."""
    return (element for element in root.iter() if local_name(element) in names)


def text_of(root: ElementTree.Element, *names: str) -> str | None:
    """Return the text of the first element of any of these names that has one, with its unit."""
    for element in found(root, *names):
        if element.text and element.text.strip():
            return f"{element.text.strip()} {element.get('unit') or element.get('units') or ''}".strip()
    return None
