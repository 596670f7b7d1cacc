"""The equations of space alignment in float64 NumPy, one class at a time and without JAX.

Weights, means, gradients and updates are (C, D), one row per class, whatever the kernel's layout.
"""

import numpy as np


def update_means(mean, seen, features, labels, decay):
    """Class means after one batch: the first batch sets a mean, later ones pull it."""
    mean, seen = np.array(mean, np.float64), np.array(seen, bool)
    features, labels = np.asarray(features, np.float64), np.asarray(labels)
    for c in range(len(mean)):
        share = labels[:, c].astype(np.float64) if labels.ndim == 2 else 1.0 * (labels == c)
        count = share.sum()
        if count == 0:
            continue
        batch_mean = (share[:, None] * features).sum(axis=0) / count
        step = (1 - decay) * min(count, 1.0) if seen[c] else 1.0
        mean[c] = (1 - step) * mean[c] + step * batch_mean
        seen[c] = True
    return mean, seen


def directions(mean, seen, center=True):
    """Unit rows from the middle of the seen means (or the origin) to each; zero: no direction."""
    mean = np.asarray(mean, np.float64)
    unit = np.zeros_like(mean)
    if not np.any(seen):
        return unit
    middle = np.mean([m for m, s in zip(mean, seen, strict=True) if s], axis=0) if center else 0.0
    longest = max(np.linalg.norm(m) for m, s in zip(mean, seen, strict=True) if s)
    for c in range(len(mean)):
        arm = mean[c] - middle
        length = np.linalg.norm(arm)
        if seen[c] and length > 0 and length >= 1e-6 * longest:
            unit[c] = arm / length
    return unit


def has_direction(w, mu_hat):
    """Whether one class has a direction: a long enough weight row and a direction of its mean."""
    return bool(np.linalg.norm(w) >= 1e-12 and np.any(mu_hat))


def tangent(w, mu_hat):
    """The weight's direction, the unit tangent part of mu_hat (or zero), and their angle."""
    w_hat = w / np.linalg.norm(w)
    part = mu_hat - (mu_hat @ w_hat) * w_hat
    sine = np.linalg.norm(part)
    d = part / sine if sine >= 1e-6 else np.zeros_like(part)
    return w_hat, d, np.arctan2(sine, mu_hat @ w_hat)


def cosines(weights, mu_hats):
    """Cosine of each weight row and its direction, 0 for a class without a direction."""
    weights = np.asarray(weights, np.float64)
    out = np.zeros(len(weights))
    for c, (w, mu_hat) in enumerate(zip(weights, mu_hats, strict=True)):
        if has_direction(w, mu_hat):
            out[c] = (w / np.linalg.norm(w)) @ mu_hat
    return out


def reg(weights, mu_hats):
    """Mean of 1 - cosine over the classes that have a direction, 0 if none has."""
    weights = np.asarray(weights, np.float64)
    ok = [has_direction(w, mu_hat) for w, mu_hat in zip(weights, mu_hats, strict=True)]
    terms = 1 - cosines(weights, mu_hats)[ok]
    return terms.mean() if len(terms) else 0.0


def proj(incoming, weights, mu_hats, gamma, radial="keep", acts_on="gradients"):
    """The kernel's outgoing gradient or update, and for each class whether a harmful part went."""
    weights, out = np.asarray(weights, np.float64), np.array(incoming, np.float64)
    corrected = np.zeros(len(out), bool)
    for c, (g, w, mu_hat) in enumerate(zip(out.copy(), weights, mu_hats, strict=True)):
        if not has_direction(w, mu_hat):
            continue
        w_hat, d, _ = tangent(w, mu_hat)
        g_tan = g - (g @ w_hat) * w_hat
        along = g_tan @ d
        harmful = max(along, 0.0) if acts_on == "gradients" else min(along, 0.0)
        if radial == "keep":
            out[c] = g - (1 - gamma) * harmful * d
        else:
            out[c] = (1 - gamma) * (g_tan - harmful * d) + gamma * g
        corrected[c] = harmful != 0 and gamma < 1
    return out, corrected


def slerp(weights, mu_hats, alpha, threshold):
    """Weights turned by alpha of the angle to their means, where the cosine is below threshold."""
    weights = np.asarray(weights, np.float64)
    out = weights.copy()
    for c, (w, mu_hat) in enumerate(zip(weights, mu_hats, strict=True)):
        if not has_direction(w, mu_hat):
            continue
        w_hat, d, theta = tangent(w, mu_hat)
        if np.cos(theta) < threshold and np.any(d):
            turned = np.cos(alpha * theta) * w_hat + np.sin(alpha * theta) * d
            out[c] = np.linalg.norm(w) * turned
    return out


def slerp_schedule(alpha_max, total_steps, step):
    """The cosine ramp from 0 at the first step to alpha_max at total_steps."""
    t = min(max(step, 0), total_steps)
    return alpha_max * (1 - np.cos(np.pi * t / total_steps)) / 2
