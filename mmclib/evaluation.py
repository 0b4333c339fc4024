"""Accuracy, robust accuracy, minimal distortion and transfer: batched, resumable, verified in float32, the same for every batch
size."""

import hashlib
import inspect
import math
import os
import time
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from tqdm import tqdm

from mmclib import counter
from mmclib.attacks import carlini_wagner
from mmclib.attacks.network import chunks
from mmclib.attacks.result import GradientMaskingWarning, warn_if_masked
from mmclib.checks import check_images, check_labels

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator")  # what RuntimeErrors say that are no torch.OutOfMemoryError
_INSIDE = 1e-6  # how far a float32 image may leave its ball


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found, per image (tensors of N rows on the CPU)."""

    correct: torch.Tensor  # bool: still classified as the true label
    success: torch.Tensor  # bool: classified as the target, or without targets not correct
    distortion: torch.Tensor  # float, in the attack's own norm; 0 where nothing was found or needed
    queries: torch.Tensor  # int64: images sent through the model
    gradients: torch.Tensor  # int64: input gradients taken
    vanished: torch.Tensor  # int64: those that are exactly zero
    vanished_first: torch.Tensor  # bool: the first one is exactly zero
    rejected: torch.Tensor  # bool: the attack claimed a success that a plain float32 pass or the ball did not confirm
    norm: str = ""
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Share of images still classified as their true label."""
        return self.correct.double().mean().item()

    @property
    def mean_distortion(self) -> float:
        """Mean distortion over the successes; NaN when there are none."""
        return self.distortion[self.success].double().mean().item()

    @property
    def zero_gradients(self) -> float:
        """Share of attacked images whose first input gradient is exactly zero."""
        return self.vanished_first.sum().item() / max(1, (self.gradients > 0).sum().item())

    @property
    def zero_gradients_overall(self) -> float:
        """Share of all input gradients that are exactly zero."""
        return self.vanished.sum().item() / max(1, self.gradients.sum().item())

    def to_dict(self) -> dict:
        """Give all fields and shares as plain lists and numbers, ready for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in plain.items()}
        shares = ("accuracy", "zero_gradients", "zero_gradients_overall")
        return plain | {name: getattr(self, name) for name in shares}


def accuracy(model, images, labels, batch_size=512) -> Evaluation:
    """Classify clean images, float in [0, 1] or uint8 (N, C, H, W); labels int64 (N,). Raises ValueError for bad input."""
    _check(images, labels, batch_size)
    began = time.perf_counter()
    logits = torch.cat([part for _, part in _each_batch(len(labels), batch_size, lambda part: _logits(model, _on(model, images[part])))])
    check_labels(labels, logits.shape[1])
    correct = logits.argmax(1) == labels.cpu()
    nothing = torch.zeros(len(labels), dtype=torch.int64)
    none = torch.zeros_like(correct)
    return Evaluation(correct, ~correct, nothing.float(), nothing + 1, nothing, nothing, none, none, "", time.perf_counter() - began)


def robust_accuracy(model, images, labels, attack, *, targets=None, seed=0, batch_size=256, partial=None, progress=False,
                    **hyper) -> Evaluation:
    """Attack every image and count those still classified as their true label; `hyper` goes to the attack.

    Images float in [0, 1] or uint8 (N, C, H, W), labels and targets int64 (N,). Seeds are per image, so the result does not
    depend on batch_size, which halves by itself when memory runs out. `partial` is a file that an interrupted evaluation resumes
    from; it is removed at the end. Each claimed success is verified by a plain float32 pass and must lie inside its ball. Raises
    ValueError for bad input.
    """
    finished = _Finished(partial, lambda: _fingerprint(model, images, labels, attack, targets, seed, hyper))
    for part, _, columns in _attack(model, images, labels, attack, targets, seed, batch_size, hyper, progress, finished):
        finished.add(part, columns)
    outcome = finished.close()
    warn_if_masked(outcome.zero_gradients, outcome.zero_gradients_overall, attack.__name__)
    return outcome


def minimal_distortion(model, images, labels, attack=carlini_wagner, **options) -> Evaluation:
    """Find each image's least distortion: `robust_accuracy` with a minimal-distortion attack; see `.mean_distortion` and
    `.distortion`."""
    return robust_accuracy(model, images, labels, attack, **options)


def transfer_row(source, models, images, labels, attack, *, seed=0, batch_size=256, progress=False, **hyper) -> dict:
    """Craft on `source` and judge each of `models` (a dict by name) on the same images; returns a dict of Evaluations by name.

    Crafting does not stop at success (stop_early=False) unless asked to: an image that barely fools its source transfers badly.
    """
    if "stop_early" in inspect.signature(attack).parameters:
        hyper.setdefault("stop_early", False)
    rows = {name: _Finished(None, None) for name in models}
    for part, result, columns in _attack(source, images, labels, attack, None, seed, batch_size, hyper, progress, _Finished(None, None)):
        for name, model in models.items():
            fooled = _logits(model, result.images.to(_device(model))).argmax(1) != labels[part].cpu()
            rows[name].add(part, columns | {"correct": ~fooled, "success": fooled, "rejected": torch.zeros_like(fooled)})
    return {name: finished.close() for name, finished in rows.items()}


def transfer_matrix(models, images, labels, attack, **options) -> dict:
    """Judge every model on images crafted on every model: {source: {model: Evaluation}}; options as in `transfer_row` (Fig.
    4)."""
    return {name: transfer_row(source, models, images, labels, attack, **options) for name, source in models.items()}


def random_targets(labels, num_classes, *, seed=0) -> torch.Tensor:
    """Draw for each label another class, uniformly, int64 (N,); the draw for image i depends on the seed and i alone."""
    check_labels(labels, num_classes)
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2 for a target to differ from its label, got {num_classes}")
    bits = counter.words(counter.image_seeds(seed, len(labels), labels.device), 1, "targets").squeeze(1)
    return (labels + 1 + ((bits >> 2) & (2**62 - 1)) % (num_classes - 1)) % num_classes


def _attack(model, images, labels, attack, targets, seed, batch_size, hyper, progress, finished):
    """Yield (rows, AttackResult, its verified columns on the CPU) for each batch that is not finished yet."""
    _check(images, labels, batch_size)
    if targets is not None:
        check_labels(targets, 2**62, "targets", count=len(labels))
    seeds = counter.image_seeds(seed, len(labels))
    options = inspect.signature(attack).parameters
    epsilon = hyper.get("epsilon", options["epsilon"].default if "epsilon" in options else math.inf)
    bar = tqdm(total=len(labels), initial=finished.count, disable=not progress, unit="image", desc=attack.__name__)

    def work(part):
        began = time.perf_counter()
        batch = _on(model, images[part])
        own, goals = (None if tensor is None else tensor[part].to(batch.device) for tensor in (labels, targets))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GradientMaskingWarning)  # said once, at the end
            result = attack(model, batch, own, targets=goals, seed=seeds[part].to(batch.device), **hyper)
        columns = _verified(model, batch, own, goals, result, epsilon)
        return result, columns | {"norm": result.norm, "seconds": time.perf_counter() - began}

    with bar:
        for part, (result, columns) in _each_batch(len(labels), batch_size, work, finished.count):
            yield part, result, columns
            bar.update(part.stop - part.start)


def _verified(model, originals, labels, targets, result, epsilon):
    predicted = _logits(model, result.images).argmax(1).to(labels.device)
    change = (result.images.double() - originals.double()).flatten(1).abs().amax(1)
    low, high = result.images.flatten(1).amin(1), result.images.flatten(1).amax(1)
    inside = (low >= 0) & (high <= 1) & ((change <= epsilon + _INSIDE) | (result.norm != "linf"))
    fooled = result.fooled & inside & (predicted != labels)
    success = fooled if targets is None else result.success & inside & (predicted == targets)
    columns = {"correct": ~fooled, "success": success, "distortion": result.distortion.float(), "queries": result.queries,
               "gradients": result.gradients, "vanished": result.vanished, "vanished_first": result.vanished_first,
               "rejected": (result.fooled & ~fooled) | (result.success & ~success)}
    return {name: column.cpu() for name, column in columns.items()}


@torch.no_grad()
def _logits(model, images):
    """Call the model as a user would: the model as it is, in evaluation mode and float32, through its public door."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.autocast(images.device.type, enabled=False):
            return torch.cat([model(images[rows])[:count] for rows, count in chunks(images)]).cpu()
    finally:
        for module, training in modes:
            module.training = training


