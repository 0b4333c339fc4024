"""Seconds and strength of our attacks beside Foolbox, torchattacks and AutoAttack (pyautoattack), each as its users run it.

    python benchmarks/attacks.py [--small] [--only pgd,spsa] [--images 256] [--model cpu-mmc-10] [--out FILE.json]

Same model, images, epsilon, step size and steps on the same machine, contestants alternating in one run. The model is a released one of
CIFAR-10 (--small: a ResNet, n = 1, on digits, trained on the spot).
Prints a Markdown table; the ratio is their seconds over ours.
"""

import argparse
import datetime
import json
import statistics
import time
import warnings
from importlib import metadata

import torch
from common import earlier, keep, parse, processor

from mmclib import attacks, centers, data, evaluation, losses, models, training, zoo

EPSILON, STEP = 8 / 255, 2 / 255
BATCH = 250  # AutoAttack's own


def main():
    options = _options()
    warnings.simplefilter("ignore")  # the libraries' own; a masked gradient shows in the table as robust accuracy
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, name, images, labels, clean = _model(options, device)
    print(f"{name}, clean accuracy {clean:.1%}, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n", flush=True)
    chip = torch.cuda.get_device_name() if device == "cuda" else processor()
    machine = f"{chip}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    versions = {package: _version(package) for package in ("torch", "foolbox", "torchattacks", "pyautoattack", "mmclib")}
    head = {"benchmark": "attacks", "model": name, "clean_accuracy": clean, "machine": machine, "epsilon": EPSILON, "versions": versions}
    kept = earlier(head, options.out)
    rows = kept["rows"] if kept else []
    for bench in (_pgd, _mim, _carlini_wagner, _spsa, _auto):
        title = bench.__name__.strip("_")
        if title not in options.only:
            continue
        rounds = options.rounds if bench in (_pgd, _mim, _spsa) else 1
        rows = [row for row in rows if row["attack"] != title] + _compare(
            title, *bench(model, images, labels, options), model, labels, rounds
        )
        # After each attack: the slow peers take long enough to be interrupted.
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        keep(head | {"markdown": _markdown(name, clean, machine, rows), "when": when, "rows": rows}, options.out)
    print(f"\n{_markdown(name, clean, machine, rows)}")


def _pgd(model, images, labels, options):
    import foolbox
    import torchattacks
    steps = 10 if options.small else 50
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
    fool = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps)

    def blind():
        return attacks.pgd(model, images, labels, objective="cross_entropy", epsilon=EPSILON, step_size=STEP, steps=steps).images

    def ours(objective):
        return lambda: attacks.pgd(model, images, labels, objective=objective, epsilon=EPSILON, step_size=STEP, steps=steps).images
    return f"PGD-{steps}, {len(images)} images", images, {
        "mmclib, margin": ours("untargeted_2"), "mmclib, un1": ours("untargeted_1"), "mmclib, cross-entropy": blind,
        "foolbox": lambda: fool(wrapped, images, labels, epsilons=EPSILON)[1],
        "torchattacks": lambda: torchattacks.PGD(model, eps=EPSILON, alpha=STEP, steps=steps)(images, labels)}


def _mim(model, images, labels, options):
    import torchattacks
    return (
        f"MIM-10, {len(images)} images",
        images,
        {
            "mmclib, margin": lambda: (
                attacks.mim(model, images, labels, objective="untargeted_2", epsilon=EPSILON, step_size=STEP, steps=10).images
            ),
            "torchattacks": lambda: torchattacks.MIFGSM(model, eps=EPSILON, alpha=STEP, steps=10)(images, labels),
        },
    )


def _carlini_wagner(model, images, labels, options):
    import foolbox
    images, labels = images[:options.few], labels[:options.few]
    wrapped, steps = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device), 50 if options.small else 1000
    hyper = {"binary_search_steps": 9, "initial_const": 0.01, "steps": steps}
    fool = foolbox.attacks.L2CarliniWagnerAttack(stepsize=0.005, **hyper)
    return f"C&W 9 x {steps}, {len(images)} images", images, {
        "mmclib": lambda: attacks.carlini_wagner(model, images, labels, learning_rate=0.005, **hyper).images,
        "foolbox": lambda: fool(wrapped, images, labels, epsilons=None)[1]}


