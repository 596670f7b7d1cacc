"""The long-tailed losses in float64 NumPy, one example at a time and without JAX.

Targets are integer labels or rows of soft targets; a loss of soft targets is the mixture of the
losses of its classes.
"""

import math

import numpy as np


def log_sum_exp(values):
    """Logarithm of the sum of exponentials; minus infinity for an empty list."""
    values = [v for v in values if v > -math.inf]
    if not values:
        return -math.inf
    largest = max(values)
    return largest + math.log(math.fsum(math.exp(v - largest) for v in values))


def mixture(loss_of_class, batch, targets):
    """Losses (B,): `loss_of_class(i, c)` of the label, or summed with the soft targets."""
    losses = np.zeros(batch)
    for i in range(batch):
        if np.ndim(targets) == 1:
            losses[i] = loss_of_class(i, targets[i])
        else:
            losses[i] = sum(float(t) * loss_of_class(i, c) for c, t in enumerate(targets[i]) if t)
    return losses


def cross_entropy(logits, targets):
    """Minus the logarithm of the softmax at the target."""
    logits = np.asarray(logits, np.float64)
    return mixture(lambda i, c: log_sum_exp(logits[i]) - logits[i][c], len(logits), targets)


def balanced_softmax(logits, targets, counts):
    """Softmax whose exponentials are multiplied by the class counts."""
    logits = np.asarray(logits, np.float64)

    def loss(i, c):
        terms = [math.log(n) + z for n, z in zip(counts, logits[i], strict=True)]
        return log_sum_exp(terms) - terms[c]

    return mixture(loss, len(logits), targets)


def logit_adjusted(logits, targets, counts, tau):
    """Cross-entropy with tau times the logarithm of the class shares added to the logits."""
    shares = np.asarray(counts, np.float64) / np.sum(counts)
    return cross_entropy(np.asarray(logits, np.float64) + tau * np.log(shares), targets)


def arb(logits, targets, counts, limit=30.0):
    """The ratio of counts in the denominator; a target class of count 0 has count 1."""
    logits = np.asarray(logits, np.float64)

    def loss(i, c):
        z = [min(max(v, -limit), limit) for v in logits[i]]
        own = [c] if np.ndim(targets) == 1 else [j for j, t in enumerate(targets[i]) if t > 0]
        n = [1.0 if count == 0 and j in own else float(count) for j, count in enumerate(counts)]
        terms = [math.log(n[j] / n[c]) + z[j] for j in range(len(z)) if n[j] > 0]
        return log_sum_exp(terms) - z[c]

    return mixture(loss, len(logits), targets)


def ldam_margins(counts, largest=0.5):
    """Margins that go with the inverse fourth root of the counts."""
    roots = [float(n) ** -0.25 for n in counts]
    return np.array([largest * root / max(roots) for root in roots])


def ldam(cosines, targets, margins, scale=30.0):
    """Cross-entropy of scaled cosines, the target's own lowered by its margin."""
    cosines, margins = np.asarray(cosines, np.float64), np.asarray(margins, np.float64)

    def loss(i, c):
        terms = [scale * (z - (margins[c] if j == c else 0)) for j, z in enumerate(cosines[i])]
        return log_sum_exp(terms) - terms[c]

    return mixture(loss, len(cosines), targets)


def effective_number_weights(counts, beta):
    """Inverse effective numbers, scaled to sum to the number of classes."""
    raw = np.array([(1 - beta) / (1 - beta ** float(n)) for n in counts])
    return raw / raw.sum() * len(counts)


def example_weights(class_weights, targets):
    """Class weight of each label."""
    return mixture(lambda i, c: float(class_weights[c]), len(targets), targets)


def weighted_mean(losses, weights):
    """Weighted sum over the sum of weights."""
    losses, weights = np.asarray(losses, np.float64), np.asarray(weights, np.float64)
    return np.sum(weights * losses) / np.sum(weights)


def dot_regression(features, targets, prototypes, lengths=None):
    """Squared error of the dot product, over twice the feature's length, which may be held."""
    features, prototypes = np.asarray(features, np.float64), np.asarray(prototypes, np.float64)
    lengths = np.linalg.norm(features, axis=1) if lengths is None else lengths

    def loss(i, c):
        error = features[i] @ prototypes[c] - np.linalg.norm(prototypes[c]) * lengths[i]
        return error**2 / (2 * lengths[i])

    return mixture(loss, len(features), targets)


def rescaled_prototypes(prototypes, labels):
    """Each class in the batch is lengthened by the root of the average count over its count."""
    scaled = np.array(prototypes, np.float64)
    present, counts = np.unique(labels, return_counts=True)
    for c, n in zip(present, counts, strict=True):
        scaled[c] *= math.sqrt(len(labels) / len(present) / n)
    return scaled


def power_weights(counts, power):
    """Inverse powers of the counts, scaled to sum to the number of classes."""
    raw = np.array([float(n) ** -power for n in counts])
    return len(counts) * raw / raw.sum()


def similarity(p_global, z_local, p_local, z_global):
    """Minus the cosines of each prediction and the other view's projection."""

    def cosine(a, b):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    rows = zip(p_global, z_local, p_local, z_global, strict=True)
    return np.array([-cosine(pg, zl) - cosine(pl, zg) for pg, zl, pl, zg in rows])


def glmc(views, targets, class_weights, alpha, similarity_weight):
    """Total, plain, re-weighted and similarity losses of two (o, o_cb, z, p) tuples."""
    (o_g, cb_g, z_g, p_g), (o_l, cb_l, z_l, p_l) = views
    plain = cross_entropy(o_g, targets) + cross_entropy(o_l, targets)
    soft = np.eye(len(class_weights))[targets] if np.ndim(targets) == 1 else np.asarray(targets)
    weighted = soft * class_weights
    rebalanced = cross_entropy(cb_g, weighted) + cross_entropy(cb_l, weighted)
    agreement = similarity(p_g, z_l, p_l, z_g)
    total = alpha * plain + (1 - alpha) * rebalanced + similarity_weight * agreement
    return total, plain, rebalanced, agreement


