"""The long form of the tests of lost work and wrong numbers: `make torture`, or `python -m tests.torture --kills 30 --flips 200 --seed 0`.

Kills are SIGKILL at random moments of the plain runner, Snakemake, its job or its kernel; whatever was killed, the same command must end
with the receipts of an undisturbed run. The last line counts, per kind, what was tried and what came out right.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from artifact import __main__ as command_line
from artifact import experiment, jobs, receipts
from tests.artifact.tiny import TINY, told

QUICK = experiment.ROOT / "results" / "quick"
EVERY_BATCH = "from mmclib import training; training.CHECKPOINT_SECONDS = 0.0; "


def outcomes(profile) -> dict:
    """What the models' receipts hold, but for clock times."""
    return {path.name: told(receipts.read_receipt(path)) for path in (experiment.results_folder(profile) / "models").glob("*.json")}


def fresh(folder: Path, name: str) -> experiment.Profile:
    os.environ |= {"MMC_RESULTS": str(folder / name / "results"), "MMC_CHECKPOINTS": str(folder / name / "checkpoints")}
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("train_on_the_spot: true", "train_on_the_spot: false"), encoding="utf-8")
    return experiment.load_profile(str(path))


def plain(profile) -> list[str]:
    program = f"{EVERY_BATCH}from artifact import __main__ as m; m.main(['run', '--profile', {profile.source!r}, '--only', 'train *'])"
    return [sys.executable, "-c", program]


def by_snakemake(profile) -> list[str]:
    todo = [job for job in jobs.plan(profile) if job.name.startswith("train ")]
    left = [job for job in todo if not job.done()]
    return command_line.snakemake(profile, left, 1, tuple(job.receipt for job in todo))


def family(pid: int) -> list[int]:
    """A process and all that it started, by /proc."""
    parents = {}
    for folder in os.listdir("/proc"):
        if folder.isdigit():
            try:
                parents[int(folder)] = int(Path(f"/proc/{folder}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found = [pid]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def kills(folder: Path, count: int, chance: random.Random) -> tuple[int, int, int]:
    """Kill at random moments until the trainings are done, over and over; returns tried, right, and finished trainings lost."""
    reference = fresh(folder, "undisturbed")
    subprocess.run(plain(reference), cwd=experiment.ROOT, stdout=subprocess.DEVNULL, check=True)
    expected = outcomes(reference)
    tried = right = lost = number = 0
    while tried < count:
        profile, number = fresh(folder, f"run {number}"), number + 1
        command, mine = (plain, by_snakemake)[number % 2], 0
        for longest in (12.0, 12.0, 12.0, None):  # the last is left alone
            done = {path: path.stat().st_mtime_ns for path in experiment.results_folder(profile).rglob("models/*.json")}
            process = subprocess.Popen(command(profile), cwd=experiment.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if longest is None or tried + mine >= count:
                process.wait()
            else:
                try:
                    process.wait(chance.uniform(2.0, longest))
                except subprocess.TimeoutExpired:
                    victim = chance.choice(family(process.pid))
                    try:
                        os.kill(victim, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                    mine += 1
                    if victim == process.pid or process.poll() is not None:
                        time.sleep(1.0)  # its children are told that it is gone
                    process.wait()
            lost += sum(not path.exists() or path.stat().st_mtime_ns != stamp for path, stamp in done.items())
        ended = outcomes(profile) == expected
        tried, right = tried + mine, right + mine * ended
        shutil.rmtree(folder / f"run {number - 1}", ignore_errors=True)
    return tried, right, lost


def flips(folder: Path, count: int, chance: random.Random) -> tuple[int, int]:
    """Flip one bit of a sealed receipt; right is the same content read, or the file named with the remedy."""
    found, right = sorted(QUICK.glob("models/*.json")) + sorted(QUICK.glob("evaluations/*/*.json")), 0
    for _ in range(count):
        source = chance.choice(found)
        path = folder / "quick" / source.relative_to(QUICK)
        before = receipts.read_receipt(source)
        receipts.write_receipt(path, before)
        content = bytearray(path.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        right += _named_or_same(path, before)
    return count, right


def edits(folder: Path, count: int, chance: random.Random) -> tuple[int, int]:
    """Change a number, cut, swap or double a line of an unsealed receipt; right as for flips, and provenance is not looked at."""
    found, right = sorted(QUICK.glob("evaluations/*/pgd-*.json")), 0
    for number in range(count):
        source, other = chance.sample(found, 2)
        path = folder / "quick" / source.relative_to(QUICK)
        path.parent.mkdir(parents=True, exist_ok=True)
        before = receipts.read_receipt(source)
        receipt = json.loads(source.read_text(encoding="utf-8"))
        text = source.read_text(encoding="utf-8")
        kind = number % 5
        if kind == 0:
            receipt["results"]["accuracy"] = chance.choice([chance.random(), -1, 1e308, True, None, float("nan")])
            text = json.dumps(receipt)
        elif kind == 1:
            text = text[:chance.randrange(len(text) - 2)]
        elif kind == 2:
            text = other.read_text(encoding="utf-8")
        elif kind == 3:
            key = chance.choice(sorted(receipt["config"]))
            receipt["config"][key] = "another"
            text = json.dumps(receipt)
        else:
            text = text.replace('"results"', '"results": {"accuracy": 1.0}, "results"', 1)
        path.write_text(text, encoding="utf-8")
        right += _named_or_same(path, before)
    return count, right


def _named_or_same(path: Path, before: dict) -> bool:
    try:
        return told(receipts.read_receipt(path)) == told(before)
    except ValueError as error:
        return str(path) in str(error) and "delete it and run the same command again" in str(error)


def full_disk(folder: Path, count: int, chance: random.Random) -> tuple[int, int]:
    """Let no file grow beyond a few bytes, as where the disk is full: the old receipt stays, no half file, one OSError."""
    source, right = sorted(QUICK.glob("models/*.json"))[0], 0
    path = folder / "full" / "models" / source.name
    receipt = receipts.read_receipt(source)
    receipts.write_receipt(path, receipt)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for _ in range(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (chance.randrange(len(before)), limits[1]))
        try:
            receipts.write_receipt(path, receipt)
        except OSError:
            right += path.read_bytes() == before and len(list(path.parent.iterdir())) == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, ignored)
    return count, right


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="torture")
    for name, usual in (("kills", 30), ("flips", 200), ("edits", 60), ("disks", 20), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options, began = parser.parse_args(arguments), time.perf_counter()
    chance, lost, counts = random.Random(options.seed), 0, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        counts["flips"] = flips(folder, options.flips, chance)
        counts["edits"] = edits(folder, options.edits, chance)
        counts["full disk"] = full_disk(folder, options.disks, chance)
        if options.kills and sys.platform == "linux":
            *counts["kills"], lost = kills(folder, options.kills, chance)
    said = ", ".join(f"{kind} {right} of {tried} right" for kind, (tried, right) in counts.items())
    print(f"torture: {said}; finished trainings lost {lost}; {time.perf_counter() - began:.0f} s")
    return 0 if lost == 0 and all(tried == right for tried, right in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
