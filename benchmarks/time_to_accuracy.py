"""Seconds and FLOPs to 70, 80 and 90 % test accuracy on CIFAR-10: the CPU recipe (SCE and MMC) against the paper's network in a plain loop.

Ours is the shortest of a few schedules (1, 2, 4 and 8 epochs, each ending at rate zero) that reaches a mark, as fit() runs it. The plain
loop is that of benchmarks/training.py at the paper's constant rate; it is looked at every 5,000 images until --minutes are over, and
the marks that it has not reached by then are said to be beyond. Passes over the test set are not counted on either side.
"""

import argparse

import torch
from common import finish, parse, processor
from torch.utils.flop_counter import FlopCounterMode
from training import network, plain_loop

from mmclib import centers, data, evaluation, losses, models
from mmclib.training import Recipe, fit

MARKS, SCHEDULES = (0.7, 0.8, 0.9), (1, 2, 4, 8)


def classifier(head, mean):
    torch.manual_seed(0)
    if head == "sce":
        return models.Classifier(models.airbench(), losses.SoftmaxCrossEntropy(10, 256), mean)
    preset = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 256), scale=1.0)
    return models.Classifier(models.airbench(feature_scale=10.0), preset, mean)


def ours(head, train, test, options):
    """Return {mark: [seconds, images seen]} and what each schedule ended at."""
    reached, ends = {}, []
    for epochs in SCHEDULES:
        recipe = Recipe(epochs=epochs, batch_size=250, learning_rate=0.1, momentum=0.6, optimizer="muon", schedule="linear", shift=0.0625,
                        fill="reflect", flip="alternating", half=True)
        result = fit(classifier(head, train[0].float().mean(0) / 255), train, test, recipe=recipe, seed=0, precision=options.precision,
                     progress=False)
        accuracy, seconds = evaluation.accuracy(result.model, *test).accuracy, result.history[-1]["seconds"]
        ends.append({"epochs": epochs, "seconds": round(seconds, 1), "test_accuracy": accuracy})
        print(f"mmclib {head}: {ends[-1]}", flush=True)
        for mark in MARKS:
            if accuracy >= mark:
                reached.setdefault(mark, [round(seconds, 1), epochs * len(train[1])])
        if len(reached) == len(MARKS):
            break
    return reached, ends


def plain(train, test, options):
    """Return the same for the paper's network in the plain loop."""
    options.batch, options.blocks, options.device = 50, 5, "cpu"
    model, reached, looks, seconds = network(options, "sce"), {}, [], 0.0
    block = plain_loop(*train, options, False, model)
    while seconds < 60 * options.minutes and len(reached) < len(MARKS):
        seconds += block(100)
        accuracy = evaluation.accuracy(model, *test).accuracy
        looks.append({"images": 5000 * (len(looks) + 1), "seconds": round(seconds, 1), "test_accuracy": accuracy})
        print(f"plain: {looks[-1]}", flush=True)
        for mark in MARKS:
            if accuracy >= mark:
                reached.setdefault(mark, [round(seconds, 1), looks[-1]["images"]])
    return reached, looks


def flops(model):
    """Of one image's training step: forward, and twice that backward."""
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 32, 32)).sum().backward()
    return counter.get_total_flops()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="of the plain loop")
    options = parse(parser, workers=2, device="cpu")
    train, test = (data.load("cifar10", split) for split in ("train", "test"))
    found = {f"mmclib {head}": ours(head, train, test, options) for head in ("sce", "mmc")}
    found["plain, the paper's network"] = plain(train, test, options)
    mean = train[0].float().mean(0) / 255
    per_image = {"mmclib sce": flops(classifier("sce", mean)), "mmclib mmc": flops(classifier("mmc", mean)),
                 "plain, the paper's network": flops(network(options, "sce"))}
    result = {"benchmark": "time_to_accuracy", "machine": processor(), "threads": options.threads, "torch": torch.__version__,
              "precision": options.precision, "minutes": options.minutes, "flops_per_image": per_image,
              "reached": {name: {f"{100 * mark:.0f}": value for mark, value in marks.items()} for name, (marks, _) in found.items()},
              "curves": {name: curve for name, (_, curve) in found.items()}}
    finish(result, markdown(result), options.out)


def markdown(result):
    lines = [f"CIFAR-10, seconds (and PFLOP) of training to a test accuracy; {result['machine']}, {result['threads']} threads, torch "
             f"{result['torch']}; ours in {result['precision']}, the plain loop in float32, ended after {result['minutes']:g} minutes", "",
             "| | " + " | ".join(f"{100 * mark:.0f} %" for mark in MARKS) + " |", "|---|" + "---:|" * len(MARKS)]
    for name, reached in result["reached"].items():
        cells = []
        for mark in (f"{100 * mark:.0f}" for mark in MARKS):
            seconds, images = reached.get(mark, (None, None))
            cells.append("beyond" if seconds is None else f"{seconds:,.0f} ({images * result['flops_per_image'][name] / 1e15:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
