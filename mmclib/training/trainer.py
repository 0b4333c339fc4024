"""fit(): epochs of steps with their states on disk, resumable to the bit, every second accounted for."""

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmclib import attacks
from mmclib.attacks.ledger import MASKED, GradientMaskingWarning
from mmclib.checks import NotFiniteError, warn
from mmclib.models import Classifier
from mmclib.modes import own_modes
from mmclib.seeds import derive
from mmclib.training.admission import check, try_backbone
from mmclib.training.batches import batch, epoch_plan
from mmclib.training.muon import Muon
from mmclib.training.progress import Progress
from mmclib.training.recipe import Recipe, plain
from mmclib.training.states import Run, begin_epoch, contents, everything, not_finite, restore, resume, save
from mmclib.training.step import TrainingStep, best_precision, can_compile, draw, worth_compiling

PROBED, RESTATED = 256, 5000  # training images of the guard's probe, and of the batch statistics of averaged weights
LOOK_SECONDS = 1.0  # how often the losses of a CUDA device are looked at: each look waits for it


def _checkpoint_seconds() -> float:
    """Seconds between two states, what a kill may cost; ValueError where MMC_CHECKPOINT_SECONDS is no number of seconds."""
    asked = os.environ.get("MMC_CHECKPOINT_SECONDS") or "60"
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"MMC_CHECKPOINT_SECONDS must be a number of seconds, at least 0, got {asked!r}")
    return seconds


CHECKPOINT_SECONDS = _checkpoint_seconds()


@dataclass(frozen=True)
class TrainingResult:
    """The model (the one given, trained), one dict for each whole epoch, whether all epochs are done, and the precision.

    History: epoch (from 1), learning_rate (of its first step), loss, train_accuracy (on the batches as trained on: augmented, and
    adversarial where the training is), test_accuracy (clean, in the training's precision), seconds (of training since the start over
    all resumes, evaluation not counted); where it is adversarial also zero_gradients (the share of the gradients that it was crafted by
    that are exactly zero), with a guard also probe (accuracy under it) and collapsed (was the epoch thrown away).
    """

    model: Classifier
    history: list[dict]
    finished: bool
    precision: str  # what features were computed in


def fit(model: Classifier, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, recipe: Recipe, seed: int,
        folder: str | Path | None = None, device: str | torch.device = "cpu", precision: str = "float32", compile: bool | str = "auto",
        stop: Callable[[], bool] | None = None, progress: bool = True) -> TrainingResult:
    """Train a Classifier on (uint8 images (N, C, H, W), labels (N,)); with a `folder`, go on from the state there and save into it.

    What lies in the folder replaces the weights that the model comes with. `stop()` is asked after each step: where it says True, the
    training ends there, unfinished, with its state saved. A mean of the model that is one zero is set to the training mean. Warns where
    crafting gradients vanish.
    On a CPU an interrupted training ends in the same bits as an uninterrupted one (same machine, same threads): what a step draws, dropout
    included, depends on the seed and the step alone, and the caller's generators are left as they were.
    Raises ValueError for bad input or a folder of another training, FloatingPointError for a loss that is not finite,
    MemoryError with advice where memory runs out.
    """
    check(model, train, test, recipe, precision, compile, stop, folder)
    device = torch.device(device)
    with contextlib.ExitStack() as stack:  # of the caller's modes none reaches a training; streams and graphs are the current device's
        stack.enter_context(own_modes(device, gradients=True, exact=False))
        if device.type == "cuda":
            cudnn = torch.backends.cudnn
            stack.enter_context(torch.cuda.device(device))
            stack.enter_context(cudnn.flags(enabled=cudnn.enabled, benchmark=True, deterministic=cudnn.deterministic,
                                            allow_tf32=cudnn.allow_tf32))
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        return _fit(model, train, test, recipe, seed, folder, device, precision, compile, stop, progress)


