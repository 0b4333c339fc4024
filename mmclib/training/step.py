"""One step of training: craft where it is adversarial, forward, backward, update; compiled and replayed as a CUDA graph on request."""

import importlib.util
import math
import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mmclib import counter, losses
from mmclib.attacks.climb import ascend, random_start
from mmclib.attacks.objectives import resolve
from mmclib.seeds import derive

# Compiling takes minutes of a CPU core and saves a tenth (standard) to a quarter (adversarial) of the time there: about 40 minutes
# of one core must lie ahead. On CUDA small networks wait for launches, and the gain is several times: a few thousand passes.
CPU_FLOPS, CUDA_PASSES = 1e14, 3000
WARM_UP = 3  # real steps before a CUDA graph is captured, so that compilation and autotuning are over


class TrainingStep:
    """Callable step(images, labels, draws) -> (mean loss, number of correct, number of crafting gradients that are exactly zero), detached
    scalars on the device."""

    def __init__(self, model, optimizers, recipe, precision="float32", compiled=False):
        self.model, self.optimizers, self.recipe = model, optimizers, recipe
        self.attack = recipe.adversarial  # what the guard against catastrophic overfitting may replace
        self.bfloat16 = precision == "bfloat16"
        self.compiled_features = torch.compile(model.features, dynamic=False) if compiled else model.features
        self.graph: torch.cuda.CUDAGraph | None = None
        self.graph_rate, self.calls = None, 0
        # A learning rate is baked into a CUDA graph: worth it where the rate holds for epochs. Adam, which Muon comes with, counts its
        # steps on the CPU, and a head or an objective of the user's may read a value there, which no capture allows.
        ours = type(model.head).__module__ == losses.__name__ and not callable(self.attack and self.attack.objective)
        steady = recipe.schedule == "steps" and recipe.optimizer == "sgd"
        self.graphed = compiled and next(model.parameters()).is_cuda and steady and ours

    def __call__(self, images, labels, draws):
        if len(labels) < self.recipe.batch_size:  # an epoch's last batch is not worth a compilation
            return self._step(self.model.features, images, labels, *draws)
        self.calls += 1
        if not self.graphed:
            return self._step(self.compiled_features, images, labels, *draws)
        inputs = [images, labels, *draws]
        if self.calls <= WARM_UP:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                results = self._step(self.compiled_features, *inputs)
            torch.cuda.current_stream().wait_stream(side)
            return results
        rate = self.optimizers[0].param_groups[0]["lr"]
        graph = self.graph
        if graph is None or rate != self.graph_rate:
            graph = self._capture(inputs)
            self.graph_rate = rate
        for static, new in zip(self.static, inputs, strict=True):
            if static is not None:
                static.copy_(new)
        graph.replay()
        return self.results

    def restart(self, attack):
        """Go on with another attack, after the weights and the optimizers' states were replaced: a graph captured before holds neither."""
        self.attack, self.graph, self.calls = attack, None, 0

    def _capture(self, inputs):
        self.static = [None if tensor is None else tensor.clone() for tensor in inputs]
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.results = self._step(self.compiled_features, *self.static)
        return self.graph

    def _step(self, network, images, labels, targets, start):
        vanished = torch.zeros((), dtype=torch.int64, device=images.device)
        if start is not None:
            images = self._craft(network, images, labels, targets, start, vanished)
        self.model.train()
        self.model.zero_grad(set_to_none=True)
        features = self._features(network, images)
        loss = self.model.head.loss(features, labels)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            raise ValueError(f"the head's loss must be one number, the mean over the images, got {_form(loss)}")
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            logits = self.model.head.logits(features)
            if logits.shape != (len(labels), self.model.head.num_classes):
                raise ValueError(f"the head's logits must have shape (N, num_classes), here ({len(labels)}, "
                                 f"{self.model.head.num_classes}), got {_form(logits)}")
            correct = (logits.argmax(1) == labels).sum()
        return loss.detach(), correct, vanished

    def _features(self, network, images):
        # Without the cache: weights cast for one step, kept for as long as a surrounding autocast lasts, would serve all later ones.
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False):
            features = network(images)
        if not isinstance(features, torch.Tensor) or features.ndim != 2:
            raise ValueError(f"the backbone must return features, one tensor (N, feature_dim), in training too, got {_form(features)}")
        return features.float()  # bfloat16's spacing at 200 is 1: distances are made in float32

    def _craft(self, network, originals, labels, targets, start, vanished):
        # In evaluation mode, so that batch statistics stay out of it, and frozen: weight gradients would cost half as much again.
        attack = self.attack
        objective = resolve(attack.objective, targets)
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

        def gradient(images):
            images = images.detach().requires_grad_()
            features = self._features(network, images)
            value = objective(features, self.model.head.logits(features), labels, targets).sum()
            gradients = torch.autograd.grad(value, images)[0]
            vanished.add_((gradients.flatten(1).abs().amax(1) == 0).sum())
            return gradients

        # N-FGSM's start lies outside the ball, and its step is not projected onto it.
        epsilon = math.inf if attack.noise else attack.epsilon
        try:
            self.model.eval()
            for parameter in parameters:
                parameter.requires_grad_(False)
            return ascend(gradient, start, originals, epsilon=epsilon, step_size=attack.step_size, steps=attack.steps)
        finally:  # also where it is interrupted: a user's model must not stay frozen
            for parameter in parameters:
                parameter.requires_grad_(True)


