"""Pretrains the quickstart's backbone on Fashion-MNIST without labels: see README.md.

    go run data/fashion-mnist-lt/subset.go -pool pool
    python data/fashion-vit/pretrain.py -pool pool -out model.safetensors
"""

import argparse
import copy
import math
import os
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import probe
import vit


def crops(images, side, scale, degrees):
    """A random resized crop of each image, flipped half the time, turned a little, with its light changed."""
    b = len(images)
    area = torch.empty(b).uniform_(*scale)
    ratio = torch.empty(b).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    w, h = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    cx, cy = ((torch.rand(b) * 2 - 1) * (1 - s) for s in (w, h))
    turn = torch.empty(b).uniform_(-degrees, degrees) * math.pi / 180
    flip = torch.where(torch.rand(b) < 0.5, -1.0, 1.0)
    cos, sin = turn.cos(), turn.sin()
    theta = torch.stack([flip * w * cos, -h * sin, cx, flip * w * sin, h * cos, cy], 1).view(b, 2, 3)
    grid = F.affine_grid(theta, (b, 1, side, side), align_corners=False)
    return light(F.grid_sample(images, grid, align_corners=False))


def light(x):
    """Gamma, contrast and brightness, a blur of one image in five, a little noise."""
    b = len(x)
    gamma = torch.empty(b, 1, 1, 1).uniform_(-0.6, 0.6).exp()
    gain = torch.empty(b, 1, 1, 1).uniform_(0.6, 1.4)
    x = x.clamp(min=1e-4).pow(gamma) * gain
    blurred = F.avg_pool2d(x, 3, 1, 1)
    x = torch.where(torch.rand(b, 1, 1, 1) < 0.2, blurred, x)
    return (x + 0.02 * torch.randn_like(x)).clamp(0, 1)


