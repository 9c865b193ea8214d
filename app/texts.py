"""Texts that callers give and get back: one line, without control characters (Postgres stores no NUL)."""

from typing import Annotated

from pydantic import StringConstraints

MAX_CHARACTERS = 200
ONE_LINE = r"^[^\x00-\x1f\x7f]*$"
# Something is left when the spaces around it are taken away.
SOMETHING = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f\s][^\x00-\x1f\x7f]*$"

ShortText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CHARACTERS, pattern=SOMETHING)
]
SearchText = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS, pattern=ONE_LINE)]
