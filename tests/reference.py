"""Slow twins of the method: loops that follow the paper line by line.

Nothing here is shared with the package: no function of `l2i` is called, no product is
rearranged, nothing is batched that the paper writes for one clip. What is fast must agree with
what is written here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# --- relevance, selection, mask, audio (paper, section 3.3) -----------------------------------


def relevance(z: Sequence[float], theta: Sequence[Sequence[float]], c: int) -> list[float]:
    """``r_k = theta_ck z_k / max_l |theta_cl z_l|``, component after component; 0/0 is 0."""
    contribution = [theta[c][k] * z[k] for k in range(len(z))]
    largest = max(abs(value) for value in contribution)
    return [value / largest if largest > 0 else 0.0 for value in contribution]


def select(r: Sequence[float], threshold: float, max_components: int = 0) -> set[int]:
    """``L = {k : r_k > tau}``; of them the `max_components` most relevant, 0: all."""
    chosen = [k for k in range(len(r)) if r[k] > threshold]
    if max_components:
        chosen = sorted(chosen, key=lambda k: -r[k])[:max_components]
    return set(chosen)


def mask(W: np.ndarray, H: np.ndarray, selected: set[int]) -> np.ndarray:
    """``M = sum_{k in L} W_k H_k / sum_k W_k H_k``, bin after bin; 0/0 is 0."""
    bins, components = W.shape
    frames = H.shape[1]
    M = np.zeros((bins, frames))
    for f in range(bins):
        for t in range(frames):
            part = whole = 0.0
            for k in range(components):
                whole += W[f, k] * H[k, t]
                if k in selected:
                    part += W[f, k] * H[k, t]
            M[f, t] = part / whole if whole > 0 else 0.0
    return M


def explanation_spectrum(X: np.ndarray, M: np.ndarray) -> np.ndarray:
    """``expm1(M * S)`` with the phase of X, bin after bin, for ``S = log(1 + |X|)``."""
    Y = np.zeros_like(X)
    for f in range(X.shape[0]):
        for t in range(X.shape[1]):
            size = abs(X[f, t])
            if size > 0:
                phase = X[f, t] / size
                Y[f, t] = math.expm1(M[f, t] * math.log1p(size)) * phase
    return Y


# --- the interpreter network, in the published order ------------------------------------------


def _up2(x: Tensor) -> Tensor:
    size = (x.shape[2], 2 * x.shape[3])
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def published_activations(
    weights: dict[str, Tensor], maps: dict[str, Tensor], frames: int
) -> Tensor:
    """H [B, K, T] of the published network, in the published order.

    Parameters
    ----------
    weights : dict
        A state dict with the published names, ``conv1.weight`` ...
    maps : dict of str to Tensor [B, C, mel, time]
        ``"512"``, ``"256"``, ``"128"``. Where one is absent (an ablation), so is its branch, and
        T_1 is what the 512-channel map would have: half the frames of the 256-channel map, a
        quarter of those of the 128-channel map.
    frames : int
    """

    def conv(name: str, x: Tensor, **how: object) -> Tensor:
        function = F.conv1d if weights[f"{name}.weight"].ndim == 3 else F.conv2d
        return F.relu(function(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **how))

    factor = {"512": 1, "256": 2, "128": 4}
    t1 = min(maps[name].shape[3] // factor[name] for name in maps)
    parts = []
    if "256" in maps:
        x2 = maps["256"][:, :, :, : 2 * t1]
        parts.append(F.avg_pool2d(conv("conv1", _up2(x2), padding=1), (2, 1)))
    if "512" in maps:
        x1 = maps["512"][:, :, :, :t1]
        parts.append(_up2(conv("conv7", _up2(x1), padding=1)))
    if "128" in maps:
        x3 = maps["128"][:, :, :, : 4 * t1]
        parts.append(conv("conv8", x3, stride=(4, 1)))
    y = _up2(torch.cat(parts, dim=1))
    y = _up2(conv("conv2", y, padding=1))
    y = conv("conv6", y)
    y = F.interpolate(y, size=(1, frames), mode="bilinear", align_corners=True).squeeze(2)
    return conv("conv5", conv("conv4", y, padding=2), padding=2)


def attention(weights: dict[str, Tensor], H: Tensor) -> Tensor:
    """z [K] of one clip's H [K, T]: softmax over t of ``w . (tanh(V h_t) * relu(U h_t))``."""
    scores = []
    for t in range(H.shape[1]):
        h = H[:, t]
        v = torch.tanh(weights["attention_V.0.weight"] @ h + weights["attention_V.0.bias"])
        u = torch.relu(weights["attention_U.0.weight"] @ h + weights["attention_U.0.bias"])
        w, b = weights["attention_weights.weight"][0], weights["attention_weights.bias"][0]
        scores.append(float(w @ (v * u) + b))
    total = sum(math.exp(s - max(scores)) for s in scores)
    z = torch.zeros(H.shape[0])
    for t, s in enumerate(scores):
        z += math.exp(s - max(scores)) / total * H[:, t]
    return z


