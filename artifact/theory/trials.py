"""What Figs. 2, 5 and 6 show and Sec. 3 claims, computed: functions return numbers that JSON can hold."""

import numpy as np
import torch

from artifact.theory import density
from mmclib import centers, intervals
from mmclib.attacks import objectives
from mmclib.losses import MaxMahalanobisCenter

CONFIDENCE = 0.99
# σ_k < σ_k̃, where lower loss is further out, and the reverse, where the loss has a lower bound.
PAIR = {"growing": (0.5, 1.0), "bounded": (1.0, 0.5)}


def rounded(values, digits=5):
    """Numbers, arrays, lists and mappings of them as plain Python values with so many significant digits."""
    if isinstance(values, dict):
        return {key: rounded(value, digits) for key, value in values.items()}
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if isinstance(values, (list, tuple)) or (isinstance(values, np.ndarray) and values.ndim):
        return [rounded(value, digits) for value in values]
    if isinstance(values, (float, np.floating)):
        return float(f"{values:.{digits}g}")
    return values.item() if isinstance(values, (np.generic, np.ndarray)) else values


def pair_contours(kind, dim):
    """The contours of a two-class g-SCE loss with means ±e_1 in R^dim and the scales `PAIR[kind]`."""
    mean = np.r_[1.0, np.zeros(dim - 1)]
    return density.SoftmaxContours(mean, -mean, *PAIR[kind])


def pair_loss(contours):
    """The g-SCE loss (Eq. 3) of that pair as a function of points (N, d), with no use of the closed forms."""
    means, sigmas = np.stack([contours.mean, contours.rival_mean]), [contours.sigma, contours.rival_sigma]
    biases = [contours.bias, contours.rival_bias]
    return lambda z: density.softmax_loss(density.quadratic_logits(z, means, sigmas, biases), np.zeros(len(z), int))


