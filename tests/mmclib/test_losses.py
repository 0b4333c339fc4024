"""Losses: each against a slow float64 formula of its own, gradients, limits, precision, memory, and bad input."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmclib import centers, distances, losses
from mmclib.training.step import can_compile

L, D, N = 5, 7, 11
PRESET = centers.max_mahalanobis_centers(L, D, 3.0)
BUILD = {
    "sce": lambda: losses.SoftmaxCrossEntropy(L, D),
    "center": lambda: losses.CenterLoss(L, D, weight=0.3),
    "lgm": lambda: losses.LargeMarginGaussianMixture(L, D, margin=0.2, likelihood=0.4),
    "mmlda": lambda: losses.MaxMahalanobisLDA(PRESET, scale=1.0),
    "squared": lambda: losses.MaxMahalanobisCenter(PRESET, scale=1.5),
    "absolute": lambda: losses.MaxMahalanobisCenter(PRESET, form="absolute"),
    "huber": lambda: losses.MaxMahalanobisCenter(PRESET, form="huber", delta=2.0),
    "emc": lambda: losses.ElasticMaxMahalanobisCenter(PRESET, alpha=0.7),
}
MEMORY = """
import resource, torch
from mmclib import losses
torch.manual_seed(0)
preset = torch.randn(10_000, 512)
head = losses.{head}
features, labels = torch.randn(256, 512, requires_grad=True), torch.randint(10_000, (256,))
small = losses.MaxMahalanobisCenter(torch.randn(4, 3))
warm = torch.randn(5, 3, requires_grad=True)
(small.logits(warm).sum() + small.loss(warm, torch.tensor([0, 1, 2, 3, 0]))).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(head.loss(features, labels) + torch.nn.functional.cross_entropy(head.logits(features), labels)).backward()
assert features.grad.isfinite().all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def head_and_batch(name, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    head = BUILD[name]()
    with torch.no_grad():
        for parameter in head.parameters():  # away from initial zeros, where a wrong term could hide
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head.to(dtype), (2 * torch.randn(N, D)).to(dtype), torch.randint(L, (N,))


def log_softmax(row):
    top = max(row)
    total = math.fsum(math.exp(value - top) for value in row)
    return [value - top - math.log(total) for value in row]


def slow(head, name, z, y):
    """One sample's logits and loss, in Python floats, from the equations."""
    own = {key: value.detach().double().tolist() for key, value in head.state_dict().items()}

    def distance2(mu, var=None):
        return math.fsum((a - b) ** 2 / (var[i] if var else 1) for i, (a, b) in enumerate(zip(z, mu, strict=True)))

    if name in ("sce", "center"):
        prefix = "softmax." if name == "center" else ""
        weight, bias = own[prefix + "linear.weight"], own[prefix + "linear.bias"]
        logits = [math.fsum(a * b for a, b in zip(row, z, strict=True)) + offset
                  for row, offset in zip(weight, bias, strict=True)]
        extra = head.weight * distance2(own["centers"][y]) / 2 if name == "center" else 0
        return logits, -log_softmax(logits)[y] + extra
    if name == "lgm":
        variances = [[math.exp(value) for value in row] for row in own["log_variances"]]
        halves = [distance2(mu, var) / 2 for mu, var in zip(own["means"], variances, strict=True)]
        dets = [math.log(math.prod(var)) / 2 for var in variances]
        with_margin = [-(1 + head.margin * (i == y)) * h - det for i, (h, det) in enumerate(zip(halves, dets, strict=True))]
        logits = [-h - det for h, det in zip(halves, dets, strict=True)]
        return logits, -log_softmax(with_margin)[y] + head.likelihood * (halves[y] + dets[y])
    if name == "emc":
        means = [[c + math.sqrt(head.alpha) * o for c, o in zip(*rows, strict=True)]
                 for rows in zip(own["centers"], own["offsets"], strict=True)]
        prior = math.fsum((a - b) ** 2 for a, b in zip(means[y], own["centers"][y], strict=True)) / head.alpha
        return [-head.scale * distance2(mu) for mu in means], head.scale * (distance2(means[y]) + prior)
    r2 = [distance2(mu) for mu in own["centers"]]
    if name == "mmlda":
        logits = [-head.scale * value for value in r2]
        return logits, -log_softmax(logits)[y]
    r = [math.sqrt(value) for value in r2]
    huber = [v * v / 2 if v <= head.delta else head.delta * (v - head.delta / 2) for v in r]
    values = {"squared": [v / 2 for v in r2], "absolute": r, "huber": huber}[name]
    return [-2 * head.scale * v for v in values], 2 * head.scale * values[y]


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_the_slow_formula(name, dtype):
    head, features, labels = head_and_batch(name, dtype)
    head.train()
    wanted = [slow(head, name, z, y) for z, y in zip(features.double().tolist(), labels.tolist(), strict=True)]
    logits = torch.tensor([pair[0] for pair in wanted], dtype=torch.float64)
    values = torch.tensor([pair[1] for pair in wanted], dtype=torch.float64)
    assert head.logits(features).dtype == dtype
    # Relative to the size of the numbers that are added up; 1e-12 where the arithmetic is in float64.
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    assert torch.allclose(head.logits(features).double(), logits, rtol=tolerance, atol=tolerance * logits.abs().max().item())
    with torch.no_grad():
        losses_ = {reduction: head.loss(features, labels, reduction=reduction).double() for reduction in ("none", "sum", "mean")}
    assert torch.allclose(losses_["none"], values, rtol=tolerance, atol=tolerance * values.abs().max().item())
    assert torch.allclose(losses_["sum"], values.sum(), rtol=tolerance)
    assert torch.allclose(losses_["mean"], values.mean(), rtol=tolerance)


@pytest.mark.parametrize("name", BUILD)
def test_gradcheck(name):
    head, features, labels = head_and_batch(name, torch.float64)
    head.eval()  # the center loss must not move its centers between two evaluations of the same point
    names, parameters = zip(*head.named_parameters(), strict=True) if list(head.parameters()) else ((), ())

    def both(z, *values):
        state = dict(zip(names, values, strict=True))
        loss = torch.func.functional_call(_Call(head, "loss"), {f"head.{k}": v for k, v in state.items()}, (z, labels))
        logits = torch.func.functional_call(_Call(head, "logits"), {f"head.{k}": v for k, v in state.items()}, (z,))
        return loss, logits

    inputs = (features.requires_grad_(True), *(value.detach().clone().requires_grad_(True) for value in parameters))
    assert torch.autograd.gradcheck(both, inputs, atol=1e-6)


class _Call(torch.nn.Module):
    def __init__(self, head, method):
        super().__init__()
        self.head, self.method = head, method

    def forward(self, *arguments):
        return getattr(self.head, self.method)(*arguments)


@pytest.mark.parametrize("name", ["squared", "absolute", "huber"])
def test_mmc_loss_is_minus_its_logit(name):
    head, features, labels = head_and_batch(name)
    logits = head.logits(features)
    assert torch.allclose(head.loss(features, labels, "none"), -logits.gather(1, labels[:, None])[:, 0], rtol=1e-6)


@pytest.mark.parametrize("name", ["squared", "absolute", "huber", "mmlda", "emc"])
def test_gradient_at_a_center_is_finite(name):
    head, _, _ = head_and_batch(name)
    features = PRESET.clone().requires_grad_(True)
    (head.logits(features).sum() + head.loss(features, torch.arange(L))).backward()
    assert features.grad.isfinite().all()


def test_emc_tends_to_mmc():
    features, labels = 2 * torch.randn(N, D, dtype=torch.float64), torch.randint(L, (N,))
    mmc = losses.MaxMahalanobisCenter(PRESET).double().loss(features, labels, "none")
    gaps = []
    for alpha in (1.0, 1e-2, 1e-4, 1e-6):
        head = losses.ElasticMaxMahalanobisCenter(PRESET, alpha=alpha).double()
        assert torch.allclose(head.loss(features, labels, "none"), mmc)  # with μ = μ*
        # For one sample the best μ_y divides the loss by 1 + α: take it, and see the loss go to MMC's.
        best = torch.stack([_best_emc(head, features[i:i + 1], labels[i:i + 1]) for i in range(3)])
        assert torch.allclose(best, mmc[:3] / (1 + alpha), rtol=1e-6)
        gaps.append((best - mmc[:3]).abs().max().item())
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 1e-4


def _best_emc(head, z, y):
    head.offsets.data.zero_()
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe", tolerance_grad=1e-12)
    optimizer.step(lambda: (optimizer.zero_grad(), (loss := head.loss(z, y)).backward(), loss)[-1])
    return head.loss(z, y).detach()


def test_emc_trains_stably_at_any_alpha():
    features, labels = torch.randn(N, D), torch.randint(L, (N,))
    for alpha in (1e-8, 1e-2, 1e4):
        head = losses.ElasticMaxMahalanobisCenter(PRESET, alpha=alpha)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01 / max(1, alpha), momentum=0.9)
        for _ in range(50):
            optimizer.zero_grad()
            head.loss(features, labels).backward()
            optimizer.step()
        start = losses.ElasticMaxMahalanobisCenter(PRESET, alpha=alpha).loss(features, labels)
        assert head.loss(features, labels) <= start * (1 + 1e-6)
    assert torch.equal(losses.ElasticMaxMahalanobisCenter(PRESET, alpha=1e-8).means, PRESET)


