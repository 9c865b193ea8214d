"""A deadline that passes after so many steps, whatever the clock says."""

from dataclasses import dataclass, field

from hyperdreambooth.recipes.schedule import Deadline


@dataclass(frozen=True, kw_only=True)
class StopAfter(Deadline):
    """Passed when it has been asked so often."""

    steps: int
    _asked: list[None] = field(default_factory=list)

    def passed(self) -> bool:
        self._asked.append(None)
        return len(self._asked) > self.steps
