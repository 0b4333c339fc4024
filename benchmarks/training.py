"""Training speed against a plain PyTorch loop: images per second, blocks of both alternating in one run; see --help.

The plain loop is what a tutorial has: a DataLoader that applies torchvision transforms to PIL images, float32, NCHW, eager; its
adversarial training crafts in evaluation mode with torch.autograd.grad (as TRADES does), which is the fastest plain way. It takes steps of
SGD; so do ours on the ResNet, while on airbench ours are the recipe's, with Muon.
The floor is the time that the same multiplications take as bare matrix products in our precision: no loop of direct convolutions
can be faster on the same machine.
"""

import argparse
import platform
import statistics
import time

import torch
import torch.nn.functional as F
from common import finish, parse, processor
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from mmclib import centers, data, losses, models
from mmclib.training import AdversarialTraining, Recipe
from mmclib.training.batches import batch, epoch_plan
from mmclib.training.step import WARM_UP, TrainingStep, can_compile, draw
from mmclib.training.trainer import make_optimizers

EPSILON, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10


class PlainImages(Dataset):
    """What torchvision's data sets are: one PIL image at a time, transformed."""

    def __init__(self, images, labels, shift=3, flip=True):
        self.images, self.labels = images.permute(0, 2, 3, 1).squeeze(3).numpy(), labels.tolist()  # PIL wants grey images as (H, W)
        crop = transforms.RandomCrop(images.shape[-1], padding=shift, padding_mode="edge")
        self.transform = transforms.Compose([crop, *[transforms.RandomHorizontalFlip()] * flip, transforms.ToTensor()])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def plain_loop(images, labels, options, adversarial, model=None):
    """Return a function that trains `count` batches (of `model`, or one of its own) and gives the seconds they took."""
    model = model or network(options, "sce")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(PlainImages(images, labels), options.batch, shuffle=True, drop_last=True, num_workers=options.workers,
                        pin_memory=options.device == "cuda", persistent_workers=options.workers > 0)

    def endless():
        while True:
            yield from loader

    batches = endless()

    def craft(pixels, truth):
        model.eval()
        current = (pixels + torch.empty_like(pixels).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
        for _ in range(STEPS):
            current.requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(current), truth), current)
            current = current.detach() + STEP_SIZE * gradient.sign()
            current = torch.min(torch.max(current, pixels - EPSILON), pixels + EPSILON).clamp(0, 1)
        model.train()
        return current

    def block(count):
        model.train()
        began = clock(options)
        for _ in range(count):
            pixels, truth = (tensor.to(options.device) for tensor in next(batches))
            if adversarial:
                pixels = craft(pixels, truth)
            optimizer.zero_grad()
            F.cross_entropy(model(pixels), truth).backward()
            optimizer.step()
        return clock(options) - began

    return block


def our_loop(images, labels, options, adversarial, head="sce", precision=None):
    """Return the same for this package: the steps of mmclib.training.fit, data resident as uint8."""
    attack = AdversarialTraining("untargeted", EPSILON, STEP_SIZE, STEPS, "cross_entropy" if head == "sce" else "untargeted_1")
    muon = {"optimizer": "muon", "learning_rate": 0.1, "momentum": 0.6} if options.architecture == "airbench" else {}  # as profile cpu
    recipe = Recipe(epochs=200, batch_size=options.batch, adversarial=attack if adversarial else None, **muon)
    model = network(options, head).to(memory_format=torch.channels_last)
    images, labels = images.to(options.device), labels.to(options.device)
    stepper = TrainingStep(model, make_optimizers(model, recipe), recipe, precision or options.precision, options.compile)
    plan = epoch_plan(len(labels), 32, 32, seed=0, epoch=0, device=options.device)
    losses_seen, position = [], 0

    def block(count):
        nonlocal position
        began = clock(options)
        for _ in range(count):
            start = position * options.batch % (len(labels) // options.batch * options.batch)
            pixels, truth = batch(images, labels, plan, start, start + options.batch)
            draws = draw(recipe.adversarial, pixels, truth, 10, seed=0, epoch=0, step=position)
            losses_seen.append(stepper(pixels, truth, draws)[0])
            position += 1
        return clock(options) - began

    return block


def matrix_products(options, adversarial, side=2048):
    """Return the floor as a loop: as many multiplications as a batch takes, in products of a shape that every device multiplies well."""
    model = network(options, "sce")
    pixels = torch.rand(options.batch, 3, 32, 32, device=options.device)
    with FlopCounterMode(display=False) as counter:
        model(pixels).sum().backward()
    # Forward, weight gradients and input gradients cost the same; an attack step takes the first and the last.
    wanted = counter.get_total_flops() * ((2 * STEPS + 3) / 3 if adversarial else 1)
    each = 2 * side**3
    matrix = torch.randn(side, side, device=options.device, dtype=getattr(torch, options.precision))

    def block(count):
        products = max(1, round(count * wanted / each))
        began = clock(options)
        for _ in range(products):
            matrix @ matrix
        return (clock(options) - began) * count * wanted / (products * each)

    return block


def network(options, head):
    torch.manual_seed(0)
    heads = {"sce": lambda: losses.SoftmaxCrossEntropy(10, 256),
             "mmc": lambda: losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 256))}
    airbench = options.architecture == "airbench"
    body = models.airbench(feature_scale=10.0 if head == "mmc" else 1.0) if airbench else models.resnet(options.blocks)
    return models.Classifier(body, heads[head](), mean=torch.full((3, 32, 32), 0.5)).to(options.device)


