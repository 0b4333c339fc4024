"""The long form of the tests of lost work and wrong numbers: `make torture`, or a part: `python -m tests.torture --kills 4 --seed 1`.

The last line counts, per kind, what was tried, what finished work was lost, what fault was not named, what number was silently wrong.
"""

import argparse
import json
import random
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from artifact import experiment, receipts
from benchmarks.common import keep, processor
from tests.artifact.tiny import told
from tests.killing import Count, kills, twice, without_git

QUICK = experiment.ROOT / "results" / "quick"


def flips(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Flip one bit of a sealed receipt; right is the same content read, or the file named with the remedy."""
    known = sorted(QUICK.rglob("*.json"))
    for _ in range(count):
        source = chance.choice(known)
        path = folder / "quick" / source.relative_to(QUICK)
        before = receipts.read_receipt(source)
        receipts.write_receipt(path, before)
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        _judge(found, path, before)


def edits(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Change a number, cut, swap or double a line of an unsealed receipt; right as for flips, and provenance is not looked at."""
    known = sorted(QUICK.glob("evaluations/*/pgd-*.json"))
    for number in range(count):
        source, other = chance.sample(known, 2)
        path = folder / "quick" / source.relative_to(QUICK)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = receipts.read_receipt(source)
        receipt = _unsealed(source)
        text = json.dumps(receipt)
        kind = number % 5
        if kind == 0:
            receipt["results"]["accuracy"] = chance.choice([chance.random(), -1, 1e308, True, None, float("nan")])
            text = json.dumps(receipt)
        elif kind == 1:
            text = text[:chance.randrange(len(text) - 2)]
        elif kind == 2:
            text = json.dumps(_unsealed(other))
        elif kind == 3:
            key = chance.choice(sorted(receipt["config"]))
            receipt["config"][key] = "another"
            text = json.dumps(receipt)
        else:
            text = text.replace('"results"', '"results": {"accuracy": 1.0}, "results"', 1)
        path.write_text(text, encoding="utf-8")
        _judge(found, path, before)


def _unsealed(path: Path) -> dict:
    """A receipt as the first ones are: without the checksum, which would see any change."""
    return {key: value for key, value in receipts.read_receipt(path).items() if key != "sha256"}


def _judge(found: Count, path: Path, before: dict) -> None:
    found.tried += 1
    try:
        if told(receipts.read_receipt(path)) != told(before):
            found.note("wrong", f"{path.name} is drawn with another content")
    except Exception as error:
        if str(path) not in str(error) or "delete it and run the same command again" not in str(error):
            found.note("unnamed", f"{type(error).__name__}: {error}")


def full_disk(folder: Path, count: int, chance: random.Random, found: Count) -> None:
    """Let no file grow beyond a few bytes, as where the disk is full: the old receipt stays, no half file, one OSError."""
    source = sorted(QUICK.glob("models/*.json"))[0]
    path = folder / "full" / "models" / source.name
    receipt = receipts.read_receipt(source)
    receipts.write_receipt(path, receipt)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for _ in range(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randrange(len(before)), limits[1]))
        found.tried += 1
        try:
            receipts.write_receipt(path, receipt)
            found.note("unnamed", "a receipt was written where there was no space")
        except OSError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        if path.read_bytes() != before or len(list(path.parent.iterdir())) != 1:
            found.note("lost", "the receipt that was there is not what it was, or has half a file beside it")
    signal.signal(signal.SIGXFSZ, ignored)


# What is done, in this order, and how often where nothing is asked for.
INJURIES = {"flips": (flips, 200), "edits": (edits, 60), "disks": (full_disk, 20), "without-git": (without_git, 1), "twice": (twice, 2),
            "kills": (kills, 30)}


def main(arguments=None) -> int:
    usually = ", ".join(f"--{name} {usual}" for name, (_, usual) in INJURIES.items())
    parser = argparse.ArgumentParser(
        prog="torture", description=f"Injure runs and receipts at random and count what comes of it; with none named, all: {usually}")
    for name in INJURIES:
        parser.add_argument(f"--{name}", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", metavar="FILE.json", help="also keep the counts, the time and the processor there")
    options, began, counts = vars(parser.parse_args(arguments)), time.perf_counter(), {}
    asked = {name: options[name.replace("-", "_")] for name in INJURIES}
    if not any(asked.values()):
        asked = {name: usual for name, (_, usual) in INJURIES.items()}
    if sys.platform != "linux":  # processes are looked up in /proc
        asked |= {"twice": 0, "kills": 0}
    with tempfile.TemporaryDirectory() as name:
        try:
            for kind in (kind for kind in INJURIES if asked[kind]):
                counts[kind] = Count()
                (folder := Path(name) / kind).mkdir()
                INJURIES[kind][0](folder, asked[kind], random.Random(f"{options['seed']} {kind}"), counts[kind])
        except KeyboardInterrupt:
            print("broken off; so far:", flush=True)
    for kind, count in counts.items():
        for note in count.notes:
            print(f"{kind}: {note}")
    said = "; ".join(f"{kind} {count.says()}" for kind, count in counts.items())
    seconds = time.perf_counter() - began
    print(f"torture: {said}; {seconds:.0f} s")
    keep({"benchmark": "torture", "device": processor(), "seed": options["seed"], "seconds": seconds,
          "counts": {kind: vars(count) for kind, count in counts.items()}, "markdown": markdown(counts, seconds)}, options["out"])
    return 0 if all(count.right() for count in counts.values()) else 1


def markdown(counts: dict[str, Count], seconds: float) -> str:
    """The counts as a table."""
    rows = [f"| {kind} | {count.tried} | {count.lost} | {count.unnamed} | {count.wrong} |" for kind, count in counts.items()]
    head = ["| injury | tried | finished work lost | fault not named | number silently wrong |", "|---|---:|---:|---:|---:|"]
    return "\n".join([f"`make torture` on {processor()}: {seconds / 60:.0f} min", "", *head, *rows])


if __name__ == "__main__":
    sys.exit(main())
