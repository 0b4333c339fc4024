"""What the benchmarks share: options of the machine, its name, and how a result is printed and kept."""

import json
import os
import platform
import sys
from pathlib import Path

import torch

from mmclib.training.step import best_precision


def parse(parser, *, workers=None, device=None):
    """Return the options, with --out, and where they are asked for --workers, and --precision ("auto" resolved) and --threads (set).

    `workers` is the plain loop's default, None without a loop; `device` "cpu", or "option" for what --device says.
    """
    parser.add_argument("--out", metavar="FILE.json", help="also keep the numbers, versions and hardware there")
    if workers is not None:
        parser.add_argument("--workers", type=int, default=workers, help="the plain loop's DataLoader workers")
    if device is not None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
        parser.add_argument("--threads", type=int, default=cores)
        parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of ours")
    options = parser.parse_args()
    if device is not None:
        torch.set_num_threads(options.threads)
        if options.precision == "auto":
            options.precision = best_precision(options.device if device == "option" else device)
    return options


def finish(result, markdown, out):
    """Print a result's table and keep both in the file `out`, where one is named."""
    print(markdown)
    keep(result | {"markdown": markdown}, out)


def earlier(head, out):
    """Return what an earlier run under the same circumstances (`head`) kept in the file `out`, else None."""
    if not (out and Path(out).exists()):
        return None
    kept = json.loads(Path(out).read_text())
    return kept if all(kept.get(key) == value for key, value in head.items()) else None


def keep(result, out):
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        Path(out).write_text(json.dumps(result, indent=1) + "\n")


def processor():
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