def _fit(model, train, test, recipe, seed, folder, device, precision, compile, stop, progress):
    images, labels = (tensor.to(device) for tensor in train)
    steps = math.ceil(len(labels) / recipe.batch_size)
    if model.mean.numel() == 1 and not model.mean.any():  # a single number may be a user's own
        model.mean = images.float().mean(0) / 255
    model.to(device, memory_format=torch.channels_last)
    try_backbone(model, images, alone=(len(labels) - 1) % recipe.batch_size == 0)
    settings = {"recipe": plain(recipe), "seed": seed, "images": list(images.shape)}
    if folder is not None:  # what a state in it must be of
        settings |= contents(model, train, test, recipe)
    run = Run(model, [], None, images, labels, test, recipe, seed, folder, settings)
    if precision == "auto":
        precision = best_precision(device)
    else:
        settings["precision"] = precision
    run.optimizers = make_optimizers(model, recipe, precision)
    state, kept = resume(run, steps, device)
    precision = kept.get("precision", precision)  # of a training that another machine began, where the choice was left to it
    compiled = kept.get("compiled", compile)
    if compiled == "auto":
        # On a CPU in bfloat16 a compiled airbench body gives NaN at its second step (torch 2.11).
        compiled = (device.type == "cuda" or precision == "float32") and worth_compiling(model, images.shape[1:], len(labels), recipe)
    settings |= {"compiled": compiled, "precision": precision}
    for group in (group for optimizer in run.optimizers for group in optimizer.param_groups if "precision" in group):
        group["precision"] = precision
    run.stepper = TrainingStep(model, run.optimizers, recipe, precision, compiled and can_compile(device))
    if state.two_steps:
        run.stepper.attack = recipe.adversarial.two_steps()
    bar = Progress(recipe, len(labels), done=state.epoch * len(labels) + state.step * recipe.batch_size, show=progress)
    clock, stop = _Clock(), stop or (lambda: False)
    try:
        while state.epoch < recipe.epochs:
            if not _epoch(run, state, clock, bar, stop):
                return _result(run, state, finished=False)
            state.history.append(_summary(run, state))
            _warn_if_masked(state)
            bar.epoch(state.history[-1])
            following = _guard(run, state)
            if following == recipe.epochs:
                _finish(run, state)
            begin_epoch(state, following, steps, device)
            clock.mark()
        save(run, state)
        return _result(run, state, finished=True)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(f"training ran out of memory on {device} at batch_size={recipe.batch_size}; take a smaller batch_size "
                              f"or network, or precision='bfloat16'. The last state: {state.saved}") from error
        raise
    finally:
        bar.close()


class _Clock:
    """Wall time: when to look and to save, and the training seconds since the last mark."""

    def __init__(self):
        self.looked = self.saved = time.perf_counter()
        self.mark()

    def mark(self):
        self.marked = time.perf_counter()

    def lap(self):
        """Seconds since the last mark or lap."""
        now = time.perf_counter()
        seconds, self.marked = now - self.marked, now
        return seconds


def _epoch(run, state, clock, bar, stop):
    """Train the rest of an epoch; False where it was stopped first."""
    recipe, images, labels, size = run.recipe, run.images, run.labels, run.recipe.batch_size
    device, steps = images.device, len(state.losses)
    plan = epoch_plan(len(labels), *images.shape[2:], seed=run.seed, epoch=state.epoch, shift=recipe.shift, flip=recipe.flip,
                      fill=recipe.fill, device=device)
    while state.step < steps:
        chosen, truth = batch(images, labels, plan, state.step * size, (state.step + 1) * size)
        draws = draw(run.stepper.attack, chosen, truth, run.model.head.num_classes, seed=run.seed, epoch=state.epoch, step=state.step)
        share = recipe.rate(state.epoch, state.step, steps)
        for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
            group["lr"] = group["full_rate"] * share
        _seed(derive(run.seed, "step", state.epoch, state.step), device)  # for layers that draw
        try:
            loss, correct, vanished = run.stepper(chosen, truth, draws)
        except NotFiniteError:  # a distance loss looks at its features first
            not_finite("the features became infinite or NaN", state, recipe, state.step)
        _follow(run, state, steps)
        state.losses[state.step], state.correct[state.step], state.vanished[state.step] = loss, correct, vanished
        state.step += 1
        bar.step(len(truth))
        now, last = time.perf_counter(), state.step == steps
        over = not (last and state.epoch + 1 == recipe.epochs) and stop()
        if last or over or device.type == "cpu" or now - clock.looked >= LOOK_SECONDS:
            _require_finite(state, recipe)
            bar.show(state, recipe)
            clock.looked = now
        if over or now - clock.saved >= CHECKPOINT_SECONDS:
            state.seconds += clock.lap()
            save(run, state)
            clock.saved = now
            if over:
                return False
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    state.seconds += clock.lap()
    return True


