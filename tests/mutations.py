"""Texts that a run reads, changed by whoever means harm: seeded, so that a failure comes again."""

import random
import re

HOSTILE = (
    b"[" * 100_000,
    b"[" * 200 + b"]" * 200,
    b'{"a":' * 50_000,
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b"{a=" * 5000,
    b"1" * 5000,
    b"0x" + b"f" * 4000,
    b"-" + b"9" * 30,
    b"18446744073709551616",
    b"1e999",
    b"-1e999",
    b"NaN",
    b"nan",
    b"inf",
    b"-Infinity",
    b"1e308",
    b"0.1e-400",
    b"-1",
    b"0",
    b"true",
    b"null",
    b'""',
    b'"\\ud800"',
    b'"\\u0000"',
    b'"../../../etc/passwd"',
    b'"/etc/passwd"',
    b'"~nobody-here/x"',
    b'"\\u001b[2J"',
    b'"' + b"n" * 50_000 + b'"',
    b"[]",
    b"{}",
    b"[[]]",
    b'{"kind": "adam"}',
    b'{kind = "adam"}',
    b"[1, 2.5, true]",
    b"1979-05-27T07:32:00Z",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"'",
    b'"',
    b"\\",
    b"\0",
    b"\n",
    b"#",
)
_TOKEN = re.compile(rb'"[^"\n]*"|-?[0-9][0-9.e+-]*|\btrue\b|\bfalse\b|\bnull\b|[A-Za-z_][\w.]*')


def mutated(content: bytes, rng: random.Random) -> bytes:
    """One to four changes of a text's bytes, tokens or lines."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice((_bytes, _token, _token, _token, _lines))(content, rng)
    return content


def _bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    end = min(len(content), start + rng.choice((0, 1, 3, 50)))
    kind = rng.randrange(4)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + rng.randbytes(rng.randint(1, 4)) + content[end:]
    if kind == 2:
        return content[:start] + content[end:]
    changed = bytearray(content or b"x")
    changed[start % len(changed)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _token(content: bytes, rng: random.Random) -> bytes:
    """A value or a key becomes something that it is not."""
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return rng.choice(HOSTILE)
    at = rng.choice(tokens)
    other = rng.choice((rng.choice(HOSTILE), rng.choice(HOSTILE), rng.choice(tokens)[0]))
    return content[: at.start()] + other + content[at.end() :]


def _lines(content: bytes, rng: random.Random) -> bytes:
    """A line doubled, lost or moved: keys come twice, tables elsewhere."""
    lines = content.split(b"\n")
    at, to = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(3)
    if kind == 0:
        lines.insert(to, lines[at])
    elif kind == 1:
        del lines[at]
    else:
        lines.insert(to, lines.pop(at))
    return b"\n".join(lines)
