"""Figures of a backbone's features: python probe.py [-pool DIR] [-data DIR] MODEL.safetensors

The pool's labels are used here and nowhere else: for these figures, by which one backbone is preferred to another.
"""

import argparse
import gzip
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

import vit


def read(folder, name):
    """A set's images [N, 1, 28, 28] in [0, 1] and labels [N]."""
    with gzip.open(os.path.join(folder, name + "-images.idx3.gz")) as f:
        n, side = struct.unpack(">4xII4x", f.read(16))
        images = torch.from_numpy(np.frombuffer(f.read(), np.uint8).reshape(n, 1, side, side).copy())
    with gzip.open(os.path.join(folder, name + "-labels.idx1.gz")) as f:
        labels = torch.from_numpy(np.frombuffer(f.read()[8:], np.uint8).astype(np.int64))
    return images.float() / 255, labels


@torch.no_grad()
def features(model, images):
    return torch.cat([model(batch) for batch in images.split(500)])


def knn(x, y, queries, k=20):
    """Votes of the k nearest by cosine, weighed by exp(cosine / 0.07)."""
    x, queries = F.normalize(x), F.normalize(queries)
    near = [(q @ x.t()).topk(k) for q in queries.split(500)]
    weight = torch.cat([n.values for n in near]).div(0.07).exp()
    votes = torch.zeros(len(queries), 10).scatter_add_(1, y[torch.cat([n.indices for n in near])], weight)
    return votes.argmax(1)


def linear(x, y, queries, decay=1e-5):
    """Logistic regression on standardised features."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, queries = (x - mean) / std, (queries - mean) / std
    w, b = torch.zeros(10, x.shape[1], requires_grad=True), torch.zeros(10, requires_grad=True)
    opt = torch.optim.LBFGS([w, b], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        loss = F.cross_entropy(x @ w.t() + b, y) + decay * w.square().sum()
        loss.backward()
        return loss

    opt.step(closure)
    return (queries @ w.t() + b).argmax(1).detach()


def nearest_mean(x, y, queries):
    means = torch.stack([x[y == c].mean(0) for c in range(10)])
    return (F.normalize(queries) @ F.normalize(means).t()).argmax(1)


def groups(predicted, y):
    """Accuracy in %: all, many, medium, few."""
    right = torch.stack([(predicted[y == c] == c).float().mean() for c in range(10)]) * 100
    return [g.mean().item() for g in (right, right[:5], right[5:8], right[8:])]


def figures(model, pool_dir, data_dir, pool_images=10000):
    """A line of figures: of the rounded weights, as they are shipped."""
    state = {k: t.float() for k, t in vit.rounded(model).items()}
    model = vit.ViT()
    model.load_state_dict(state)
    model.eval()

    sets = {}
    for folder, name in ((pool_dir, "pool"), (pool_dir, "probe"), (data_dir, "train"), (data_dir, "val")):
        images, labels = read(folder, name)
        if name == "val":  # as the quickstart tests: resized by 8/7, its centre cropped
            images = F.interpolate(images, size=32, mode="bilinear", antialias=True)[:, :, 2:30, 2:30]
        if name == "pool":
            images, labels = images[-pool_images:], labels[-pool_images:]
        sets[name] = features(model, images), labels
    (px, py), (qx, qy), (tx, ty), (vx, vy) = (sets[n] for n in ("pool", "probe", "train", "val"))
    ncm = groups(nearest_mean(tx, ty, vx), vy)
    return "linear %.1f knn %.1f | long tail: class means all %.1f many %.1f medium %.1f few %.1f" % (
        groups(linear(px, py, qx), qy)[0], groups(knn(px, py, qx), qy)[0], *ncm)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("model")
    args.add_argument("-pool", default="pool", help="folder that subset.go -pool wrote")
    args.add_argument("-data", default=os.path.join(here, "../fashion-mnist-lt"))
    args.add_argument("-pool-images", type=int, default=54522, help="of the pool, for the linear probe and kNN")
    a = args.parse_args()
    print(figures(vit.load(a.model), a.pool, a.data, a.pool_images))