def _form(value) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def draw(attack, images, labels, num_classes, *, seed, epoch, step):
    """Return (targets, random starts) of a batch for adversarial training, None where it needs none; hashes of (seed, epoch, step)."""
    if attack is None:
        return None, None
    seeds = counter.image_seeds(derive(seed, "adversarial", epoch, step), len(labels), labels.device)
    start = random_start(images, seeds, (attack.noise or 1) * attack.epsilon).contiguous(memory_format=torch.channels_last)
    if attack.mode == "untargeted":
        return None, start
    others = counter.words(seeds, 1, "targets").squeeze(1) % (num_classes - 1)  # uniform over the wrong classes
    return (labels + 1 + others) % num_classes, start


def can_compile(device) -> bool:
    """Is there what torch.compile needs: Triton for CUDA, a C++ compiler and Python's headers for the CPU."""
    if torch.device(device).type == "cuda":
        return importlib.util.find_spec("triton") is not None
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # the one that torch takes
    return shutil.which(compiler) is not None and (Path(sysconfig.get_path("include")) / "Python.h").exists()


def best_precision(device) -> str:
    """Return "bfloat16" where the device multiplies it faster than float32 (CUDA from Ampere on; AMX on a CPU), else "float32"."""
    if torch.device(device).type == "cuda":  # from Ampere on; before, it is emulated
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    # AVX512-BF16 without AMX is not enough: on a Sapphire Rapids that has only the first, float32 trains faster (BENCHMARKS).
    return "bfloat16" if torch.cpu.get_capabilities().get("amx_bf16") else "float32"


def worth_compiling(model, image_shape, count, recipe) -> bool:
    """Is the run long enough for compiling to pay; a function of the run alone, not of a clock, so that a resume decides alike."""
    device = model.mean.device
    passes = 1 + (recipe.adversarial.steps if recipe.adversarial else 0)
    if device.type == "cuda":
        return recipe.epochs * (count // recipe.batch_size) * passes >= CUDA_PASSES
    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        model.features(torch.zeros(1, *image_shape, dtype=torch.float32, device=device))
    model.train(training)
    # A forward pass is one share, input gradients one more, weight gradients a third that crafting does without.
    return flops.get_total_flops() * (3 + 2 * (passes - 1)) * count * recipe.epochs >= CPU_FLOPS
