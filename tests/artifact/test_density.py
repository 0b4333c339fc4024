"""Closed forms against root finding and Monte Carlo, in log space far beyond what floats hold."""

import numpy as np
import pytest
from scipy import stats

from artifact.theory import density
from mmclib import intervals

GROWING = dict(sigma=0.5, rival_sigma=1.5, bias=0.3, rival_bias=-0.2)  # σ_k < σ_k̃: points run to infinity
BOUNDED = dict(sigma=1.5, rival_sigma=0.5, bias=0.3, rival_bias=-0.2)  # σ_k > σ_k̃: the loss cannot reach zero


def contours(dim, **sigmas):
    return density.SoftmaxContours(np.r_[1.0, np.zeros(dim - 1)], np.r_[-1.0, np.zeros(dim - 1)], **sigmas)


def loss_of(shape):
    means, sigmas = np.stack([shape.mean, shape.rival_mean]), [shape.sigma, shape.rival_sigma]
    biases = [shape.bias, shape.rival_bias]
    return lambda z: density.softmax_loss(density.quadratic_logits(z, means, sigmas, biases), np.zeros(len(z), int))


def test_sce_is_quadratic():
    rng = np.random.default_rng(0)
    weight, bias, z = rng.normal(size=(5, 3)), rng.normal(size=5), rng.normal(size=(20, 3))
    means, biases = density.sce_as_quadratic(weight, bias)
    linear, quadratic = z @ weight.T + bias, density.quadratic_logits(z, means, 1.0, biases)
    assert np.ptp(linear - quadratic, axis=1).max() < 1e-12  # equal up to a constant per sample, which softmax does not see


