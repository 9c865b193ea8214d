"""What schemathesis sends as a file: pictures mostly, and sometimes what only says that it is one."""

import schemathesis
from hypothesis import strategies as st

from tests.core.photo_corpus import bomb, corners, encoded, not_pictures

PICTURES = [encoded(corners(), kind) for kind in ("JPEG", "PNG", "WEBP", "HEIF", "AVIF")]
OTHERS = [*not_pictures().values(), bomb(), PICTURES[0][:100]]

schemathesis.openapi.format("binary", st.sampled_from(PICTURES * 4 + OTHERS))
