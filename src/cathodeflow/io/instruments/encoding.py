"""Texts of instruments, in whichever encoding their computer had."""

import re

# Characters that a Western text has beside ASCII: micro sign, degree, plus-minus, powers, times, Angstrom.
_WESTERN = frozenset(b"\xb5\xb0\xb1\xb2\xb3\xd7\xc5")
# Words that show that an encoding is the right one: any bytes are some text in most of them.
_WORDS = {
    "cp949": ("오전", "오후", "월"),
    "cp932": ("μm", "μｍ", "午前", "午後", "倍", "日時", "月"),
    "gb18030": ("上午", "下午", "μm", "倍", "月"),
    "cp1251": ("янв", "фев", "мар", "апр", "май", "мая", "июн", "июл", "авг", "сен", "окт", "ноя", "дек", "мкм"),
}


def decode(data: bytes) -> str:
    """Decode a text of UTF-8, UTF-16 (also without its mark), Korean, Japanese, Chinese or Western computers.

    Examples
    --------
    >>> decode("5.0 µm".encode("latin-1")), decode("5.0 μm".encode("cp932")), decode("5.0".encode("utf-16-le"))
    ('5.0 µm', '5.0 μm', '5.0')
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    start = data[:512]
    for encoding, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[0::2])):
        # Of a text of letters and digits every second byte is zero.
        if len(zeros) >= 2 and zeros.count(0) > 0.7 * len(zeros):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    if {byte for byte in data if byte >= 0x80} <= _WESTERN:
        return data.decode("latin-1")
    if re.fullmatch(rb"(?:[\x00-\x7f]|[\xc0-\xff](?![\x80-\xff]))*", data):
        # Single letters with accents: those of East Asia and of Cyrillic stand together.
        return data.decode("latin-1")
    read = {}
    for encoding in _WORDS:
        try:
            read[encoding] = data.decode(encoding)
        except UnicodeDecodeError:
            continue
    likely = [text for encoding, text in read.items() if any(word in text for word in _WORDS[encoding])]
    return (likely or [*read.values(), data.decode("latin-1")])[0]