def contour_errors(kind, dim, shares, rays=6, seed=0):
    """Per loss value share · C*: the closed-form radius, and the largest relative error of root finding on random rays."""
    contours, rng = pair_contours(kind, dim), np.random.default_rng(seed)
    directions = rng.normal(size=(rays, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    rows = []
    for loss in np.asarray(shares) * contours.bound:
        radius = float(np.sqrt(contours.squared_radius(loss)))
        found = density.ray_radii(pair_loss(contours), contours.center, directions, loss)
        rows.append({"loss": loss, "radius": radius, "error": float(np.abs(found / radius - 1).max())})
    return rows


def volume_trial(kind, dim, count=500_000, seed=0):
    """Monte Carlo of one contour shell's volume: uniform points of a box, so that no formula for balls is used.

    `kind` is "mmc", "growing" or "bounded". Returns the volume's 99 % interval, and the exact and the printed closed form.
    """
    if kind == "mmc":
        contours, low, high, middle = density.CenterContours(dim), 2.0, 2.2, np.zeros(dim)

        def loss(z):
            return np.square(z).sum(1) / 2
    else:
        contours = pair_contours(kind, dim)
        loss, middle = pair_loss(contours), contours.center
        low = contours.bound * (0.2 if kind == "growing" else 2.0)
        high = 1.1 * low
    half = 1.02 * float(np.sqrt(contours.squared_radius(np.array([low, high])).max()))
    rng, hits = np.random.default_rng([seed, dim]), 0
    for start in range(0, count, 100_000):
        values = loss(middle + rng.uniform(-half, half, size=(min(100_000, count - start), dim)))
        hits += int(((values >= low) & (values <= high)).sum())
    box = (2 * half) ** dim
    bottom, top = (box * share for share in intervals.binomial_interval(hits, count, CONFIDENCE))
    exact = float(np.exp(density.log_shell_volume(contours, low, high)))
    paper = float(np.exp(contours.log_volume_rate((low + high) / 2, "paper")) * (high - low))
    return {"kind": kind, "dim": dim, "low": bottom, "high": top, "exact": exact, "paper": paper,
            "exact_inside": bool(bottom <= exact <= top), "paper_inside": bool(bottom <= paper <= top)}


def density_trial(kind, dim, losses, count=1_000_000, seed=0):
    """Sample features whose loss is spread evenly over (0, C_max) and measure their density in thin shells at `losses`.

    With p(C) constant, SD against C shows the volume's part alone. Per loss: the density measured, with 99 % interval, and the
    formulas.
    """
    contours = density.CenterContours(dim) if kind == "mmc" else pair_contours(kind, dim)
    rng, top = np.random.default_rng([seed, dim, 1]), 1.2 * max(losses)
    drawn = rng.uniform(0, top, count)
    direction = rng.normal(size=(count, dim))
    points = direction * (np.sqrt(contours.squared_radius(drawn)) / np.linalg.norm(direction, axis=1))[:, None]
    radius = np.linalg.norm(points, axis=1)  # what is counted below are points in space; their loss is not used again
    rows = []
    for loss in losses:
        edges = np.sort(np.sqrt(contours.squared_radius(loss * np.array([0.95, 1.05]))))
        hits = int(((radius >= edges[0]) & (radius <= edges[1])).sum())
        volume = np.exp(density.log_ball_volume(dim, np.log(edges[1]))) - np.exp(density.log_ball_volume(dim, np.log(edges[0])))
        low, high = (share * count / volume for share in intervals.binomial_interval(hits, count, CONFIDENCE))
        forms = {form: float(np.exp(density.log_sample_density(contours, loss, count, -np.log(top), form)))
                 for form in ("exact", "paper")}
        rows.append({"loss": loss, "measured": hits / volume, "low": low, "high": high, **forms})
    return rows


def exponent(rows, column):
    """The slope of log density against log loss over the rows of `density_trial`."""
    return float(np.polyfit(np.log([row["loss"] for row in rows]), np.log([row[column] for row in rows]), 1)[0])


def figure_2(levels=(1.0, 1e-2, 1e-4), mmc_levels=(2.0, 0.5, 0.1)):
    """Fig. 2: contours of g-SCE with σ_k < σ_k̃ and of MMC in the plane, by closed form and by root finding, and their radii."""
    contours, simple = pair_contours("growing", 2), density.CenterContours(2)
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False) + 0.1
    rays = np.stack([np.cos(angles), np.sin(angles)], 1)

    def contour(shape, loss_at, center, level):
        found = density.ray_radii(loss_at, center, rays, level)
        return {"loss": level, "radius": float(np.sqrt(shape.squared_radius(level))), "found": (center + found[:, None] * rays)}

    span = np.geomspace(1e-6, 3.0, 60)
    softmax = {"mean": contours.mean, "rival_mean": contours.rival_mean, "center": contours.center, "bound": contours.bound,
               "sigma": contours.sigma, "rival_sigma": contours.rival_sigma,
               "contours": [contour(contours, pair_loss(contours), contours.center, level) for level in levels],
               "radii": np.sqrt(contours.squared_radius(span))}
    center = np.zeros(2)
    mmc = {"center": center, "radii": np.sqrt(simple.squared_radius(span)),
           "contours": [contour(simple, lambda z: np.square(z - center).sum(1) / 2, center, level) for level in mmc_levels]}
    outer, inner = softmax["contours"][-1]["radius"], softmax["contours"][0]["radius"]
    says = (f"From loss {levels[0]:g} to {levels[-1]:g} the g-SCE contour grows from radius {inner:.2f} to {outer:.2f} around M; "
            f"MMC's shrinks from {mmc['contours'][0]['radius']:.2f} at loss {mmc_levels[0]:g} to "
            f"{mmc['contours'][-1]['radius']:.2f} at {mmc_levels[-1]:g}.")
    return rounded({"softmax": softmax, "mmc": mmc, "losses": span, "says": says})


def figure_5():
    """Fig. 5: the Max-Mahalanobis centers of Algorithm 1 on the unit sphere in R³ for L = 2, 3, 4."""
    panels = []
    for count in (2, 3, 4):
        points = centers.max_mahalanobis_centers(count, 3, 1.0)
        angle = np.degrees(np.arccos(np.clip(centers.largest_cosine(points), -1, 1)))
        panels.append({"num_classes": count, "centers": points, "angle": float(angle)})
    angles = ", ".join(f"{panel['angle']:.1f}° for L = {panel['num_classes']}" for panel in panels)
    return rounded({"panels": panels, "says": f"All angles between centers are equal: {angles}."})


def figure_6(radius=10.0, grid=15, offset=(-1.0, 3.0), length=18.5, step=0.05):
    """Fig. 6: the gradient fields of the four adaptive objectives over a feature plane with three MM centers, and where one
    feature goes that follows each of them by steps of one length; y is class 0, the target the class that is further away, 2."""
    points = centers.max_mahalanobis_centers(3, 2, radius)
    head = MaxMahalanobisCenter(points)
    start = points[:1] + torch.tensor([offset])
    axis = torch.linspace(-1.95 * radius, 1.95 * radius, grid)
    plane = torch.cartesian_prod(axis, axis)

    def gradient(name, features):
        features = features.clone().requires_grad_(True)
        labels = torch.zeros(len(features), dtype=torch.int64)
        values = objectives.OBJECTIVES[name](features, head.logits(features), labels, labels + 2)
        return torch.autograd.grad(values.sum(), features)[0]

    panels = []
    for name in ("untargeted_1", "untargeted_2", "targeted_1", "targeted_2"):
        feature, path, crossing = start, [start[0]], None
        for count in range(1, round(length / step) + 1):
            slope = gradient(name, feature)
            if slope.norm() < step:  # it has arrived: targeted_1's gradient ends at the target's center
                break
            feature = feature + step * slope / slope.norm()
            path.append(feature[0])
            if crossing is None and head.logits(feature).argmax() != 0:
                crossing = {"length": count * step, "point": feature[0], "class": int(head.logits(feature).argmax())}
        target_loss = float(-head.logits(path[-1][None])[0, 2])
        panels.append({"objective": name, "gradient": gradient(name, plane), "path": torch.stack(path)[::10],
                       "end": path[-1], "crossing": crossing, "target_loss": target_loss})
    ways = ", ".join(f"{panel['crossing']['length']:.1f} by {panel['objective']}" for panel in panels)
    says = f"The same feature leaves its class's region after a way of {ways}; only targeted_1 ends at the target's center."
    return rounded({"centers": points, "radius": radius, "start": start[0], "grid": plane, "panels": panels, "says": says}, 4)
