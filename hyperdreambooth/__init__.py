from pathlib import Path

MINI = Path(__file__).parent / "mini"  # the base model that ships with the code