def _each_batch(count, size, work, begin=0):
    """Yield (part, work(part)) for slices of (begin, count); running out of memory halves the size and tries again."""
    while begin < count:
        part = slice(begin, min(begin + size, count))
        try:
            outcome = work(part)
        except RuntimeError as error:
            known = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)
            if not known or part.stop - part.start == 1:
                raise
            outcome = None  # go on outside the handler: inside it, the traceback would keep the failed batch's tensors alive
        if outcome is None:
            size = (part.stop - part.start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warnings.warn(f"out of memory: going on with batches of {size}", stacklevel=2)
            continue
        yield part, outcome
        begin = part.stop


class _Finished:
    """The columns of the batches done so far, kept in the file `partial` (where there is one) until all are done."""

    def __init__(self, partial=None, fingerprint=None):
        self.partial = None if partial is None else Path(partial)
        self.fingerprint = None if partial is None else fingerprint()
        self.columns, self.count = {}, 0
        if self.partial is not None and self.partial.exists():
            try:
                kept = torch.load(self.partial, weights_only=True)
                if kept["fingerprint"] == self.fingerprint:
                    self.columns, self.count = kept["columns"], kept["count"]
            except Exception as error:  # whatever is wrong with the file, doing the work again is right
                warnings.warn(f"{self.partial} cannot be read ({error}); the evaluation starts over", stacklevel=3)

    def add(self, part, columns):
        for name, column in columns.items():
            self.columns.setdefault(name, []).append(column)
        self.count = part.stop
        if self.partial is not None:
            self.partial.parent.mkdir(parents=True, exist_ok=True)
            fresh = self.partial.with_name(self.partial.name + ".new")
            torch.save({"fingerprint": self.fingerprint, "columns": self.columns, "count": self.count}, fresh)
            os.replace(fresh, self.partial)

    def close(self) -> Evaluation:
        joined = {name: torch.cat(parts) for name, parts in self.columns.items() if name not in ("norm", "seconds")}
        outcome = Evaluation(**joined, norm=self.columns["norm"][0], seconds=sum(self.columns["seconds"]))
        if self.partial is not None:
            self.partial.unlink(missing_ok=True)
        return outcome


def _fingerprint(model, images, labels, attack, targets, seed, hyper):
    """Hash all that the result depends on, so that a file left by another evaluation is never resumed from."""
    digest = hashlib.sha256()
    named = {name: getattr(value, "__qualname__", None) or repr(value) for name, value in sorted(hyper.items())}
    digest.update(repr((attack.__qualname__, named, None if isinstance(seed, torch.Tensor) else seed)).encode())
    tensors = [images, labels, targets, seed, *model.state_dict().values()]
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            digest.update(repr((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check(images, labels, batch_size):
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1, got {batch_size!r}")
    if isinstance(images, torch.Tensor) and images.dtype == torch.uint8:
        check_images(images[:1].float() / 255)
    else:
        check_images(images)
    check_labels(labels, 2**62, count=len(images))


def _device(model):
    tensor = next(model.parameters(), None)
    tensor = next(model.buffers(), None) if tensor is None else tensor
    return torch.device("cpu") if tensor is None else tensor.device


def _on(model, images):
    images = images.to(_device(model))
    return images.float() / 255 if images.dtype == torch.uint8 else images
