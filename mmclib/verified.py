"""One attack over many images: dealt out in batches, each claimed success verified by a plain pass, done work kept in a file."""

import functools
import inspect
import math
import time
import warnings
from collections.abc import Mapping
from contextlib import nullcontext

import torch
from tqdm import tqdm

from mmclib import counter
from mmclib.attacks import LEAST_DISTORTION, PER_IMAGE, mim, multi_targeted, pgd
from mmclib.attacks.climb import ShortStepsWarning
from mmclib.attacks.frozen import ROWS, BatchDependenceWarning, call, chunks, rows_of_a_call, warn_if_dependent, working_type
from mmclib.attacks.ledger import AttackResult, GradientMaskingWarning
from mmclib.checks import check_images, check_label_form, check_labels, check_model, check_setting, warn
from mmclib.modes import aside, in_evaluation, own_modes

_NO_MEMORY = ("out of memory", "DefaultCPUAllocator")  # what RuntimeErrors say that are no torch.OutOfMemoryError
_INSIDE = 1e-6  # how far a float32 image may leave its ball
_ROUNDING = 3e-8  # of a float32 pixel in [0, 1], which an l_1 norm adds up
_ORDERS = {"linf": math.inf, "l2": 2, "l1": 1}  # norms whose balls are checked
_SAVED_EVERY = 30  # seconds that a batch should take where a file is to keep what is done: half the minute that may be lost


def attacked(model, images, labels, attack, targets, seed, batch_size, hyper, progress, finished):
    """Yield (rows, AttackResult, its verified columns on the CPU) for each batch that is not finished yet."""
    batch_size = check({"model": model}, images, labels, targets, batch_size)
    for name in ("targets", "seed"):
        if name in settings_of(attack):
            raise ValueError(f"{name} is dealt out by image, so it is an argument of the evaluation, not of the attack's functools.partial")
    seeds = counter.image_seeds(seed, len(labels))
    options = options_of(attack)
    default = options["epsilon"].default if "epsilon" in options else math.inf
    epsilon, ours = {**settings_of(attack), **hyper}.get("epsilon", default), is_one_of(attack, PER_IMAGE)
    first = finished.count
    bar = tqdm(total=len(labels), initial=finished.count, disable=not progress, unit="image", desc=name_of(attack))

    def work(part):
        began = time.perf_counter()
        batch = _on(model, images[part])
        own, goals = (None if tensor is None else tensor[part].to(batch.device) for tensor in (labels, targets))
        with warnings.catch_warnings():
            for said_once in (GradientMaskingWarning, BatchDependenceWarning):  # at the end, and before the first batch
                warnings.simplefilter("ignore", said_once)
            if part.start > first:
                warnings.simplefilter("ignore", ShortStepsWarning)
            with nullcontext() if ours else aside(model):  # ours see to it themselves
                result = attack(model, batch, own, targets=goals, seed=seeds[part].to(batch.device), **hyper)
        if not isinstance(result, AttackResult):
            raise ValueError(f"{name_of(attack)} must return an AttackResult, which mmclib.attacks.judged makes of any images, got "
                             f"{type(result).__name__}")
        if epsilon == math.inf and part.start == 0 and result.norm.lower() in _ORDERS and not ours:
            warn(f"{name_of(attack)} has no setting epsilon, so any change within [0, 1] counts: right for a minimal distortion, wrong "
                 "for an attack in a ball, whose bound must be called epsilon", UserWarning)
        columns = _verified(model, batch, own, goals, result, epsilon, part.start)
        return result, columns | {"norm": result.norm, "seconds": time.perf_counter() - began}

    # only where an image's outcome is its own: elsewhere the clock would decide about results
    paced = finished.path is not None and ours
    on_cpu = _device(model).type == "cpu"
    least = 0 if not paced else rows_of_a_call(images[:1].cpu()) if on_cpu and is_one_of(attack, (pgd, mim, multi_targeted)) else ROWS
    with bar:
        for part, (result, columns) in each_batch(len(labels), batch_size, work, finished.count, least, slow=on_cpu):
            yield part, result, columns
            bar.update(part.stop - part.start)


def _verified(model, originals, labels, targets, result, epsilon, begin):
    predicted = predicted_by(model, result.images, begin).to(labels.device)
    low, high = result.images.flatten(1).amin(1), result.images.flatten(1).amax(1)
    inside = (low >= 0) & (high <= 1)
    if (order := _ORDERS.get(result.norm.lower())) is not None:
        change = (result.images.double() - originals.double()).flatten(1).norm(order, dim=1)
        inside &= change <= epsilon + _INSIDE + _ROUNDING * originals[0].numel() * (order == 1)
    elif epsilon < math.inf and begin == 0:
        warn(f"whether images lie within epsilon = {epsilon:g} of the originals is not checked in the norm {result.norm!r}; known: "
             f"{', '.join(_ORDERS)}", UserWarning)
    fooled = inside & (predicted != labels)  # whether the attack knows it or not
    success = fooled if targets is None else inside & (predicted == targets)
    columns = {"inside": inside, "correct": ~fooled, "success": success, "distortion": result.distortion.float(), "queries": result.queries,
               "gradients": result.gradients, "vanished": result.vanished, "vanished_first": result.vanished_first,
               "rejected": (result.fooled & ~fooled) | (result.success & ~success), "finite": torch.full_like(fooled, result.finite)}
    return {name: column.cpu() for name, column in columns.items()}


