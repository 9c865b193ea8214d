"""What can go wrong at the command line, in words for the person who typed."""


class StackError(Exception):
    """The service can't be started as asked; shown without a traceback."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Refused(Exception):
    """The service answered with a problem; `code` is the API's stable name for it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
