"""Training as in Sec. 4.1: fit() for standard and adversarial training, resumable to the bit, every second accounted for."""

import contextlib
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mmclib import checkpoints
from mmclib.batches import batch, epoch_plan
from mmclib.checks import check_labels
from mmclib.progress import Progress
from mmclib.recipes import AdversarialTraining, Recipe, plain
from mmclib.steps import Stepper, can_compile, draw, worth_compiling

__all__ = ["AdversarialTraining", "Recipe", "TrainingResult", "fit"]

CHECKPOINT_SECONDS = 60.0
LOOK_SECONDS = 1.0  # how often the losses of a CUDA device are looked at: each look waits for it


@dataclass(frozen=True)
class TrainingResult:
    """The model (the one given, trained), one dict for each whole epoch, and whether all epochs are done.

    History: epoch (from 1), learning_rate, loss, train_accuracy (on the batches as trained on: augmented, and adversarial where
    the training is), test_accuracy (clean, float32), seconds (of training since the start over all resumes, evaluation not counted).
    """

    model: torch.nn.Module
    history: list
    finished: bool


@dataclass
class _State:
    """Where a training stands: `step` batches of `epoch` are done; their losses and numbers of correct lie on the device."""

    epoch: int
    step: int
    history: list
    seconds: float
    losses: torch.Tensor
    correct: torch.Tensor
    saved: str = field(default="none was saved")


def fit(model, train, test, *, recipe, seed, folder=None, device="cpu", precision="float32", compile="auto", time_budget=None,
        progress=True) -> TrainingResult:
    """Train a Classifier on (uint8 images (N, C, H, W), labels (N,)); with a `folder`, go on from the state there and save into it.

    `time_budget` (seconds) stops after the step in which it ends, state saved. The model's mean is set to the training mean if
    it is not set. On a CPU an interrupted training ends in the same bits as an uninterrupted one (same machine, same threads).
    Raises ValueError for bad input or a folder of another training, FloatingPointError for a loss that is not finite,
    MemoryError with advice where memory runs out.
    """
    _check(model, train, test, precision, compile, time_budget, folder)
    began, device = time.perf_counter(), torch.device(device)
    images, labels = (tensor.to(device) for tensor in train)
    steps = math.ceil(len(labels) / recipe.batch_size)
    if model.mean.numel() == 1:
        model.mean = images.float().mean(0) / 255
    model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    run = {"recipe": plain(recipe), "seed": seed, "precision": precision, "images": list(images.shape)}
    state, compiled = _resume(folder, model, optimizer, run, steps, device)
    if compiled is None:
        compiled = worth_compiling(model, images.shape[1:], len(labels), recipe) if compile == "auto" else compile
    run["compiled"] = compiled
    stepper = Stepper(model, optimizer, recipe, precision, compiled and can_compile(device))
    bar = Progress(recipe, len(labels), done=state.epoch * len(labels) + state.step * recipe.batch_size, show=progress)
    clock = _Clock(began, time_budget)
    try:
        with torch.backends.cudnn.flags(benchmark=True) if device.type == "cuda" else contextlib.nullcontext():
            while state.epoch < recipe.epochs:
                if not _epoch(state, stepper, optimizer, images, labels, recipe, seed, clock, bar, folder, run):
                    return _result(model, state, finished=False)
                state.history.append(_summary(model, state, recipe, test, len(labels)))
                bar.epoch(state.history[-1])
                _begin_epoch(state, state.epoch + 1, steps, device)
                clock.mark()
            _save(folder, model, optimizer, state, run, recipe)
            return _result(model, state, finished=True)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise MemoryError(f"training ran out of memory on {device} at batch_size={recipe.batch_size}; take a smaller batch_size "
                              f"or network, or precision='bfloat16'. The last state: {state.saved}") from error
        raise
    finally:
        bar.close()


class _Clock:
    """Wall time: what the budget has left, when to look and to save, and the training seconds since the last mark."""

    def __init__(self, began, budget):
        self.ends = math.inf if budget is None else began + budget
        self.looked = self.saved = time.perf_counter()
        self.mark()

    def mark(self):
        self.marked = time.perf_counter()

    def lap(self):
        """Seconds since the last mark or lap."""
        now = time.perf_counter()
        seconds, self.marked = now - self.marked, now
        return seconds


def _epoch(state, stepper, optimizer, images, labels, recipe, seed, clock, bar, folder, run):
    """Train the rest of an epoch; False where the time budget ended first."""
    model, device, size = stepper.model, images.device, recipe.batch_size
    for group in optimizer.param_groups:
        group["lr"] = recipe.rate(state.epoch)
    plan = epoch_plan(len(labels), *images.shape[2:], seed=seed, epoch=state.epoch, shift=recipe.shift, flip=recipe.flip, device=device)
    while state.step < len(state.losses):
        chosen, truth = batch(images, labels, plan, state.step * size, (state.step + 1) * size)
        draws = draw(recipe, chosen, truth, model.head.num_classes, seed=seed, epoch=state.epoch, step=state.step)
        loss, correct = stepper(chosen, truth, draws)
        state.losses[state.step], state.correct[state.step] = loss, correct
        state.step += 1
        bar.step(len(truth))
        now, last = time.perf_counter(), state.step == len(state.losses)
        over = now >= clock.ends and not (last and state.epoch + 1 == recipe.epochs)
        if last or over or device.type == "cpu" or now - clock.looked >= LOOK_SECONDS:
            _require_finite(state, recipe, folder)
            bar.show(state, recipe)
            clock.looked = now
        if over or now - clock.saved >= CHECKPOINT_SECONDS:
            state.seconds += clock.lap()
            _save(folder, model, optimizer, state, run, recipe)
            clock.saved = now
            if over:
                return False
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    state.seconds += clock.lap()
    return True