# --- losses (paper, equations 4 to 6) ---------------------------------------------------------


def reconstruction_loss(S: Tensor, W: Tensor, H: Tensor) -> float:
    """Mean squared error between S [B, F, T] and W H, which is really formed."""
    squares = [(S[b] - W @ H[b]).square().sum().item() for b in range(len(S))]
    return sum(squares) / S.numel()


def softmax(logits: Sequence[float]) -> list[float]:
    """Probabilities of one clip."""
    top = max(logits)
    e = [math.exp(v - top) for v in logits]
    return [v / sum(e) for v in e]


def fidelity_single(f: Sequence[Sequence[float]], g: Sequence[Sequence[float]]) -> float:
    """``-sum_c softmax(f)_c log softmax(g)_c``, mean over clips."""
    total = 0.0
    for fx, gx in zip(f, g, strict=True):
        p, q = softmax(fx), softmax(gx)
        total -= sum(p[c] * math.log(q[c]) for c in range(len(p)))
    return total / len(f)


def fidelity_multi(f: Sequence[Sequence[float]], g: Sequence[Sequence[float]]) -> float:
    """Binary cross-entropy between the sigmoids, mean over clips and classes."""

    def sigmoid(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    terms = [
        -sigmoid(a) * math.log(sigmoid(b)) - (1 - sigmoid(a)) * math.log(1 - sigmoid(b))
        for fx, gx in zip(f, g, strict=True)
        for a, b in zip(fx, gx, strict=True)
    ]
    return sum(terms) / len(terms)


# --- sparse NMF -------------------------------------------------------------------------------


def nmf_objective(S: np.ndarray, W: np.ndarray, H: np.ndarray, sparsity: float) -> float:
    """``1/2 sum_n |s_n - W h_n|^2 + sparsity * sum H``, frame after frame."""
    value = 0.0
    for n in range(S.shape[1]):
        s = S[:, n].astype(np.float64) - W.astype(np.float64) @ H[:, n].astype(np.float64)
        value += 0.5 * float(s @ s) + sparsity * float(H[:, n].sum())
    return value


# --- metrics ----------------------------------------------------------------------------------


def faithfulness(
    logits: Sequence[Sequence[float]], removal: Sequence[Sequence[float]]
) -> tuple[list[float], list[float]]:
    """Per clip ``f(x)_c - f(removal)_c`` for the classifier's class c: probability and logit."""
    probability, logit = [], []
    for before, after in zip(logits, removal, strict=True):
        c = max(range(len(before)), key=lambda k: before[k])
        logit.append(before[c] - after[c])
        probability.append(softmax(before)[c] - softmax(after)[c])
    return probability, logit


def f1_at(scores: Sequence[float], labels: Sequence[bool], threshold: float) -> float:
    """F1 where a score from `threshold` on counts as a yes."""
    hits = sum(s >= threshold and y for s, y in zip(scores, labels, strict=True))
    wrong = sum(s >= threshold and not y for s, y in zip(scores, labels, strict=True))
    missed = sum(s < threshold and y for s, y in zip(scores, labels, strict=True))
    return 2 * hits / (2 * hits + wrong + missed) if hits else 0.0


def average_precision(
    scores: Sequence[float], labels: Sequence[bool], thresholds: Sequence[float] | None = None
) -> float:
    """``sum_n (R_n - R_{n-1}) P_n`` over falling thresholds; by default every score is one."""
    if thresholds is None:
        thresholds = sorted(set(scores), reverse=True)
    positives = sum(labels)
    area = before = 0.0
    for threshold in thresholds:
        predicted = [y for s, y in zip(scores, labels, strict=True) if s >= threshold]
        if predicted:
            recall = sum(predicted) / positives
            area += (recall - before) * sum(predicted) / len(predicted)
            before = recall
    return area
