"""`hdb demo`: one photo through the whole service, as a phone would see it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.contact_sheet import contact_sheet, upright
from cli.first_start import short_lived_key
from cli.output import console, say
from cli.phone import Json, Phone
from cli.ports import free_ports
from cli.stack import Stack, running_stack
from core.lifecycle import PHASES, JobKind
from core.settings import Settings

PROMPTS = {
    "photo": "a photo of a {subject}",
    "pencil sketch": "a pencil sketch of a {subject}",
    "cartoon": "a cartoon of a {subject}",
    "oil painting": "an oil painting of a {subject}",
    "watercolor": "a watercolor of a {subject}",
    "pixel art": "pixel art of a {subject}",
    "black and white": "a black and white photo of a {subject}",
    "pop art": "pop art of a {subject}",
}
PICTURES_OF_EACH = 2  # from two seeds: two poses
CAPTIONS = [caption for caption in PROMPTS for _ in range(PICTURES_OF_EACH)]
SEED = 7
# A person who kills the worker during the demo should not wait for a minute.
LEASE_SECONDS, SWEEP_SECONDS = "20", "1"


@dataclass(frozen=True)
class Result:
    """What came back, and what the service said about how."""

    weights: bytes
    pictures: list[bytes]
    jobs: dict[str, Json]


def run_demo(directory: Path, output: Path, photo: Path | None) -> None:
    """Start everything, play the phone, save the results, stop everything."""
    begun = time.monotonic()
    content, name = read_photo(photo, cache=directory)
    given = Settings()
    patient = {"lease_seconds": LEASE_SECONDS, "sweep_seconds": SWEEP_SECONDS}
    with running_stack(directory, given, say, port=free_ports(1)[0], defaults=patient) as (stack, _):
        started = time.monotonic()
        result = play_phone(stack, content, name)
        finished = time.monotonic()
        save(result, content, output)
    report(result, output, waited=finished - started, total=time.monotonic() - begun)


def read_photo(photo: Path | None, *, cache: Path) -> tuple[bytes, str]:
    """The caller's photo, or that of a rendered person."""
    if photo is not None:
        return photo.read_bytes(), photo.name
    from cli.portrait import DEMO_PERSON, held_out_portrait

    say("no photo given: rendering a person who doesn't exist (give yours with --photo, or make demo PHOTO=me.jpg)")
    return held_out_portrait(DEMO_PERSON, cache=cache / "portraits"), "portrait.jpg"


def play_phone(stack: Stack, photo: bytes, name: str) -> Result:
    """The phone waits in a thread of its own, while this one keeps the stack alive."""

    def play() -> Result:
        with short_lived_key(stack.settings) as key, Phone(stack.url, key) as phone, progress_bars() as bars:
            return visit(phone, photo, name, bars)

    future = in_background(play)
    stack.run_until(future.done)
    return future.result()


def visit(phone: Phone, photo: bytes, name: str, bars: Progress) -> Result:
    """The story: send the photo, wait, take the weights, order pictures, wait, fetch them."""
    phone.cancel_leftovers()
    created = phone.send_photo(photo, name=name)
    subject = created["subject"]["id"]
    personalized = phone.follow(created["job"], watcher(bars, "personalize"))
    weights = phone.weights(subject)
    ordered = phone.order_pictures(subject, list(PROMPTS.values()), count=PICTURES_OF_EACH, seed=SEED)
    drawn = phone.follow(ordered["job"], watcher(bars, "generate"))
    pictures = phone.pictures(ordered["generation"]["id"])
    return Result(weights, pictures, {"personalize": personalized, "generate": drawn})


def progress_bars() -> Progress:
    """One bar a job: its phase, steps and estimate are the service's own words."""
    text = TextColumn("{task.description:12} {task.fields[story]}")
    bars = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(text, *bars, console=console, disable=not console.is_terminal)


def watcher(bars: Progress, description: str) -> Callable[[Json], None]:
    """Shows each state of a job that differs from the last; without a terminal, each phase in a line."""
    bar = bars.add_task(description, total=1.0, story="")
    told: list[tuple[str, str, int]] = []

    def watch(job: Json) -> None:
        bars.update(bar, completed=job["progress"]["fraction"], story=f"{story(job):44}")
        now = (job["status"], job["phase"], job["attempt"])
        if bars.disable and now not in told:
            told.append(now)
            say(f"{description:12} {story(job)}")

    return watch


def story(job: Json) -> str:
    """A job's state in a line: status, phase, step, attempt, estimate."""
    words = [job["phase"] if job["status"] == "running" and job["phase"] else job["status"]]
    if job["progress"]["total_steps"] and job["status"] == "running":
        words.append(f"step {job['progress']['step']} of {job['progress']['total_steps']}")
    if job["attempt"] > 1:
        words.append(f"attempt {job['attempt']}")
    if job["eta_seconds"] is not None and job["status"] in {"queued", "running"}:
        words.append(f"about {job['eta_seconds']} s left")
    return ", ".join(words)


def save(result: Result, photo: bytes, output: Path) -> None:
    """Everything that came back, under one folder."""
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    upright(photo).save(output / "photo.png")
    contact_sheet(photo, result.pictures, CAPTIONS).save(output / "grid.png")
    (output / "weights.safetensors").write_bytes(result.weights)
    for number, (caption, picture) in enumerate(zip(CAPTIONS, result.pictures, strict=True)):
        name = f"{caption.replace(' ', '-')}-{number % PICTURES_OF_EACH + 1}.png"
        (output / "pictures" / name).write_bytes(picture)


def report(result: Result, output: Path, *, waited: float, total: float) -> None:
    """What happened, as the service measured it."""
    table = Table("job", "phase", "seconds", "attempt")
    for kind, job in result.jobs.items():
        for phase in PHASES[JobKind(kind)]:
            table.add_row(kind, phase, f"{job['timings'].get(phase, 0):.1f}", str(job["attempt"]))
    console.print(table)
    say(f"weights: {len(result.weights):,} bytes   pictures: {len(result.pictures)}   in {output}/")
    say(f"the phone waited {waited:.0f} s; with starting and stopping the service {total:.0f} s")


def in_background(work: Callable[[], Result]) -> "Future[Result]":
    """Run in a daemon thread: Ctrl-C must not wait for it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