@pytest.mark.parametrize("sigmas, share", [(GROWING, 0.3), (GROWING, 0.01), (BOUNDED, 1.5), (BOUNDED, 5.0)])
@pytest.mark.parametrize("dim", [2, 3])
def test_contour_radius_by_root_finding(dim, sigmas, share):
    shape = contours(dim, **sigmas)
    target = share * shape.bound
    directions = np.random.default_rng(1).normal(size=(8, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = density.ray_radii(loss_of(shape), shape.center, directions, target)
    assert np.allclose(found, np.sqrt(shape.squared_radius(target)), rtol=1e-9)


def test_bound_is_tight_on_both_sides():
    z = np.random.default_rng(2).normal(scale=5, size=(20_000, 2))
    low, high = contours(2, **BOUNDED), contours(2, **GROWING)
    assert loss_of(low)(z).min() >= low.bound and loss_of(low)(low.center[None])[0] == pytest.approx(low.bound, rel=1e-12)
    assert loss_of(high)(z).max() <= high.bound and loss_of(high)(high.center[None])[0] == pytest.approx(high.bound, rel=1e-12)
    # Seen from the rival, the sphere is the same and the loss at M is the other one: exp(-C) and exp(-C') add up to one.
    assert np.exp(-low.bound) + np.exp(-low.swapped().bound) == pytest.approx(1) and np.allclose(low.swapped().center, low.center)
    assert np.isnan(low.squared_radius(0.9 * low.bound)) and np.isnan(high.squared_radius(1.1 * high.bound))


def test_plane_contour():
    mean, rival = np.array([1.0, 2.0]), np.array([-1.0, 0.5])
    normal, offset = density.plane(mean, rival, 0.7, 0.3, -0.4, loss=0.2)
    along = np.array([-normal[1], normal[0]])
    z = offset * normal / (normal @ normal) + np.linspace(-3, 3, 7)[:, None] * along
    logits = density.quadratic_logits(z, np.stack([mean, rival]), 0.7, [0.3, -0.4])
    assert np.allclose(density.softmax_loss(logits, np.zeros(7, int)), 0.2)


def test_pair_loss_is_within_log_of_the_number_of_rivals():
    logits = np.random.default_rng(3).normal(scale=3, size=(1000, 6))
    labels = np.arange(1000) % 6
    full, pair = (density.log_odds(density.softmax_loss(logits, labels, pair=pair)) for pair in (False, True))
    gap = full - pair
    assert (gap >= -1e-9).all() and (gap <= np.log(5) + 1e-9).all()


def hit_share(shape, loss, low, high, count, seed):
    """The share of uniform points of a box that fall in the shell, and the log of the box's volume: no ball formula is used."""
    rng = np.random.default_rng(seed)
    half = 1.02 * np.sqrt(np.nanmax(shape.squared_radius(np.array([low, high]))))
    center = getattr(shape, "center", np.zeros(shape.dim))
    hits = 0
    for _ in range(count // 100_000):
        values = loss(center + rng.uniform(-half, half, size=(100_000, shape.dim)))
        hits += int(((values >= low) & (values <= high)).sum())
    return hits, shape.dim * np.log(2 * half)


CASES = [(kind, dim) for kind in ("mmc", "growing", "bounded") for dim in (2, 3, 8)]


@pytest.mark.parametrize("kind, dim", CASES)
def test_volume_by_monte_carlo(kind, dim):
    if kind == "mmc":
        shape, low, high = density.CenterContours(dim), 2.0, 2.4
        def loss(z):
            return np.square(z).sum(1) / 2
    else:
        shape = contours(dim, **(GROWING if kind == "growing" else BOUNDED))
        low, high = (0.2 * shape.bound, 0.25 * shape.bound) if kind == "growing" else (2.0 * shape.bound, 2.2 * shape.bound)
        loss = loss_of(shape)
    count = 400_000
    hits, log_box = hit_share(shape, loss, low, high, count, seed=dim)
    assert hits > 500
    bottom, top = intervals.binomial_interval(hits, count)
    middle, width = (low + high) / 2, np.log(high - low)
    assert bottom <= np.exp(density.log_shell_volume(shape, low, high) - log_box) <= top
    assert not bottom <= np.exp(shape.log_volume_rate(middle, "paper") + width - log_box) <= top
    # The rate times ΔC is the shell to second order in ΔC.
    assert shape.log_volume_rate(middle) + width == pytest.approx(density.log_shell_volume(shape, low, high), abs=0.03)


@pytest.mark.parametrize("kind", ["mmc", "growing", "bounded"])
@pytest.mark.parametrize("dim", [2, 8, 256])
def test_rate_is_the_derivative_of_the_ball(kind, dim):
    sigmas = GROWING if kind == "growing" else BOUNDED
    shape = density.CenterContours(dim, scale=0.8) if kind == "mmc" else contours(dim, **sigmas)
    at = 1.0 if kind == "mmc" else shape.bound * (0.3 if kind == "growing" else 2.0)
    step = 1e-6 * at
    shell = density.log_shell_volume(shape, at - step, at + step) - np.log(2 * step)
    assert shape.log_volume_rate(at) == pytest.approx(shell, abs=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 8])
def test_gaussian_features_have_the_gaussian_density(dim):
    # For z ~ N(μ, I) the loss ½‖z - μ‖² is Gamma(d/2) and the density of z known: the exact form gives it back, the paper's not.
    loss = np.array([1e-3, 0.1, 1.0, 5.0])
    log_pdf = stats.gamma.logpdf(loss, dim / 2)
    known = -loss - dim / 2 * np.log(2 * np.pi)
    shape = density.CenterContours(dim)
    assert np.allclose(density.log_sample_density(shape, loss, 1, log_pdf), known)
    off = density.log_sample_density(shape, loss, 1, log_pdf, form="paper") - known
    assert np.allclose(off, -np.log(2 * loss) / 2)  # 1/√(2C): it grows without bound towards the center


def test_high_dimension_does_not_overflow():
    shape = density.CenterContours(256)
    for loss in (1e-12, 1.0, 1e12):
        for form in ("exact", "paper"):
            assert np.isfinite(shape.log_volume_rate(loss, form))
    far = contours(256, **GROWING)
    radius2 = far.squared_radius(np.array([1e-300, 1e-30, 1e-3]))
    assert np.isfinite(radius2).all() and (np.diff(radius2) < 0).all()
    assert radius2[0] == pytest.approx(far.constant + 300 * np.log(10) / 1.0)  # grows as |log C|
    assert np.isfinite(far.log_volume_rate(1e-300)) and np.isfinite(density.log_shell_volume(far, 1e-300, 1e-299))
    assert np.isfinite(density.log_odds(np.array([1e-300, 1.0, 1e300]))).all()


def test_neighbour_density_on_a_known_distribution():
    rng = np.random.default_rng(4)
    uniform = density.log_neighbour_density(rng.uniform(size=(4000, 2)), 30)
    assert np.median(uniform) == pytest.approx(np.log(4000), abs=0.1)  # the edges thin it a little
    points = rng.normal(size=(4000, 3))
    known = np.log(4000) - np.square(points).sum(1) / 2 - 1.5 * np.log(2 * np.pi)
    assert np.median(density.log_neighbour_density(points, 30) - known) == pytest.approx(0, abs=0.1)
    assert np.isposinf(density.log_neighbour_density(np.zeros((5, 2)), 3)).all()


@pytest.mark.parametrize("call, words", [
    (lambda: contours(2, sigma=1.0, rival_sigma=1.0), "must differ"),
    (lambda: contours(2, sigma=-1.0, rival_sigma=1.0), "must be positive"),
    (lambda: density.CenterContours(2).log_volume_rate(1.0, "printed"), "form must be"),
    (lambda: density.log_neighbour_density(np.zeros((5, 2)), 5), "neighbours must be"),
])
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