def test_lgm_with_identity_covariance_is_mmlda():
    lgm = losses.LargeMarginGaussianMixture(L, D, margin=0.0, likelihood=0.0).train()
    lgm.means.data.copy_(PRESET)
    mmlda = losses.MaxMahalanobisLDA(PRESET, scale=0.5)
    features, labels = 2 * torch.randn(N, D), torch.randint(L, (N,))
    assert torch.allclose(lgm.logits(features), mmlda.logits(features), rtol=1e-6)
    assert torch.allclose(lgm.loss(features, labels), mmlda.loss(features, labels), rtol=1e-6)
    linear = torch.nn.functional.cross_entropy(features @ PRESET.T, labels)  # Eq. 10's right-hand side
    assert torch.allclose(mmlda.loss(features, labels), linear, rtol=1e-5)


def test_lgm_margin_is_for_training_only():
    head, features, labels = head_and_batch("lgm")
    training, evaluation = head.train().loss(features, labels), head.eval().loss(features, labels)
    assert training > evaluation
    assert torch.equal(head.train().logits(features), head.eval().logits(features))


def test_center_update_by_hand():
    head = losses.CenterLoss(3, 2, weight=1.0, center_step=0.5)
    head.centers.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]]))
    features = torch.tensor([[3.0, 0.0], [0.0, 6.0], [2.0, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    # Class 0: Σ(c - z) = (-3, -6), over 1 + 2, times ½: c rises by (0.5, 1). Class 1: (-1, -1) / 2 / 2. Class 2: none.
    wanted = torch.tensor([[0.5, 1.0], [1.25, 1.25], [5.0, 5.0]])
    softmax = head.softmax.loss(features, labels)
    loss = head.train().loss(features, labels, "sum")
    assert loss.item() == pytest.approx(3 * softmax.item() + (9 + 36 + 2) / 2, rel=1e-6)  # with the centers from before the step
    assert torch.equal(head.centers, wanted)
    loss.backward()
    assert "centers" not in dict(head.named_parameters()) and features.grad is not None


def test_centers_stay_in_evaluation():
    head, features, labels = head_and_batch("center")
    before = head.centers.clone()
    head.eval().loss(features, labels)
    with torch.no_grad():
        head.train().loss(features, labels)
    assert torch.equal(head.centers, before)


@pytest.mark.parametrize("name", ["mmlda", "squared", "emc"])
def test_precision_far_from_the_origin(name):
    far = torch.full((D,), 1e4)
    build = {"mmlda": losses.MaxMahalanobisLDA, "squared": losses.MaxMahalanobisCenter, "emc": losses.ElasticMaxMahalanobisCenter}
    head = build[name](PRESET + far)
    features = (PRESET[:3] + far + 0.0625).requires_grad_(True)
    logits = head.logits(features)
    wanted = -(features.detach().double()[:, None] - head.centers.double()).square().sum(-1) / 2
    assert torch.allclose(logits.double(), wanted, rtol=1e-6)
    logits[0, 0].backward()
    assert torch.allclose(features.grad[0].double(), head.centers[0].double() - features[0].detach().double(), rtol=1e-2)


@pytest.mark.parametrize("name", BUILD)
def test_autocast_changes_nothing(name):
    head, features, labels = head_and_batch(name)
    head.eval()
    plain = head.logits(features), head.loss(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        logits, loss = head.logits(features), head.loss(features, labels)
        low = head.logits(features.bfloat16())
    assert torch.equal(logits, plain[0]) and torch.equal(loss, plain[1]) and loss.dtype == torch.float32
    assert torch.equal(low, head.logits(features.bfloat16().float()))


@pytest.mark.parametrize("name", BUILD)
def test_compiles_to_the_same_value(name):
    head, features, labels = head_and_batch(name)
    head.train()
    state = {key: value.clone() for key, value in head.state_dict().items()}
    plain = head.loss(features, labels), head.state_dict()
    plain_centers = head.centers.clone() if name == "center" else None
    head.load_state_dict(state)
    compiled = torch.compile(lambda z, y: head.loss(z, y), backend="eager", fullgraph=True)
    assert torch.allclose(compiled(features, labels), plain[0], rtol=1e-6)
    assert plain_centers is None or torch.equal(head.centers, plain_centers)


def test_blocks_of_classes_equal_the_whole(monkeypatch):
    head, features, labels = head_and_batch("lgm", torch.float64)
    features.requires_grad_(True)
    inputs = (features, *head.parameters())
    whole = head.loss(features, labels)
    wanted = torch.autograd.grad(whole, inputs)
    monkeypatch.setattr(distances, "CHUNK", 2 * N * D)
    blocks = head.loss(features, labels)
    assert torch.allclose(blocks, whole)
    assert all(torch.allclose(a, b) for a, b in zip(torch.autograd.grad(blocks, inputs), wanted, strict=True))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("head, limit", [
    ("MaxMahalanobisCenter(preset)", 200e6),
    ("ElasticMaxMahalanobisCenter(preset)", 300e6),  # its means and their gradients are five more tensors of 20 MB
])
def test_memory_at_ten_thousand_classes(head, limit):
    run = subprocess.run([sys.executable, "-c", MEMORY.format(head=head)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < limit


def bad(**changes):
    head, features, labels = head_and_batch("squared")
    batch = {"features": features, "labels": labels, **changes}
    return lambda: head.loss(**batch)


@pytest.mark.parametrize("call, words", [
    (bad(features=torch.randn(N, D + 1)), "features must have shape"),
    (bad(features=torch.randn(N, D, 1)), "features must have shape"),
    (bad(features=torch.randn(0, D)), "features must have shape"),
    (bad(features=torch.zeros(N, D, dtype=torch.int64)), "features must be a floating-point"),
    (bad(features=torch.full((N, D), float("nan"))), "features must be finite"),
    (bad(features=torch.full((N, D), float("inf"))), "features must be finite"),
    (bad(labels=torch.full((N,), L)), "labels must lie in"),
    (bad(labels=torch.full((N,), -1)), "labels must lie in"),
    (bad(labels=torch.zeros(N + 1, dtype=torch.int64)), "labels must hold"),
    (bad(labels=torch.zeros(N)), "labels must be int64"),
    (bad(reduction="average"), "reduction must be"),
    (lambda: losses.MaxMahalanobisCenter(torch.randn(3)), "centers must be"),
    (lambda: losses.MaxMahalanobisCenter(torch.full((3, 2), float("nan"))), "centers must be finite"),
    (lambda: losses.MaxMahalanobisCenter(PRESET, form="cubic"), "form must be"),
    (lambda: losses.MaxMahalanobisCenter(PRESET, scale=0), "scale must be a positive"),
    (lambda: losses.MaxMahalanobisCenter(PRESET, form="huber", delta=-1.0), "delta must be a positive"),
    (lambda: losses.ElasticMaxMahalanobisCenter(PRESET, alpha=0.0), "alpha must be a positive"),
    (lambda: losses.ElasticMaxMahalanobisCenter(PRESET, alpha=-1.0), "alpha must be a positive"),
    (lambda: losses.ElasticMaxMahalanobisCenter(PRESET, alpha=float("nan")), "alpha must be a positive"),
    (lambda: losses.LargeMarginGaussianMixture(L, D, margin=-0.1), "margin must be a non-negative"),
    (lambda: losses.CenterLoss(L, D, weight=-1.0), "weight must be a non-negative"),
    (lambda: losses.SoftmaxCrossEntropy(1, D), "num_classes must be"),
    (lambda: losses.SoftmaxCrossEntropy(L, 0), "feature_dim must be"),
])
def test_bad_input_is_one_sentence_that_names_it(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BUILD)
def test_every_head_checks_its_input(name):
    head, features, labels = head_and_batch(name)
    for call in (head.logits, lambda z: head.loss(z, labels)):
        with pytest.raises(ValueError, match="features must be finite"):
            call(features * float("nan"))
    with pytest.raises(ValueError, match="labels must lie in"):
        head.loss(features, labels + L)


def test_smoothed_cross_entropy_is_that_of_the_mixed_target_in_training_and_plain_in_evaluation():
    torch.manual_seed(0)
    head, z, labels = losses.SoftmaxCrossEntropy(5, 8, label_smoothing=0.2), torch.randn(6, 8), torch.arange(6) % 5
    target = 0.8 * torch.eye(5)[labels] + 0.2 / 5
    torch.testing.assert_close(head.loss(z, labels, "none"), -(target * head.logits(z).log_softmax(1)).sum(1))
    plain = -head.logits(z).log_softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(head.eval().loss(z, labels, "none"), plain)
    with pytest.raises(ValueError, match="label_smoothing must be below 1"):
        losses.SoftmaxCrossEntropy(5, 8, label_smoothing=1.0)


def test_a_refused_loss_moves_no_center():
    head = losses.CenterLoss(3, 4)
    before = head.centers.clone()
    with pytest.raises(ValueError, match="reduction"):
        head.loss(torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]), "average")
    assert head.centers.equal(before)


def test_numpys_numbers_are_numbers():
    assert centers.max_mahalanobis_centers(np.int64(10), np.int32(32)).equal(centers.max_mahalanobis_centers(10, 32))
    head = losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(3, 4), scale=np.float32(0.5))
    assert type(head.scale) is float and head.scale == 0.5
    assert type(losses.SoftmaxCrossEntropy(np.int64(3), np.int64(4)).num_classes) is int


@pytest.mark.parametrize("name", BUILD)
def test_no_head_takes_a_negative_label_for_the_last_class(name):
    """Compiled, and on a CUDA device, labels are not looked at: -1, which others ignore, must not count from the end."""
    head, features, _ = head_and_batch(name)
    for backend in ("eager", "inductor") if can_compile("cpu") and name in ("squared", "emc") else ("eager",):
        loss = torch.compile(lambda z, y: head.loss(z, y, "none"), backend=backend)
        with pytest.raises((IndexError, RuntimeError, ValueError)):
            loss(features.detach(), torch.full((len(features),), -1))