def focal(logits, targets, gamma):
    """Cross-entropy times a power of the probability of the other classes."""
    logits = np.asarray(logits, np.float64)

    def loss(i, c):
        others = log_sum_exp([z for j, z in enumerate(logits[i]) if j != c])
        total = log_sum_exp(logits[i])
        return math.exp(gamma * (others - total)) * (total - logits[i][c])

    return mixture(loss, len(logits), targets)


def label_aware_shares(counts, head, tail):
    """A quarter of a sine wave from the smallest class to the largest; its end if all are alike."""
    spread = int(max(counts)) - int(min(counts))
    place = [(n - min(counts)) / spread if spread else 1.0 for n in counts]
    return np.array([tail + (head - tail) * math.sin(math.pi / 2 * p) for p in place])


def smoothed(logits, targets, shares):
    """Cross-entropy, less of it, and as much of its mean over all classes."""
    logits = np.asarray(logits, np.float64)

    def loss(i, c):
        of_class = [log_sum_exp(logits[i]) - z for z in logits[i]]
        return (1 - shares[c]) * of_class[c] + shares[c] * np.mean(of_class)

    return mixture(loss, len(logits), targets)


def lade_bound(logits, targets, counts, penalty):
    """For each class minus its mean logit, plus its log-normaliser and the square of that."""
    logits, counts = np.asarray(logits, np.float64), np.asarray(counts, np.float64)
    (size, classes), prior = logits.shape, counts / counts.sum()
    rows = np.eye(classes)[targets] if np.ndim(targets) == 1 else np.asarray(targets, np.float64)
    total = 0.0
    for c in range(classes):
        in_class = sum(rows[i, c] for i in range(size))
        own = sum(rows[i, c] * logits[i, c] for i in range(size)) / (in_class or 1.0)
        ratios = [
            sum(rows[i, j] / (classes * prior[j]) for j in range(classes)) for i in range(size)
        ]
        terms = [math.log(r) + z for r, z in zip(ratios, logits[:, c], strict=True)]
        normaliser = log_sum_exp(terms) - math.log(size)
        total += prior[c] * (-own + normaliser + penalty * normaliser**2)
    return total


def remix_share(share, count, other_count, kappa, tau):
    """The share of the first label that goes with a share of the first image."""
    if count / other_count >= kappa and share < tau:
        return 0.0
    if count / other_count <= 1 / kappa and 1 - share < tau:
        return 1.0
    return share


def balanced_contrastive(embeddings, labels, prototypes, temperature):
    """Each embedding against the averages over classes, whose prototypes are of them."""
    rows = np.concatenate([embeddings, prototypes]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    classes = [*labels, *range(len(prototypes))]
    losses = []
    for i in range(len(labels)):
        similar = {k: rows[i] @ rows[k] / temperature for k in range(len(rows)) if k != i}
        of_class = [[similar[k] for k in similar if classes[k] == c] for c in {*classes}]
        bottom = log_sum_exp([log_sum_exp(part) - math.log(len(part)) for part in of_class])
        positives = [similar[k] for k in similar if classes[k] == labels[i]]
        losses.append(-np.mean([s - bottom for s in positives]))
    return np.array(losses)


def divergence(of_mean, logits, temperatures):
    """Kullback-Leibler divergence of an expert's softmax from that of the mean."""

    def log_softmax(z):
        z = np.asarray(z, np.float64) / temperatures
        return z - log_sum_exp(z)

    mean = log_softmax(of_mean)
    return np.sum(np.exp(mean) * (mean - log_softmax(logits)))


def diversity(logits, temperatures, means=None):
    """Divergences of all experts from their mean, which may be held, times the mean temperature
    squared."""
    temperatures = np.asarray(temperatures, np.float64)
    means = np.mean(np.asarray(logits, np.float64), axis=1) if means is None else means
    distances = [
        sum(divergence(mean, expert, temperatures) for expert in experts)
        for experts, mean in zip(logits, means, strict=True)
    ]
    return np.mean(temperatures) ** 2 * np.array(distances)


def class_temperatures(counts, tilt):
    """One, less the more a class is smaller than the largest."""
    sizes = [tilt * len(counts) * n / sum(counts) + 1 - tilt for n in counts]
    return np.array([size / max(sizes) for size in sizes])


def central_differences(function, x, step=1e-5):
    """Gradient of a scalar function at a float64 array by central finite differences."""
    gradient = np.zeros_like(x, np.float64)
    for index in np.ndindex(*x.shape):
        up, down = np.array(x, np.float64), np.array(x, np.float64)
        up[index] += step
        down[index] -= step
        gradient[index] = (function(up) - function(down)) / (2 * step)
    return gradient


def problem(seed, batch=6, num_classes=5, scale=3.0, imbalance=100.0):
    """Float32 logits, labels, mixed targets and imbalanced counts, class 0 the largest."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=scale, size=(batch, num_classes)).astype(np.float32)
    labels, partners = rng.integers(num_classes, size=(2, batch))
    lam = rng.random()
    eye = np.eye(num_classes)
    mixed = (lam * eye[labels] + (1 - lam) * eye[partners]).astype(np.float32)
    exponents = -np.arange(num_classes) / max(num_classes - 1, 1)
    counts = np.maximum(1, (500 * imbalance**exponents).astype(int))
    return logits, labels, mixed, counts
