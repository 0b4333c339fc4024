"""FMN and DDN beside adv-lib's, on the same models, images and steps: median distances, and the passes of both.

    python benchmarks/minimum_norm.py [--models cpu-sce,cpu-mmc-10] [--images 100] [--steps 100] [--out FILE.json]

The models are released ones of CIFAR-10. adv-lib's DDN climbs cross-entropy, which is blind on distance logits: there it also gets a model
whose logits are divided by 2C², which changes no answer. Prints a Markdown table; seconds are not compared.
"""

import argparse
import sys
import types

import torch
from common import earlier, keep, parse, processor
from torch import nn

from mmclib import attacks, data, evaluation, losses, zoo

MODELS = "cpu-sce,cpu-mmc-10,cpu-at-un-sce,cpu-at-un-mmc-10"


def main():
    options = _options()
    images, labels = (tensor[:options.images] for tensor in data.load("cifar10", "test"))
    images = images.float() / 255
    head = {"benchmark": "minimum_norm", "machine": processor(), "threads": options.threads, "torch": torch.__version__,
            "images": options.images, "steps": options.steps}
    rows = (earlier(head, options.out) or {"rows": []})["rows"]
    for name in options.models.split(","):
        if any(row["model"] == name for row in rows):
            continue
        rows = rows + [{"model": name} | row for row in _compare(zoo.load_released(name), images, labels, options.steps)]
        keep(head | {"rows": rows, "markdown": markdown(head, rows)}, options.out)
    print(markdown(head, rows))


def _options():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", default=MODELS, help="released models, with commas between them")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=100)
    return parse(parser, device="cpu")


class Counted(nn.Module):
    """A model that counts the images it is given, forwards and backwards, and divides its logits."""

    def __init__(self, model, divisor=1.0):
        super().__init__()
        self.model, self.divisor, self.passes = model, divisor, 0

    def forward(self, images):
        self.passes += len(images)
        if images.requires_grad:
            images.register_hook(self._count)
        return self.model(images) / self.divisor

    def _count(self, gradient):
        self.passes += len(gradient)


def _compare(model, images, labels, steps):
    """Yield for each attack its median distances and passes an image: ours, and adv-lib's."""
    theirs = _adv_lib()
    divisors = {"adv-lib": 1.0}
    if isinstance(model.head, losses.MaxMahalanobisCenter):
        divisors["adv-lib, logits / 2C²"] = 2 * model.head.scale * float(model.head.centers.square().sum(1).mean())
    for name, kind in (("fmn", {"norm": float("inf")}), ("ddn", {"levels": None})):
        ours = evaluation.minimal_distortion(model, images, labels, getattr(attacks, name), steps=steps)
        passes = (ours.queries + ours.gradients).double().mean().item()
        yield _row(name, "mmclib", ours.success, ours.distortion, passes)
        for contestant, divisor in divisors.items():
            if name == "fmn" and divisor != 1:  # which climbs the margin of the logits, whatever their scale
                continue
            counted = Counted(model, divisor)
            torch.manual_seed(0)  # theirs draws a direction where the gradient is zero
            found = getattr(theirs, name)(counted, images, labels, steps=steps, **kind)
            change, fooled = (found - images).flatten(1), model(found).argmax(1) != labels
            distance = change.abs().amax(1) if name == "fmn" else change.norm(dim=1)
            yield _row(name, contestant, fooled, distance, counted.passes / len(images))


def _adv_lib():
    if "visdom" not in sys.modules:  # its plots are not wanted here, but it imports them
        sys.modules["visdom"] = types.ModuleType("visdom")
        sys.modules["visdom"].Visdom = object
    import adv_lib.attacks
    return adv_lib.attacks


def _row(attack, contestant, fooled, distance, passes):
    reached = torch.where(fooled, distance, torch.inf)
    return {"attack": attack, "contestant": contestant, "fooled": int(fooled.sum()), "median": float(reached.median()),
            "passes": round(passes, 1)}


def markdown(head, rows):
    lines = [f"FMN (l_inf, in 1/255) and DDN (l_2), {head['steps']} steps, the first {head['images']} test images of CIFAR-10; "
             f"{head['machine']}, torch {head['torch']}", "",
             "| model | attack | contestant | fooled | median distance | ours over theirs | passes an image |",
             "|---|---|---|---:|---:|---:|---:|"]
    ours = {(row["model"], row["attack"]): row["median"] for row in rows if row["contestant"] == "mmclib"}
    for row in rows:
        scale, unit = (255, "/255") if row["attack"] == "fmn" else (1, "")
        found = row["median"] < float("inf")
        ratio = f"{ours[row['model'], row['attack']] / row['median']:.3f}" if found and row["contestant"] != "mmclib" else ""
        median = f"{scale * row['median']:.3f}{unit}" if found else "none"
        lines.append(f"| {row['model']} | {row['attack'].upper()} | {row['contestant']} | {row['fooled']} | {median} | {ratio} "
                     f"| {row['passes']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