def _seed(seed, device):
    """Seed what layers on the device draw from, and no other device's generator, which nobody would put back."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)


@torch.no_grad()
def _follow(run, state, steps):
    """Move the average of the weights."""
    if not run.recipe.average:
        return
    parameters = dict(run.model.named_parameters())
    if state.average is None:
        state.average = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    # The first steps weigh less than the constant says: an average of few needs no memory of the start.
    done = state.epoch * steps + state.step + 1
    weight = min(1.0, max(1 / (run.recipe.average * steps), 1 / done))
    torch._foreach_lerp_(list(state.average.values()), [parameters[name] for name in state.average], weight)


def _guard(run, state):
    """Look for catastrophic overfitting after an epoch; return the number of the epoch to train next."""
    attack = run.recipe.adversarial
    if attack is None or attack.guard is None:
        return state.epoch + 1
    # Catastrophic overfitting shows as robust accuracy gone within an epoch; PGD-5 on the margin sees it on either kind of loss.
    pixels, own = run.images[:PROBED].float() / 255, run.labels[:PROBED]
    probed = attacks.pgd(run.model, pixels, own, objective="untargeted_2", epsilon=attack.epsilon, step_size=attack.epsilon / 3, steps=5,
                         seed=derive(run.seed, "probe"))
    accuracy = 1 - probed.fooled.double().mean().item()
    collapsed = state.probe is not None and not state.two_steps and accuracy < state.probe - attack.guard
    state.history[-1] |= {"probe": accuracy, "collapsed": collapsed}
    if not collapsed:
        state.probe, state.good = accuracy, {name: tensor.detach().clone() for name, tensor in everything(run, state).items()}
        return state.epoch + 1
    restore(run, state, state.good)
    state.two_steps = True
    run.stepper.restart(attack.two_steps())
    return state.epoch


@torch.no_grad()
def _finish(run, state):
    """Take the averaged weights with batch statistics of their own, and round to float16 numbers, as the recipe says."""
    if run.recipe.average:
        for name, parameter in run.model.named_parameters():
            parameter.copy_(state.average[name])
        _restate(run.model, run.images[:RESTATED])
    if run.recipe.half:  # what lies in float16 on disk is then exactly what is evaluated; the head's centers and the mean stay as they are
        learned = [*run.model.parameters(), *run.model.backbone.buffers()]
        for tensor in (tensor for tensor in learned if tensor.is_floating_point()):
            tensor.copy_(tensor.half())
    if run.recipe.average or run.recipe.half:
        state.history[-1]["test_accuracy"] = _accuracy(run)


def _restate(model, images):
    """Make batch normalisation's statistics those of these images, plain means over parts of 500."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    usual = [norm.momentum for norm in norms]
    size = 499 if len(images) % 500 == 1 else 500  # a part of one image has no statistics
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        model.train()
        for part in images.split(size):
            model.features((part.float() / 255).contiguous(memory_format=torch.channels_last))
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


def _summary(run, state):
    count, size = len(run.labels), run.recipe.batch_size
    sizes = torch.full((len(state.losses),), size, dtype=torch.float64)
    sizes[-1] = count - size * (len(sizes) - 1)
    summary = {
        "epoch": state.epoch + 1, "learning_rate": run.recipe.learning_rate * run.recipe.rate(state.epoch, 0, len(state.losses)),
        "loss": float((state.losses.cpu().double() * sizes).sum() / count), "train_accuracy": float(state.correct.sum()) / count,
        "test_accuracy": _accuracy(run), "seconds": state.seconds,
    }
    if attack := run.stepper.attack:
        summary["zero_gradients"] = float(state.vanished.sum()) / (count * attack.steps)
    return summary


def _warn_if_masked(state):
    shares = [epoch.get("zero_gradients", 0.0) for epoch in state.history]
    if shares[-1] > MASKED and max(shares[:-1], default=0.0) <= MASKED:  # once
        warn(f"adversarial training: {shares[-1]:.0%} of the gradients that epoch {state.epoch + 1} was crafted by are exactly zero; those "
             "images were not attacked: try objective='margin'", GradientMaskingWarning)


@torch.no_grad()
def _accuracy(run, size=500):
    model, (images, labels), right = run.model, run.test, 0
    model.eval()
    for start in range(0, len(labels), size):
        pixels = images[start:start + size].to(model.mean.device).float() / 255
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=run.stepper.bfloat16, cache_enabled=False):
            features = model.features(pixels.contiguous(memory_format=torch.channels_last))
        right += (model.head.logits(features.float()).argmax(1).cpu() == labels[start:start + size].cpu()).sum()
    return int(right) / len(labels)


def _result(run, state, finished):
    # Evaluation later sees the same memory layout, and so the same last bits, as a model loaded from disk.
    run.model.to(memory_format=torch.contiguous_format).eval()
    return TrainingResult(run.model, state.history, finished, run.settings["precision"])


def _require_finite(state, recipe):
    losses = state.losses[:state.step]
    if not bool(losses[-1].isfinite()) or not bool(losses.isfinite().all()):
        first = int((~losses.isfinite()).nonzero()[0])
        not_finite(f"the loss became {float(losses[first])}", state, recipe, first)


def make_optimizers(model: torch.nn.Module, recipe: Recipe, precision: str = "float32") -> list:
    """Return the optimizers of a model by its recipe; each group keeps its rate before the schedule as `full_rate`.

    Raises ValueError for a model without a parameter to train.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires grad: there is nothing to train")
    kernels = [parameter for parameter in parameters if parameter.ndim == 4]
    others = [parameter for parameter in parameters if parameter.ndim != 4]
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.optimizer == "muon":
        if kernels:
            optimizers.append(Muon(kernels, recipe.learning_rate, recipe.momentum, precision=precision))
        if others:
            optimizers.append(torch.optim.Adam(others, lr=recipe.other_rate, betas=(0.9, 0.99)))
    else:
        groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        optimizers.append(torch.optim.SGD([group for group in groups if group["params"]], lr=recipe.learning_rate,
                                          momentum=recipe.momentum, fused=parameters[0].is_cuda))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["full_rate"] = group["lr"]
    return optimizers
