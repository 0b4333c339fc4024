"""Does the fast training reach the plain loop's accuracy? Equal epochs on MNIST from the same initial weights, several seeds.

The plain loop draws its batches and augmentation from a DataLoader with torchvision's transforms (float32, NCHW, eager); both train
the small ConvNet by softmax cross-entropy with the paper's optimizer, the learning rate a tenth in the last epoch.
"""

import argparse
import copy
import statistics

import torch
import torch.nn.functional as F
from common import finish, parse, processor
from training import PlainImages

from mmclib import data, evaluation, losses, models
from mmclib.training import Recipe, fit

SHIFT = 3  # pixels either way: ten percent of 28, rounded as mmclib.training.batches rounds it


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=60000, help="of the training set")
    options = parse(parser, workers=1)
    train, test = (data.load("mnist", split) for split in ("train", "test"))
    train = tuple(tensor[:options.images] for tensor in train)
    recipe = Recipe(epochs=options.epochs, milestones=(options.epochs - 1,), flip=False)
    errors = {"plain": [], "mmclib": []}
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = models.Classifier(models.small_convnet(), losses.SoftmaxCrossEntropy(10, 64), mean=train[0].float().mean(0) / 255)
        other = copy.deepcopy(model)
        plain(other, train, recipe, options.workers)
        fit(model, train, test, recipe=recipe, seed=seed)
        for name, trained in (("plain", other), ("mmclib", model)):
            errors[name].append(100 * evaluation.accuracy(trained, *test).accuracy)
        print(f"seed {seed}: plain {errors['plain'][-1]:.2f} %, mmclib {errors['mmclib'][-1]:.2f} %", flush=True)
    result = {"benchmark": "accuracy", "machine": processor(), "torch": torch.__version__, "epochs": options.epochs,
              "train_images": len(train[1]), "test_accuracy": errors}
    finish(result, markdown(result), options.out)


def plain(model, train, recipe, workers):
    """Train as a tutorial does, the learning rate, weight decay and epochs being the recipe's."""
    loader = torch.utils.data.DataLoader(PlainImages(*train, SHIFT, recipe.flip), recipe.batch_size, shuffle=True, num_workers=workers,
                                         persistent_workers=workers > 0)
    kernels = [p for p in model.parameters() if p.ndim == 4]  # weight decay acts on convolution kernels only
    others = [p for p in model.parameters() if p.ndim != 4]
    optimizer = torch.optim.SGD([{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others}],
                                lr=recipe.learning_rate, momentum=recipe.momentum)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, recipe.milestones, recipe.decay)
    model.train()
    for _ in range(recipe.epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
    model.eval()


def markdown(result):
    means = {name: statistics.mean(values) for name, values in result["test_accuracy"].items()}
    gaps = [ours - theirs for ours, theirs in zip(result["test_accuracy"]["mmclib"], result["test_accuracy"]["plain"], strict=True)]
    lines = [f"Test accuracy (%) after {result['epochs']} epochs on {result['train_images']:,} images of MNIST, small ConvNet, SCE; "
             f"{result['machine']}, torch {result['torch']}", "",
             "| | " + " | ".join(f"seed {seed}" for seed in range(len(gaps))) + " | mean |", "|---|" + "---:|" * (len(gaps) + 1)]
    for name, values in result["test_accuracy"].items():
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f}" for value in values) + f" | {means[name]:.2f} |")
    lines.append("| difference | " + " | ".join(f"{gap:+z.2f}" for gap in gaps) + f" | {statistics.mean(gaps):+z.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