def mlp(*widths):
    layers = []
    for i, (n, m) in enumerate(zip(widths, widths[1:])):
        layers.append(nn.Linear(n, m, bias=False))
        if i < len(widths) - 2:
            layers += [nn.BatchNorm1d(m), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SimCLR(nn.Module):
    """Every view must find the global views of its image among those of the batch (NT-Xent)."""

    def __init__(self, backbone, a):
        super().__init__()
        self.backbone, self.a = backbone, a
        self.head = nn.Sequential(mlp(vit.WIDTH, 512, 128), nn.BatchNorm1d(128, affine=False))

    def loss(self, globals_, locals_, progress):
        z = [self.head(self.backbone(v, self.a.keep)) for v in globals_]
        z += [self.head(self.backbone(v)) for v in locals_]
        z = [F.normalize(v.float()) for v in z]
        target = torch.arange(len(z[0]))
        losses = []
        for i, query in enumerate(z):
            for j, key in enumerate(z[: len(globals_)]):
                if i != j:
                    losses.append(F.cross_entropy(query @ key.t() / self.a.temperature, target))
        return sum(losses) / len(losses)

    def after_step(self, progress):
        pass


class DINO(nn.Module):
    """Every view must predict the prototypes that a slow copy of the model gives to whole global views.
    The copy's answers are balanced over the batch by Sinkhorn's algorithm, so that they cannot collapse."""

    def __init__(self, backbone, a):
        super().__init__()
        self.backbone, self.a = backbone, a
        self.head = mlp(vit.WIDTH, 512, 128)
        self.prototypes = nn.Parameter(F.normalize(torch.randn(a.prototypes, 128)))
        self.slow = nn.ModuleList([copy.deepcopy(backbone), copy.deepcopy(self.head)]).requires_grad_(False)

    def scores(self, z):
        return F.normalize(z.float()) @ F.normalize(self.prototypes).t()

    def loss(self, globals_, locals_, progress):
        backbone, head = self.slow
        with torch.no_grad():
            targets = [sinkhorn(self.scores(head(backbone(v))) / self.a.sharpness) for v in globals_]
        z = [self.head(self.backbone(v, self.a.keep)) for v in globals_]
        z += [self.head(self.backbone(v)) for v in locals_]
        losses = []
        for i, view in enumerate(z):
            log_p = F.log_softmax(self.scores(view) / 0.1, 1)
            for j, target in enumerate(targets):
                if i != j:
                    losses.append(-(target * log_p).sum(1).mean())
        return sum(losses) / len(losses)

    @torch.no_grad()
    def after_step(self, progress):
        m = 1 - (1 - self.a.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for slow, fast in zip(self.slow, (self.backbone, self.head)):
            for s, f in zip(slow.parameters(), fast.parameters()):
                s.lerp_(f, 1 - m)


def sinkhorn(scores, rounds=3):
    q = (scores - scores.max()).exp()
    for _ in range(rounds):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q


def optimizer(model, a):
    decay, rest = [], []
    for p in model.parameters():
        if p.requires_grad:
            (decay if p.ndim > 1 else rest).append(p)
    return torch.optim.AdamW([{"params": decay, "weight_decay": a.decay}, {"params": rest, "weight_decay": 0}],
                             lr=a.lr, betas=(0.9, 0.95 if a.method == "simclr" else 0.999), fused=True)


def train(a):
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    images, _ = probe.read(a.pool, "pool")
    backbone = vit.ViT()
    model = {"simclr": SimCLR, "dino": DINO}[a.method](backbone, a)
    opt = optimizer(model, a)
    start = time.time()
    order, at, mean = torch.randperm(len(images)), 0, 0.0
    for step in range(a.steps):
        progress = step / a.steps
        lr = a.lr * min(1, (step + 1) / (0.05 * a.steps)) * (math.cos(math.pi * progress) + 1) / 2
        for group in opt.param_groups:
            group["lr"] = lr
        if at + a.batch > len(images):
            order, at = torch.randperm(len(images)), 0
        batch = images[order[at : at + a.batch]]
        at += a.batch
        globals_ = [crops(batch, vit.SIDE, (a.scale, 1), a.degrees) for _ in range(2)]
        locals_ = [crops(batch, 16, (0.1, a.scale), a.degrees) for _ in range(a.locals)]
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(globals_, locals_, progress)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        opt.step()
        model.after_step(progress)
        mean += loss.item()
        done = step + 1 == a.steps
        if (step + 1) % 50 == 0 or done:
            print("step %d of %d  loss %.4f  %.0f s" % (step + 1, a.steps, mean / ((step % 50) + 1), time.time() - start), flush=True)
            mean = 0.0
        if (step + 1) % a.every == 0 or done:
            shipped = model.slow[0] if a.method == "dino" else backbone
            vit.save(shipped, a.out)
            print(" ", probe.figures(shipped, a.pool, a.data), flush=True)


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("-pool", default="pool", help="folder that subset.go -pool wrote")
    args.add_argument("-data", default=os.path.join(here, "../fashion-mnist-lt"), help="the long-tailed sets, for figures")
    args.add_argument("-out", default="model.safetensors")
    args.add_argument("-method", choices=["simclr", "dino"], default="simclr")
    args.add_argument("-steps", type=int, default=1000)
    args.add_argument("-batch", type=int, default=512)
    args.add_argument("-seed", type=int, default=0)
    args.add_argument("-lr", type=float, default=1.5e-3)
    args.add_argument("-decay", type=float, default=0.05)
    args.add_argument("-keep", type=int, default=24, help="patches of 49 that a global view keeps")
    args.add_argument("-locals", type=int, default=1, help="local views of 16 pixels an image")
    args.add_argument("-scale", type=float, default=0.35, help="least share of the image in a global view, most in a local one")
    args.add_argument("-degrees", type=float, default=10)
    args.add_argument("-temperature", type=float, default=0.2)
    args.add_argument("-prototypes", type=int, default=512)
    args.add_argument("-sharpness", type=float, default=0.05)
    args.add_argument("-momentum", type=float, default=0.99)
    args.add_argument("-threads", type=int, default=2)
    args.add_argument("-every", type=int, default=250, help="steps between the figures printed and files written; a figure draws random numbers too")
    train(args.parse_args())
