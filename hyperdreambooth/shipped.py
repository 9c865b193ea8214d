"""The base model that ships with the code. No torch: housekeeping asks as well."""

from pathlib import Path

MINI = Path(__file__).with_name("mini")
