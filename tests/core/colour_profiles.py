"""ICC profiles made by code: what red, green and blue mean, and how bright a number is."""

import struct

# XYZ under the light of the profile connection space (D50).
RED, GREEN, BLUE = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
P3_RED, P3_GREEN, P3_BLUE = (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)
WHITE = (0.9642, 1.0, 0.8249)
Colour = tuple[float, float, float]


def profile(red: Colour, green: Colour, blue: Colour, *, gamma: float = 2.2) -> bytes:
    """A display with those primaries."""
    tags = {b"desc": _description(b"made by code"), b"wtpt": _xyz(WHITE)}
    tags |= {b"rXYZ": _xyz(red), b"gXYZ": _xyz(green), b"bXYZ": _xyz(blue)}
    tags |= dict.fromkeys(
        (b"rTRC", b"gTRC", b"bTRC"), b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    )
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    size = 128 + len(table) + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp") + _numbers(WHITE)
    return header.ljust(128, b"\0") + table + body


def _numbers(values: Colour) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def _xyz(colour: Colour) -> bytes:
    return b"XYZ \0\0\0\0" + _numbers(colour)


def _description(text: bytes) -> bytes:
    content = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(79)
    return content + bytes(-len(content) % 4)


DISPLAY_P3 = profile(P3_RED, P3_GREEN, P3_BLUE)
RED_MEANS_GREEN = profile(GREEN, RED, BLUE)
BROKEN = {
    "garbage": b"no profile",
    "truncated": RED_MEANS_GREEN[:100],
    "overwritten": RED_MEANS_GREEN[:200].ljust(len(RED_MEANS_GREEN), b"\xff"),
    "of other pixels": RED_MEANS_GREEN.replace(b"RGB ", b"CMYK"),
}