def clock(options):
    if options.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def compare(loops, options, count):
    """Alternate blocks of all loops; return images per second by name, one number a round."""
    for loop in loops.values():
        loop(WARM_UP + 1)  # compilation, autotuning, graph capture, the DataLoader's workers
    speeds = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            speeds[name].append(options.batch * count / loop(count))
    return speeds


def row(name, speeds, ours, reference):
    """Medians, and the median and range of the ratios of neighbouring blocks, which share what else the machine did."""
    ratios = sorted(a / b for a, b in zip(speeds[ours], speeds[reference], strict=True))
    return {"comparison": name, "images_per_second": {key: round(statistics.median(speeds[key]), 1) for key in (ours, reference)},
            "ratio": round(statistics.median(ratios), 3), "ratio_range": [round(ratios[0], 3), round(ratios[-1], 3)]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split(";")[0])
    parser.add_argument("--small", action="store_true", help="one block a stage, a few steps, nothing compiled: does it run?")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--architecture", choices=("resnet", "airbench"), default="resnet", help="the paper's, or the CPU recipe's")
    parser.add_argument("--blocks", type=int, default=5, help="of the ResNet")
    parser.add_argument("--batch", type=int, help="50 images for the ResNet as in the paper, 250 for airbench as in profile cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parse(parser, workers=2, device="option")
    options.batch = options.batch or {"resnet": 50, "airbench": 250}[options.architecture]
    if options.small:
        options.blocks, options.rounds, options.compile = 1, 3, False
    options.compile = options.compile and can_compile(options.device)
    try:
        (images, labels), source = (tensor[:5000] for tensor in data.load("cifar10", "train")), "CIFAR-10"
    except FileNotFoundError:  # speed does not depend on what is in the pictures
        images, labels = torch.randint(0, 256, (5000, 3, 32, 32), dtype=torch.uint8), torch.arange(5000) % 10
        source = "noise of CIFAR-10's shape"
    other = "float32" if options.precision == "bfloat16" else "bfloat16"
    standard, attacks = {"cpu": (6, 1), "cuda": (200, 40)}[options.device]
    rows = []
    speeds = compare({"plain": plain_loop(images, labels, options, False), "mmclib SCE": our_loop(images, labels, options, False),
                      "mmclib MMC": our_loop(images, labels, options, False, "mmc"), "floor": matrix_products(options, False),
                      f"in {other}": our_loop(images, labels, options, False, precision=other)}, options, standard)
    rows.append(row("standard training, SCE", speeds, "mmclib SCE", "plain"))
    rows.append(row("its floor: the multiplications alone", speeds, "floor", "plain"))
    rows.append(row("MMC against SCE, standard training", speeds, "mmclib MMC", "mmclib SCE"))
    rows.append(row(f"{options.precision} against {other}, SCE", speeds, "mmclib SCE", f"in {other}"))
    speeds = compare({"plain": plain_loop(images, labels, options, True), "mmclib SCE": our_loop(images, labels, options, True),
                      "floor": matrix_products(options, True)}, options, attacks)
    rows.append(row("adversarial training (PGD-10), SCE", speeds, "mmclib SCE", "plain"))
    rows.append(row("its floor: the multiplications alone", speeds, "floor", "plain"))
    device = torch.cuda.get_device_name() if options.device == "cuda" else processor()
    result = {"benchmark": "training", "device": device, "threads": torch.get_num_threads(), "torch": torch.__version__,
              "python": platform.python_version(), "data": source, "rows": rows,
              **{key: getattr(options, key) for key in ("architecture", "blocks", "batch", "rounds", "precision", "compile", "workers")}}
    finish(result, markdown(result), options.out)


def markdown(result):
    name = "airbench" if result["architecture"] == "airbench" else f"ResNet v2 n = {result['blocks']}"
    lines = [f"Training, {name}, batch {result['batch']}, {result['device']}, {result['threads']} threads, "
             f"torch {result['torch']}, {result['precision']}, {'compiled' if result['compile'] else 'eager'}; "
             f"medians of {result['rounds']} alternating blocks", "",
             "| comparison | images/s | against | ratio (range) |", "|---|---|---|---|"]
    for line in result["rows"]:
        (ours, fast), (reference, slow) = line["images_per_second"].items()
        low, high = line["ratio_range"]
        lines.append(f"| {line['comparison']} | {fast:,} ({ours}) | {slow:,} ({reference}) | {line['ratio']:.2f} ({low:.2f}–{high:.2f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