def _logits(model, images):
    """Call the model as a user would: the model as it is, in evaluation mode and full precision, through its public door."""
    with in_evaluation(model), own_modes(images.device):  # cloned: a model may answer each call in the same memory
        return torch.cat([call(model, images[rows])[:count].clone() for rows, count in chunks(images)]).cpu()


def predicted_by(model, images, begin=0):
    """Return the predicted classes on the CPU; `begin` is the number of the first image. Raises ValueError where logits are NaN."""
    logits = _logits(model, _on(model, images))
    nan = logits.isnan().any(1).nonzero().squeeze(1)
    if len(nan):
        raise ValueError(f"model returns NaN logits for {len(nan)} images, the first of them image {begin + int(nan[0])}: no class can be "
                         "read from them")
    return logits.argmax(1)


def each_batch(count, size, work, begin=0, least=0, slow=False):
    """Yield (part, work(part)) for slices of (begin, count); running out of memory halves the size and tries again.

    With `least` slices are that or a multiple of it, at most `size`, and as large as half a minute allows; where it is `slow` a first,
    small one tells. The least of an attack whose calls hold the images that are still right alone is what a full call takes: of less it
    would fill most of a call with padding in the end.
    """
    largest = size
    if least and slow:
        size = min(least, largest)
    while begin < count:
        part, began = slice(begin, min(begin + size, count)), time.perf_counter()
        try:
            outcome = work(part)
        except RuntimeError as error:
            known = isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _NO_MEMORY)
            if not known or part.stop - part.start == 1:
                raise
            outcome = None  # go on outside the handler: inside it, the traceback would keep the failed batch's tensors alive
        if outcome is None:
            size = largest = (part.stop - part.start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            warn(f"out of memory: going on with batches of {size}", UserWarning)
            continue
        yield part, outcome
        if least:
            affordable = _SAVED_EVERY * (part.stop - part.start) / max(time.perf_counter() - began, 1e-6)
            size = min(largest, max(least, int(min(affordable, 16 * size)) // least * least))
        begin = part.stop


def _plain(attack):
    return _plain(attack.func) if isinstance(attack, functools.partial) else attack


def options_of(attack):
    """The parameters that an attack takes, by name."""
    return inspect.signature(attack).parameters


def settings_of(attack):
    """What functools.partial has set by name, also around a partial."""
    return settings_of(attack.func) | attack.keywords if isinstance(attack, functools.partial) else {}


def _arguments(attack):
    return (*_arguments(attack.func), *attack.args) if isinstance(attack, functools.partial) else ()


def is_one_of(attack, known) -> bool:
    """Is it one of these functions, whatever functools.partial has set of it? By identity: a user's callable need not be hashable."""
    return any(_plain(attack) is one for one in known)


def name_of(attack):
    """What messages call an attack."""
    attack = _plain(attack)
    return getattr(attack, "__name__", type(attack).__name__)


def check(models, images, labels, targets, batch_size) -> int:
    """Check all that can be known before the first attack, classes of labels and targets included; return batch_size as an integer.

    Raises ValueError.
    """
    batch_size = check_setting("batch_size", batch_size, 1, int)
    if isinstance(images, torch.Tensor) and images.dtype == torch.uint8:
        check_images(images[:1].float() / 255)
    else:
        check_images(images)
    check_label_form(labels, count=len(images))
    if targets is not None:
        check_label_form(targets, "targets", count=len(images))
    for name, model in models.items():
        check_model(model, name)
        classes = warn_if_dependent(functools.partial(_logits, model), _on(model, images[:1])).shape[1]
        check_labels(labels, classes)
        if targets is not None:
            check_labels(targets, classes, "targets")
    return batch_size


def check_attack(attack, hyper, bounded=False):
    """Raise ValueError for what cannot be called as an attack with these settings, or is to be `bounded` and looks for the least
    distortion within no epsilon."""
    if not callable(attack):
        raise ValueError(f"attack must be a function such as mmclib.attacks.pgd, got {attack!r}")
    settings, before = {**settings_of(attack), **hyper}, _arguments(attack)
    try:  # a partial of what its function does not take has no signature of its own
        inspect.signature(_plain(attack)).bind(*before, None, None, None, **settings | {"targets": None, "seed": None})
    except TypeError as error:
        raise ValueError(f"{name_of(attack)} cannot be called as attack(model, images, labels, targets=..., seed=..."
                         f"{''.join(f', {name}=...' for name in settings)}): {error}") from None
    if bounded and is_one_of(attack, LEAST_DISTORTION) and settings.get("epsilon", math.inf) == math.inf:
        name = name_of(attack)
        raise ValueError(f"{name} looks for the least distortion and finds one for almost every image; in a worst case give it the bound "
                         f"of the other attacks: functools.partial({name}, epsilon=...)")


def check_models(models):
    """Raise ValueError for anything but a mapping of at least one name."""
    if not isinstance(models, Mapping) or not models:
        got = "none" if isinstance(models, Mapping) else type(models).__name__
        raise ValueError(f"models must map at least one name to a model, got {got}")


def _device(model):
    tensor = next(model.parameters(), None)
    tensor = next(model.buffers(), None) if tensor is None else tensor
    return torch.device("cpu") if tensor is None else tensor.device


def _on(model, images):
    """Images as the model takes them: on its device, floating point in [0, 1], in the type that attacks work in."""
    images, dtype = images.detach().to(_device(model)), working_type(model)
    return images.to(dtype) / 255 if images.dtype == torch.uint8 else images.to(dtype)
