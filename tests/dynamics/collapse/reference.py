"""Neural-collapse metrics in float64 NumPy: one class, pair or example at a time, without JAX."""

import math

import numpy as np


def class_means(features, labels, num_classes):
    """Means (C, D) of the features of each class."""
    return np.stack([np.mean(features[labels == c], axis=0) for c in range(num_classes)])


def within_scatter(rows):
    """Sum of the outer products of the rows' deviations from their own mean."""
    deviations = rows - np.mean(rows, axis=0)
    return sum((np.outer(d, d) for d in deviations), np.zeros((rows.shape[1],) * 2))


def centred_means(features, labels, num_classes, center):
    """Class means minus the mean of class means, or minus the mean of all samples."""
    means = class_means(features, labels, num_classes)
    return means - np.mean(means if center == "class_means" else features, axis=0)


def between_pseudo_inverse(means):
    """Pseudo-inverse of the between-class covariance of centred means."""
    between = sum(np.outer(m, m) for m in means) / len(means)
    return np.linalg.pinv(between, rcond=1e-11, hermitian=True)


def cosine(a, b):
    """Cosine of two vectors, 0 if one of them is zero."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else 0.0


def pairs(rows):
    """All ordered pairs of different rows."""
    return [(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]


def equinorm(rows):
    """Sample standard deviation of the norms over their mean."""
    norms = [float(np.linalg.norm(row)) for row in rows]
    mean = sum(norms) / len(norms)
    return math.sqrt(sum((n - mean) ** 2 for n in norms) / (len(norms) - 1)) / mean


def equiangularity(rows):
    """Mean distance of the pairwise cosines from -1 / (C - 1)."""
    ideal = -1 / (len(rows) - 1)
    return float(np.mean([abs(cosine(a, b) - ideal) for a, b in pairs(rows)]))


def etf_error(a, b):
    """Frobenius distance of the normalised products from the normalised Gram matrix of an ETF."""
    num_classes = len(a)
    products = np.array([[x @ y for y in b] for x in a])
    ideal = np.eye(num_classes) - np.ones((num_classes, num_classes)) / num_classes
    return float(
        np.linalg.norm(products / np.linalg.norm(products) - ideal / math.sqrt(num_classes - 1))
    )


def metrics(
    features, labels, weights, bias=None, center="class_means", center_weights=False
):  # every argument as in the library
    """All metrics of the library, from the features themselves."""
    features, weights = np.asarray(features, np.float64), np.asarray(weights, np.float64)
    num_classes, classes = len(weights), range(len(weights))
    bias = np.zeros(num_classes) if bias is None else np.asarray(bias, np.float64)
    raw = class_means(features, labels, num_classes)
    means = centred_means(features, labels, num_classes, center)
    own = [int(np.argmax(weights @ raw[c] + bias)) == c for c in classes]
    if center_weights:
        weights = weights - np.mean(weights, axis=0)

    scatters = [within_scatter(features[labels == c]) for c in classes]
    within = sum(scatters) / len(features)
    variances = [float(np.trace(scatters[c])) / np.sum(labels == c) for c in classes]
    between = sum(float(m @ m) for m in means) / num_classes
    inverse = between_pseudo_inverse(means)
    trace = float(np.trace(within @ inverse))
    cdnv = [
        (variances[c] + variances[k]) / (2 * np.sum((raw[c] - raw[k]) ** 2))
        for c in classes
        for k in classes
        if c != k
    ]
    cosines = np.array([cosine(weights[c], means[c]) for c in classes])
    distance = weights / np.linalg.norm(weights) - means / np.linalg.norm(means)
    return {
        "nc1": trace,
        "nc1_over_c": trace / num_classes,
        "nc1_rank": np.linalg.matrix_rank(inverse, tol=1e-7, hermitian=True),
        "nc1_quotient": float(np.trace(within)) / between,
        "nc1_per_class": np.array(variances) / between,
        "cdnv": float(np.mean(cdnv)),
        "nc2_equinorm_means": equinorm(means),
        "nc2_equinorm_weights": equinorm(weights),
        "nc2_equiangular_means": equiangularity(means),
        "nc2_equiangular_weights": equiangularity(weights),
        "nc2_etf_means": etf_error(means, means),
        "nc2_etf_weights": etf_error(weights, weights),
        "nc3": float(np.sum(distance**2)),
        "nc3_self_duality": etf_error(weights, means),
        "nc3_cosines": cosines,
        "nc3_angles": np.degrees(np.arccos(cosines)),
        "nc4_means": float(np.mean(own)),
    }


def nc1_of_classes(features, labels, num_classes, center):
    """NC1 (C,) with the scatter of one class in place of that of all."""
    inverse = between_pseudo_inverse(centred_means(features, labels, num_classes, center))
    own = [features[labels == c] for c in range(num_classes)]
    return np.array([np.trace(within_scatter(rows) @ inverse) / len(rows) for rows in own])


def nc4(features, means, weights, bias):
    """Whether the linear classifier and the nearest mean agree, for each example."""
    return np.array(
        [
            np.argmax(weights @ h + bias) == np.argmin([np.linalg.norm(h - m) for m in means])
            for h in features
        ]
    )


def simplex_etf(num_classes, dim, seed):
    """Unit rows with pairwise cosine -1 / (C - 1), turned at random."""
    gram = (np.eye(num_classes) - 1 / num_classes) * num_classes / (num_classes - 1)
    values, vectors = np.linalg.eigh(gram)
    rows = vectors[:, values > 0.5] * math.sqrt(num_classes / (num_classes - 1))
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(dim, num_classes - 1)))
    return rows @ basis.T
