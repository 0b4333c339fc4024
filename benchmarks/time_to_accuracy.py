"""Seconds and FLOPs to 70, 80 and 90 % test accuracy on CIFAR-10: the CPU recipe (SCE and MMC) against the paper's network in a plain loop.

Ours is the shortest of a few schedules (1, 2, 4 and 8 epochs, each ending at rate zero) that reaches a mark, as fit() runs it. The plain
loop is that of benchmarks/training.py at the paper's constant rate; it is looked at every 5,000 images until --minutes are over, and
the marks that it has not reached by then are said to be beyond. Passes over the test set are not counted on either side. What a run
with --out has measured stays there, each schedule of ours by itself; the same command on the same machine measures the rest.
"""

import argparse

import torch
from common import earlier, finish, keep, parse, processor
from torch.utils.flop_counter import FlopCounterMode
from training import network, plain_loop

from mmclib import centers, data, evaluation, losses, models
from mmclib.training import Recipe, fit

MARKS, SCHEDULES = (0.7, 0.8, 0.9), (1, 2, 4, 8)
CONTESTANTS = ("mmclib sce", "mmclib mmc", "plain, the paper's network")


def classifier(head, mean):
    torch.manual_seed(0)
    if head == "sce":
        return models.Classifier(models.airbench(), losses.SoftmaxCrossEntropy(10, 256), mean)
    preset = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 256), scale=1.0)
    return models.Classifier(models.airbench(feature_scale=10.0), preset, mean)


def ours(head, train, test, options, curve):
    """Yield what each schedule ends at, until the last mark is reached; the first are those of `curve`, measured by an earlier run."""
    accuracy = 0.0
    for epochs in options.schedules:
        if accuracy >= MARKS[-1]:
            return
        known = [look for look in curve if look["epochs"] == epochs]
        if known:
            accuracy = known[0]["test_accuracy"]
            continue
        recipe = Recipe(epochs=epochs, batch_size=250, learning_rate=0.1, momentum=0.6, optimizer="muon", schedule="linear", shift=0.0625,
                        fill="reflect", flip="alternating", half=True)
        result = fit(classifier(head, train[0].float().mean(0) / 255), train, test, recipe=recipe, seed=0, precision=options.precision,
                     progress=False)
        accuracy = evaluation.accuracy(result.model, *test).accuracy
        yield {"epochs": epochs, "images": epochs * len(train[1]), "seconds": round(result.history[-1]["seconds"], 1),
               "test_accuracy": accuracy}


def plain(train, test, options):
    """Yield what the plain loop has reached at each look."""
    options.batch, options.architecture, options.blocks, options.device = 50, "resnet", 5, "cpu"
    model, seconds, images, accuracy = network(options, "sce"), 0.0, 0, 0.0
    block = plain_loop(*train, options, False, model)
    while seconds < 60 * options.minutes and accuracy < MARKS[-1]:
        seconds, images = seconds + block(options.look), images + options.look * options.batch
        accuracy = evaluation.accuracy(model, *test).accuracy
        yield {"images": images, "seconds": round(seconds, 1), "test_accuracy": accuracy}


def flops(model):
    """Of one image's training step: forward, and twice that backward."""
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 32, 32)).sum().backward()
    return counter.get_total_flops()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="of the plain loop")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["sce", "mmc", "plain"], help="sce, mmc or plain, or several")
    parser.add_argument("--small", action="store_true", help="500 images, one epoch, one look: does it run?")
    options = parse(parser, workers=2, device="cpu")
    options.schedules, options.look = SCHEDULES, 100
    train, test = (data.load("cifar10", split) for split in ("train", "test"))
    if options.small:
        train, test = tuple(tensor[:500] for tensor in train), tuple(tensor[:100] for tensor in test)
        options.schedules, options.look, options.minutes = SCHEDULES[:1], 1, 0.01
    mean = train[0].float().mean(0) / 255
    networks = [classifier("sce", mean), classifier("mmc", mean), models.Classifier(models.resnet(5), losses.SoftmaxCrossEntropy(10, 256))]
    head = {"benchmark": "time_to_accuracy", "machine": processor(), "threads": options.threads, "torch": torch.__version__,
            "precision": options.precision, "training_images": len(train[1]),
            "flops_per_image": dict(zip(CONTESTANTS, map(flops, networks), strict=True))}
    result = earlier(head, options.out) or head | {"curves": {}, "ended": []}
    for name in CONTESTANTS:
        kind = name.removeprefix("mmclib ").partition(",")[0]
        known = result["curves"].get(name, [])
        if kind not in options.only or name in result["ended"]:
            continue
        if kind == "plain":  # interrupted, it has lost its weights
            known, looks = [], plain(train, test, options)
        else:
            looks = ours(kind, train, test, options, known)
        for look in looks:
            print(f"{name}: {look}", flush=True)
            known = [*known, look]
            result["curves"][name] = known
            keep(result | {"markdown": markdown(result)}, options.out)
        result["ended"].append(name)
    finish(result, markdown(result), options.out)


def markdown(result):
    lines = [f"CIFAR-10, seconds (and PFLOP) of training to a test accuracy; {result['machine']}, {result['threads']} threads, torch "
             f"{result['torch']}; ours in {result['precision']}, the plain loop in float32", "",
             "| | " + " | ".join(f"{100 * mark:.0f} %" for mark in MARKS) + " | best |", "|---|" + "---:|" * (len(MARKS) + 1)]
    for name, curve in result["curves"].items():
        cells = [_cell(result, name, mark) for mark in MARKS]
        best = max(curve, key=lambda look: look["test_accuracy"])
        cells.append(f"{best['test_accuracy']:.1%} after {best['seconds']:,.0f}"
                     + ("" if name in result["ended"] else f"; so far, after {curve[-1]['seconds']:,.0f}"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _first(curve, mark):
    return next((look for look in curve if look["test_accuracy"] >= mark), None)


def _cell(result, name, mark):
    """When a contestant reached a mark; of the plain loop also how many times longer that is than each of ours."""
    first = _first(result["curves"][name], mark)
    if first is None and name not in result["ended"] and name != CONTESTANTS[-1]:  # the plain loop is beyond a mark at its every look
        return "not measured yet"
    seconds = result["curves"][name][-1]["seconds"] if first is None else first["seconds"]
    text = f"> {seconds:,.0f}" if first is None else f"{seconds:,.0f} ({first['images'] * result['flops_per_image'][name] / 1e15:.3f})"
    ours = [look for other in CONTESTANTS[:-1] if (look := _first(result["curves"].get(other, []), mark)) is not None]
    if name == CONTESTANTS[-1] and ours:
        times = [f"{seconds / look['seconds']:.1f}" for look in ours]
        text += f", {'> ' if first is None else ''}{' and '.join(times)} times ours"
    return text


if __name__ == "__main__":
    main()