def _summary(model, state, recipe, test, count):
    sizes = torch.full((len(state.losses),), recipe.batch_size, dtype=torch.float64)
    sizes[-1] = count - recipe.batch_size * (len(sizes) - 1)
    return {
        "epoch": state.epoch + 1, "learning_rate": recipe.rate(state.epoch),
        "loss": float((state.losses.cpu().double() * sizes).sum() / count), "train_accuracy": float(state.correct.sum()) / count,
        "test_accuracy": _accuracy(model, *test), "seconds": state.seconds,
    }


@torch.no_grad()
def _accuracy(model, images, labels, size=500):
    model.eval()
    right = 0
    for start in range(0, len(labels), size):
        pixels = images[start:start + size].to(model.mean.device).float() / 255
        logits = model.head.logits(model.features(pixels.contiguous(memory_format=torch.channels_last)))
        right += (logits.argmax(1).cpu() == labels[start:start + size].cpu()).sum()
    return int(right) / len(labels)


def _result(model, state, finished):
    # Evaluation later sees the same memory layout, and so the same last bits, as a model loaded from disk.
    model.to(memory_format=torch.contiguous_format).eval()
    return TrainingResult(model, state.history, finished)


def _begin_epoch(state, epoch, steps, device):
    state.epoch, state.step = epoch, 0
    state.losses = torch.zeros(steps, device=device)
    state.correct = torch.zeros(steps, dtype=torch.int64, device=device)


def _require_finite(state, recipe, folder):
    losses = state.losses[:state.step]
    if not bool(losses[-1].isfinite()) or not bool(losses.isfinite().all()):
        first = int((~losses.isfinite()).nonzero()[0])
        _not_finite(f"the loss became {float(losses[first])}", state, recipe, first)


def _not_finite(what, state, recipe, batch_number):
    raise FloatingPointError(f"{what} in epoch {state.epoch + 1}, batch {batch_number + 1} of {len(state.losses)} "
                             f"(learning rate {recipe.rate(state.epoch):g}); try a smaller learning_rate. The last state: {state.saved}")


def make_optimizer(model, recipe):
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kernels = [parameter for parameter in parameters if parameter.ndim == 4]
    others = [parameter for parameter in parameters if parameter.ndim != 4]
    groups = [{"params": kernels, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=recipe.learning_rate, momentum=recipe.momentum,
                           fused=parameters[0].is_cuda)


def _save(folder, model, optimizer, state, run, recipe):
    if folder is None:
        return
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        if optimizer.state[parameter].get("momentum_buffer") is not None:
            tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"]
    for name, tensor in tensors.items():  # the update after a finite loss may still have overflowed: such a state is worth nothing
        if not bool(tensor.isfinite().all()):
            _not_finite(f"{name} became infinite or NaN", state, recipe, max(state.step - 1, 0))
    tensors |= {"epoch.losses": state.losses, "epoch.correct": state.correct}
    position = {"epoch": state.epoch, "step": state.step, "history": state.history, "seconds": state.seconds}
    number = state.epoch * (len(state.losses) + 1) + state.step  # an epoch's end, before its evaluation, comes before the next one's start
    state.saved = str(checkpoints.save_state(folder, number, tensors, {"run": run, **position}))


def _resume(folder, model, optimizer, run, steps, device):
    """Return the state to go on from and whether its training is compiled (None where there is no state)."""
    state = _State(0, 0, [], 0.0, None, None)
    _begin_epoch(state, 0, steps, device)
    found = checkpoints.load_state(folder) if folder is not None else None
    if found is None:
        return state, None
    tensors, saved = found
    compiled = saved["run"].pop("compiled")
    for key, value in run.items():
        if saved["run"].get(key) != value:
            raise ValueError(f"{folder} holds the state of another training ({key} {saved['run'].get(key)} there, {value} here); "
                             "delete that folder or name another one")
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        if f"momentum.{name}" in tensors:  # in the parameter's own layout
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).detach().copy_(tensors[f"momentum.{name}"])
    state.epoch, state.step, state.history, state.seconds = (saved[key] for key in ("epoch", "step", "history", "seconds"))
    state.losses.copy_(tensors["epoch.losses"])
    state.correct.copy_(tensors["epoch.correct"])
    state.saved = str(Path(folder))
    return state, compiled


def _check(model, train, test, precision, compile, time_budget, folder):
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    if compile not in ("auto", True, False):
        raise ValueError(f"compile must be 'auto', True or False, got {compile!r}")
    if time_budget is not None and folder is None:
        raise ValueError("time_budget needs a folder: a training that stops early would be lost without one")
    for name, (images, labels) in (("train", train), ("test", test)):
        if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
            raise ValueError(f"{name} images must be uint8 (N, C, H, W) with N >= 1, got {got}")
        check_labels(labels, model.head.num_classes, f"{name} labels", count=len(images))
