"""Many subjects at once: `python -m benchmarks.many_subjects --subjects 1,2,4,8,16,32 --out FILE`.

Each method lives in a process of its own and gets its turn in each of several rounds, so that what else the machine
does hits all alike; medians count. Beside FILE lie FILE.md (the table, with ratios to diffusers + peft) and FILE.png.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.hardware import describe
from benchmarks.many_subjects.bench import Measured, Switched
from benchmarks.many_subjects.child import Child, OutOfMemory, child_of
from benchmarks.many_subjects.picture import scaling_picture
from benchmarks.many_subjects.settings import Case, Method, Mix, Settings, Task
from benchmarks.many_subjects.shares import Share
from benchmarks.many_subjects.table import Row, markdown, row_of

Turns = dict[tuple[Case, Method], list[Measured]]


def main(settings: Settings, out: Path) -> None:
    """Measure, print the table, write the files."""
    with ExitStack() as stack:
        children = {method: stack.enter_context(child_of(settings, method)) for method in settings.methods}
        tasks: dict[Method, Sequence[Task]] = {method: child.ask("tasks") for method, child in children.items()}
        turns = all_turns(settings, children, tasks)
        doubles = {
            (method, task): ask_or_none(children[method], "double_difference", task)
            for method, own in tasks.items()
            for task in own
            if task in settings.tasks
        }
        any_child = children[settings.methods[0]]
        steps: Mapping[str, int] = any_child.ask("steps")
        floor: Mapping[Task, float] = ask_or_none(any_child, "floor") or {}
        shares = all_shares(any_child, turns)
        switches: dict[str, Switched] = {}
        for child in children.values() if settings.resident else ():
            switches |= ask_or_none(child, "switches") or {}
    rows = all_rows(settings, turns, doubles, floor)
    text = markdown(rows, switches, shares)
    document = {
        "hardware": f"{describe(settings.device)}, {settings.threads or torch.get_num_threads()} threads",
        "model": settings.model,
        "dtype": str(settings.torch_dtype).removeprefix("torch."),
        "acceleration": settings.acceleration,
        **steps,
        "rows": rows,
        "switches": {name: asdict(switch) for name, switch in switches.items()},
        "time_shares": [asdict(share) for share in shares],
    }
    write(document, text, scaling_picture(rows), out)
    print(text)


def all_turns(settings: Settings, children: Mapping[Method, Child], tasks: Mapping[Method, Sequence[Task]]) -> Turns:
    """Round after round, case after case, method after method. A turn that is long enough is its own average."""
    turns: Turns = defaultdict(list)
    spent: dict[tuple[Case, Method], float] = defaultdict(float)
    for number in range(settings.rounds):
        done = set()
        for case in settings.cases():
            for method in settings.methods:
                timed = settings.timed(case, method), method
                if case.task not in tasks[method] or timed in done or spent[timed] > settings.case_seconds:
                    continue
                done.add(timed)
                measured = ask_or_none(children[method], "measure", timed[0])
                turns[timed] += [measured] if measured else []
                spent[timed] += measured.seconds * timed[0].subjects if measured else settings.case_seconds + 1
                say(f"round {number + 1} of {settings.rounds}: {timed[0]} {method} {measured}")
    return turns


def all_shares(child: Child, turns: Turns) -> list[Share]:
    """Where the time of our largest batch goes that was measured; nothing of a task that none was measured of."""
    largest: dict[Task, int] = defaultdict(int)
    for (case, method), measured in turns.items():
        if measured and method is Method.OURS:
            largest[case.task] = max(largest[case.task], case.subjects)
    return [share for task, subjects in largest.items() for share in ask_or_none(child, "shares", task, subjects) or ()]


def all_rows(
    settings: Settings,
    turns: Turns,
    doubles: Mapping[tuple[Method, Task], float | None],
    floor: Mapping[Task, float],
) -> list[Row]:
    """The float64 comparison belongs to the row of the batch that it was made with."""
    rows = []
    for case in settings.cases():
        is_double = case.subjects == settings.double_subjects and case.mix is Mix.DISTINCT
        for method in settings.methods:
            timed = settings.timed(case, method), method
            if timed in turns:
                double = doubles[method, case.task] if is_double else None
                own = turns[timed]
                rows.append(row_of(case, method, own, floor_seconds=floor.get(case.task), double=double))
    return rows


def ask_or_none(child: Child, question: str, *arguments: object) -> Any:  # noqa: ANN401 - as `ask`
    """None where the GPU is too small."""
    try:
        return child.ask(question, *arguments)
    except OutOfMemory:
        return None


def write(document: Mapping[str, Any], text: str, picture: Any, out: Path) -> None:  # noqa: ANN401 - a PIL image
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n")
    told = "{model}, {dtype}, {hardware}; {steps} steps of {noise_draws} noise draws, pictures in {sample_steps} steps"
    out.with_suffix(".md").write_text(f"{told.format(**document)}\n\n{text}")
    picture.save(out.with_suffix(".png"))


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> tuple[Settings, Path]:
    """Options are named after the fields of `Settings`."""
    default = Settings()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_subjects", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="FILE.json; FILE.md and FILE.png are written beside it")
    lists = {"subjects": int, "methods": Method, "tasks": Task, "mixes": Mix}
    for name in lists:
        shown = ",".join(map(str, getattr(default, name)))
        parser.add_argument(f"--{name}", default=shown, help=f"separated by commas (default: {shown})")
    for field in fields(Settings):
        if field.name not in lists:
            value = getattr(default, field.name)
            parser.add_argument(
                f"--{field.name.replace('_', '-')}", type=str if isinstance(value, str) else int, default=value
            )
    given = vars(parser.parse_args(arguments))
    out: Path = given.pop("out")
    for name, kind in lists.items():
        given[name] = tuple(kind(text) for text in given[name].split(","))
    return Settings(**given), out


if __name__ == "__main__":
    main(*parse())