def _spsa(model, images, labels, options):
    images, labels = images[:options.few], labels[:options.few]
    steps, evaluations = (2, 32) if options.small else (10, 128)

    def ours():  # no early stop: every image costs the same known number of evaluations
        return attacks.spsa(model, images, labels, epsilon=EPSILON, steps=steps, evaluations=evaluations, stop_early=False).images

    @torch.no_grad()
    def bare():
        batch = images[torch.arange(128, device=images.device) % len(images)]
        for _ in range(len(images) * steps * evaluations // 128):
            model.head.logits(model.features(batch))
        return images
    return f"SPSA-{evaluations}, {len(images)} images", images, {"mmclib": ours, "bare forward passes": bare}


def _auto(model, images, labels, options):
    import pyautoattack
    images = images[:options.strong]
    labels = labels[:len(images)]
    wanted = {"version": "custom", "attacks": ["apgd-t"]} if options.small else {"version": "standard"}
    theirs = pyautoattack.AutoAttack(model, norm="Linf", eps=EPSILON, device=images.device, seed=0, **wanted)
    return f"strongest, {len(images)} images", images, {
        "mmclib, multi_targeted": lambda: torch.cat([attacks.multi_targeted(model, *part, epsilon=EPSILON).images
                                                     for part in zip(images.split(BATCH), labels.split(BATCH), strict=True)]),
        "pyautoattack" + (", apgd-t" if options.small else ", standard"): lambda: theirs.run_standard_evaluation(images, labels)[0]}


def _compare(title, setting, images, contestants, model, labels, rounds):
    """Run the contestants in turn, `rounds` times; the first is what the others are measured against."""
    labels = labels[:len(images)]
    seconds, found = {name: [] for name in contestants}, {}
    for _ in range(rounds):
        for name, attack in contestants.items():
            torch.manual_seed(0)
            began = time.perf_counter()
            found[name] = attack().detach()
            if images.is_cuda:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
            print(f"  {setting}: {name} {seconds[name][-1]:.1f} s", flush=True)
    rows, first = [], statistics.median(next(iter(seconds.values())))
    for name, times in seconds.items():
        outcome = evaluation.accuracy(model, found[name].clamp(0, 1), labels)
        change = (found[name] - images).flatten(1)
        reached = ~outcome.correct.to(change.device)
        rows.append({"attack": title, "setting": setting, "contestant": name, "seconds": statistics.median(times), "rounds": rounds,
                     "ratio": statistics.median(times) / first, "robust_accuracy": outcome.accuracy,
                     "linf": change.abs().max().item(), "mean_l2_of_successes": change.norm(dim=1)[reached].mean().item()})
    return rows


def _model(options, device):
    """Return the model, its description, test images and labels of `options.images`, and its clean accuracy on them."""
    if options.small:
        model, name, test = _small_model()
    else:
        card = json.loads((zoo.FOLDER / f"{options.model}.json").read_text())
        name = f"{card['network']['architecture']}, loss {card['model']['loss']}, CIFAR-10 (released model {options.model})"
        model, test = zoo.load_released(options.model), data.load("cifar10", "test")
    model = model.to(device).eval()
    images, labels = (tensor[:options.images] for tensor in test)
    clean = evaluation.accuracy(model, images, labels).accuracy
    return model, name, (images.float() / 255).to(device), labels.to(device), clean


def _small_model():
    train, test = (data.load("digits", split) for split in ("train", "test"))
    torch.manual_seed(0)
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 256), scale=1.0)
    model = models.Classifier(models.resnet(blocks=1, in_channels=1), head, mean=train[0].float().mean(0) / 255)
    for layer in model.modules():  # a run this short needs batch statistics that move faster than the paper's
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1
    training.fit(model, train, test, recipe=training.Recipe(epochs=5, milestones=(4,), flip=False), seed=0)
    return model, "ResNet v2 n = 1, MMC-10, digits, 5 epochs", test


def _markdown(name, clean, machine, rows):
    lines = [
        f"{name}, clean accuracy {clean:.1%} on these images; {machine}",
        "",
        "| setting | contestant | seconds | times ours | robust accuracy | mean l2 of successes |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(f"| {row['setting']} | {row['contestant']} | {row['seconds']:.2f} | {row['ratio']:.2f} | {row['robust_accuracy']:.1%} "
              f"| {row['mean_l2_of_successes']:.4f} |")
    return "\n".join(lines)


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a dry run in about a minute: n=1 on digits, few steps")
    parser.add_argument("--only", type=lambda text: text.split(","), default=["pgd", "mim", "carlini_wagner", "spsa", "auto"])
    parser.add_argument("--model", choices=zoo.released(), default="cpu-mmc-10", help="the released model (cpu-mmc-10)")
    parser.add_argument("--images", type=int, help="for PGD and MIM (256)")
    parser.add_argument("--few", type=int, help="for C&W and SPSA, which cost hours (16)")
    parser.add_argument("--strong", type=int, help="for AutoAttack (64)")
    parser.add_argument("--rounds", type=int, help="of PGD, MIM and SPSA, of which the median counts (3)")
    options = parse(parser)
    for name, full, small in (("images", 256, 32), ("few", 16, 16), ("strong", 64, 16), ("rounds", 3, 1)):
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else full)
    return options


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
