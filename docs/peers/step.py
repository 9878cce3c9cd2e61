"""Times the reference implementation's training step on CPU cores, or on a GPU in bf16 (--device cuda): one method of tuning, cosine classifier, logit-adjusted loss, SGD.

    LIFT_REFERENCE=CHECKOUT python docs/peers/step.py --width 768 --layers 12 --patch 16 --resolution 224 \
        --classes 1000 --batch 16 --cores 2 [--method lora]

Weights and images are random: they cost what real ones do. Prints one line of JSON: images/s by the median step, the process's
peak resident memory, and the seconds from the interpreter's start until torch is imported and until the first step begins.
"""

import time

BEGAN = time.perf_counter()

import argparse
import importlib.util
import json
import os
import resource
import statistics
import sys
from types import ModuleType, SimpleNamespace

METHODS = (
    "full_tuning bias_tuning ln_tuning vpt_shallow vpt_deep adapter adaptformer lora lora_mlp ssf_attn ssf_mlp ssf_ln mask"
).split()


def arguments():
    parser = argparse.ArgumentParser(description="time the reference's training step")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--method", choices=[*METHODS, "none"], default="adaptformer")
    parser.add_argument("--adapter-dim", type=int, help="width of the bottlenecks; by default the reference's formula")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cores", type=int, default=2, help="intra-op threads of PyTorch")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--micro", type=int, help="samples of a micro-batch, whose gradients are accumulated; by default the batch")
    parser.add_argument("--warm", type=int, default=2, help="steps that are not timed")
    parser.add_argument("--steps", type=int, default=5, help="steps that are")
    return parser.parse_args()


def prepare(root):
    """Makes the reference's modules importable one by one, without what its packages import besides: the step needs PyTorch alone."""
    for name in ("clip", "models", "utils"):
        package = ModuleType(name)
        package.__path__ = [os.path.join(root, name)]
        sys.modules[name] = package
    if importlib.util.find_spec("timm") is None:  # the reference asks whether the backbone is timm's: it is not
        for name in ("timm", "timm.models", "timm.models.vision_transformer"):
            sys.modules[name] = ModuleType(name)
        sys.modules["timm.models.vision_transformer"].VisionTransformer = type("VisionTransformer", (), {})


def model(torch, a):
    """The reference's encoder, tuner and head as one function of images, its trained parameters, and its loss."""
    from clip.model import CLIP
    from models.classifiers import CosineClassifier
    from models import peft_vit
    from models.peft_vit import Peft_ViT, ViT_Tuner
    from utils.losses import LogitAdjustedLoss

    # Only the visual tower is used; the text tower is as small as it gets.
    visual = CLIP(embed_dim=64, image_resolution=a.resolution, vision_layers=a.layers, vision_width=a.width,
                  vision_patch_size=a.patch, context_length=2, vocab_size=2, transformer_width=64, transformer_heads=1,
                  transformer_layers=1).visual
    tuning = SimpleNamespace(**dict.fromkeys(METHODS, False), partial=None, vpt_len=None, adapter_dim=a.adapter_dim,
                             mask_ratio=None, mask_seed=None)
    if a.method != "none":
        setattr(tuning, a.method, True)
    if a.method == "lora_mlp":  # the reference's LoRA takes no out_dim, so that its LoRA on the MLP does not run
        peft_vit.LoRA = thin(torch)
    encoder = Peft_ViT(visual)
    tuner = ViT_Tuner(tuning, visual, a.classes)
    head = CosineClassifier(a.width, a.classes, torch.float32, scale=25)
    encoder.requires_grad_(False)
    tuner.requires_grad_(True)
    long_tail = torch.arange(1.0, a.classes + 1.0)
    return lambda x: encoder(x, tuner, head), [*tuner.parameters(), *head.parameters()], LogitAdjustedLoss(long_tail)


def thin(torch):
    """LoRA from in_dim to out_dim: x A B / r."""

    class LoRA(torch.nn.Module):
        def __init__(self, in_dim, bottle_dim, out_dim, dtype=None):
            super().__init__()
            self.a = torch.nn.Parameter(torch.randn(in_dim, bottle_dim, dtype=dtype))
            self.b = torch.nn.Parameter(torch.zeros(bottle_dim, out_dim, dtype=dtype))

        def forward(self, x):
            return x @ self.a @ self.b / self.a.shape[1]

    return LoRA


def main():
    a = arguments()
    if "LIFT_REFERENCE" not in os.environ:
        sys.exit("set LIFT_REFERENCE to a checkout of the reference implementation (https://github.com/shijxcs/LIFT)")
    prepare(os.environ["LIFT_REFERENCE"])
    import torch

    imported = time.perf_counter() - BEGAN
    if a.device == "cuda" and not torch.cuda.is_available():
        sys.exit("this PyTorch sees no GPU")
    torch.set_num_threads(a.cores)
    torch.set_default_device(a.device)
    torch.manual_seed(0)
    sys.stdout = sys.stderr  # the reference prints what it builds
    forward, trained, criterion = model(torch, a)
    sys.stdout = sys.__stdout__
    optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(a.batch, 3, a.resolution, a.resolution)
    labels = torch.randint(a.classes, (a.batch,))
    ready = time.perf_counter() - BEGAN
    seconds = []
    micro = a.micro or a.batch
    wait = torch.cuda.synchronize if a.device == "cuda" else lambda: None
    for _ in range(a.warm + a.steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        for x, y in zip(images.split(micro), labels.split(micro)):
            with torch.autocast("cuda", torch.bfloat16, enabled=a.device == "cuda"):
                loss = criterion(forward(x), y)
            (loss * (len(y) / a.batch)).backward()
        optimizer.step()
        wait()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "images_per_second": a.batch / statistics.median(seconds[a.warm:]),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_device_mb": torch.cuda.max_memory_allocated() / 2**20 if a.device == "cuda" else 0,
        "import_seconds": imported,
        "ready_seconds": ready,
        "trained_values": sum(p.numel() for p in trained),
        "method": a.method,
        "cores": a.cores,
        "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
