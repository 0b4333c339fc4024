"""Which body to train adversarially on a CPU: three of them by the same recipe (N-FGSM, SCE, as profile cpu) for a few epochs each.

Says for each its multiply-adds, the floating-point operations of its training, its clean accuracy and what PGD-10 on the margin leaves of
1,000 test images at 8/255. A training that is interrupted goes on; with --only, rows of earlier runs on the same machine are kept.
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from common import earlier, finish, parse, processor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmclib import attacks, data, evaluation, losses, models
from mmclib.training import AdversarialTraining, Recipe, fit

EPSILON, STEP_SIZE = 8 / 255, 2 / 255
PASSES = 5  # N-FGSM: forward and input gradient, then forward, input and weight gradients


class PreActivationBlock(nn.Module):
    """x + conv3(r(conv3(r(x)))) with r = silu(BN(.)), and a 1 x 1 convolution of r(x) where the shape changes (He et al., 2016b)."""

    def __init__(self, width_in, width, stride):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width_in), nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(width), nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.shortcut = None if width_in == width and stride == 1 else nn.Conv2d(width_in, width, 1, stride, bias=False)

    def forward(self, maps):
        ready = F.silu(self.norm1(maps))
        inner = self.conv2(F.silu(self.norm2(self.conv1(ready))))
        return inner + (maps if self.shortcut is None else self.shortcut(ready))


def preact_resnet18(feature_dim=256):
    """Return PreAct ResNet-18 with a stem of stride 2, up to its features: a quarter of the published one's multiply-adds."""
    layers, width_in = [nn.Conv2d(3, 64, 3, 2, 1, bias=False)], 64
    for width in (64, 128, 256, 512):
        for block in range(2):
            layers.append(PreActivationBlock(width_in, width, 2 if block == 0 and width > 64 else 1))
            width_in = width
    return nn.Sequential(*layers, nn.BatchNorm2d(512), nn.SiLU(), models.GlobalAveragePool(), nn.Linear(512, feature_dim))


BODIES = {"A": ("airbench, widths 64, 256, 256", models.airbench), "B": ("PreAct ResNet-18, stem of stride 2", preact_resnet18),
          "C": ("airbench, widths 128, 384, 384", lambda: models.airbench((128, 384, 384)))}


def trial(letter, train, test, options):
    """Train one body and return its row."""
    name, body = BODIES[letter]
    torch.manual_seed(0)
    model = models.Classifier(body(), losses.SoftmaxCrossEntropy(10, 256), train[0].float().mean(0) / 255)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.rand(1, 3, 32, 32))
    forward = counter.get_total_flops()
    attack = AdversarialTraining(epsilon=EPSILON, step_size=EPSILON, steps=1, noise=2.0, guard=0.2)
    recipe = Recipe(epochs=options.epochs, batch_size=250, learning_rate=0.1, momentum=0.6, optimizer="muon", schedule="linear",
                    shift=0.0625, fill="reflect", flip="alternating", half=True, adversarial=attack)
    folder = None if options.small else Path(__file__).parents[1] / "checkpoints" / "bodies" / f"{letter}-{options.epochs}"
    result = fit(model, train, test, recipe=recipe, seed=0, folder=folder, precision=options.precision)
    images, labels = test[0][:1000].float() / 255, test[1][:1000]
    robust = evaluation.robust_accuracy(result.model, images, labels, attacks.pgd, epsilon=EPSILON, step_size=STEP_SIZE, steps=10, seed=0)
    return {"body": letter, "name": name, "multiply_adds": forward // 2, "parameters": sum(p.numel() for p in model.parameters()),
            "flops": PASSES * forward * len(train[1]) * options.epochs, "seconds": round(result.history[-1]["seconds"], 1),
            "test_accuracy": evaluation.accuracy(result.model, *test).accuracy, "robust_accuracy": robust.accuracy}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="one epoch on 500 images, 100 test images: does it run?")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(BODIES), help="A, B or C, or several")
    parser.add_argument("--epochs", type=int, default=4)
    options = parse(parser, device="cpu")
    if unknown := set(options.only) - set(BODIES):
        parser.error(f"--only takes {', '.join(BODIES)}, got {', '.join(sorted(unknown))}")
    train, test = (data.load("cifar10", split) for split in ("train", "test"))
    if options.small:
        train, test, options.epochs = tuple(tensor[:500] for tensor in train), tuple(tensor[:100] for tensor in test), 1
    head = {"benchmark": "bodies", "machine": processor(), "threads": options.threads, "torch": torch.__version__,
            "precision": options.precision, "epochs": options.epochs, "images": len(train[1])}
    kept = earlier(head, options.out)
    rows = {row["body"]: row for row in kept["rows"]} if kept else {}
    for letter in options.only:
        rows[letter] = trial(letter, train, test, options)
        result = head | {"rows": [rows[letter] for letter in BODIES if letter in rows]}
        finish(result, markdown(result), options.out)


def markdown(result):
    lines = [f"N-FGSM at 8/255, SCE, {result['epochs']} epochs of {result['images']:,} images of CIFAR-10; {result['machine']}, "
             f"{result['threads']} thread(s), torch {result['torch']}, {result['precision']}", "",
             "| body | multiply-adds an image | parameters | PFLOP | clean | PGD-10, margin, 1,000 images |",
             "|---|---:|---:|---:|---:|---:|"]
    for row in result["rows"]:
        size = f"{row['multiply_adds'] / 1e6:.0f} M | {row['parameters'] / 1e6:.1f} M | {row['flops'] / 1e15:.3f}"
        lines.append(f"| {row['body']}: {row['name']} | {size} | {row['test_accuracy']:.1%} | {row['robust_accuracy']:.1%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
