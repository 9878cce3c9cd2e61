"""The backbone: the visual half of OpenAI's CLIP at 28 pixels, and its file."""

import json
import os
import struct

import torch
import torch.nn as nn
import torch.nn.functional as F

SIDE, PATCH, WIDTH, LAYERS, HEADS = 28, 4, 128, 6, 2
GRID = SIDE // PATCH
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
QUICK = 1.702  # QuickGELU: x · sigmoid(QUICK · x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attn = nn.Module()
        self.attn.in_proj_weight = nn.Parameter(torch.randn(3 * WIDTH, WIDTH) * WIDTH**-0.5)
        self.attn.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.attn.out_proj = nn.Linear(WIDTH, WIDTH)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.mlp.c_proj = nn.Linear(4 * WIDTH, WIDTH)
        for linear in (self.attn.out_proj, self.mlp.c_proj):
            nn.init.normal_(linear.weight, std=WIDTH**-0.5 * (2 * LAYERS) ** -0.5)
            nn.init.zeros_(linear.bias)
        nn.init.normal_(self.mlp.c_fc.weight, std=(2 * WIDTH) ** -0.5)
        nn.init.zeros_(self.mlp.c_fc.bias)

    def forward(self, x):  # [B, N, WIDTH]
        b, n, _ = x.shape
        qkv = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = qkv.view(b, n, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(-1) @ v
        x = x + self.attn.out_proj(y.transpose(1, 2).reshape(b, n, WIDTH))
        # QuickGELU(h) = silu(QUICK·h) / QUICK, one fused operation if the scales go to the weights.
        fc, proj = self.mlp.c_fc, self.mlp.c_proj
        h = F.silu(F.linear(self.ln_2(x), QUICK * fc.weight, QUICK * fc.bias))
        return x + F.linear(h, proj.weight / QUICK, proj.bias)


class ViT(nn.Module):
    """Images to class tokens after ln_post: the feature that fine-tuning uses. There is no proj."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(WIDTH) * WIDTH**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(GRID**2 + 1, WIDTH) * WIDTH**-0.5)
        self.ln_pre = nn.LayerNorm(WIDTH)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_post = nn.LayerNorm(WIDTH)

    def forward(self, grey, keep=None):
        """grey [B, 1, S, S] in [0, 1], S = SIDE or a smaller multiple of PATCH (which sees the positions of
        the whole grid, resized). With keep, each image keeps that many patches, chosen at random."""
        b, grid = grey.shape[0], grey.shape[-1] // PATCH
        mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        x = F.unfold((grey - mean) / std, PATCH, stride=PATCH).transpose(1, 2)  # [B, grid², 3·PATCH²]
        pos = self.positions(grid)
        if keep:
            kept = torch.rand(b, grid * grid).argsort(1)[:, :keep]
            x = x.gather(1, kept.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
            pos = pos[kept]
        x = F.linear(x, self.conv1.weight.flatten(1)) + pos
        cls = self.class_embedding + self.positional_embedding[0]
        x = self.ln_pre(torch.cat([cls.expand(b, 1, WIDTH), x], 1))
        for block in self.transformer.resblocks:
            x = block(x)
        return self.ln_post(x[:, 0])

    def positions(self, grid):
        pos = self.positional_embedding[1:]
        if grid == GRID:
            return pos
        pos = pos.t().view(1, WIDTH, GRID, GRID)
        return F.interpolate(pos, size=(grid, grid), mode="bicubic").flatten(2)[0].t()


def rounded(model):
    """The model's weights in bfloat16, rounded to nearest even."""
    return {name: t.detach().to(torch.bfloat16) for name, t in model.state_dict().items()}


def save(model, path):
    """Writes the weights as safetensors in bfloat16, under CLIP's names, and never half a file."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, t in sorted(rounded(model).items()):
        blob = t.contiguous().view(torch.int16).numpy().tobytes()
        header["visual." + name] = {"dtype": "BF16", "shape": list(t.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path + ".tmp", "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + b"".join(blobs))
    os.replace(path + ".tmp", path)


def load(path):
    """The model of a file that save wrote, in float32."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + size])
    state = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + o for o in entry["data_offsets"])
        t = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.bfloat16)
        state[name.removeprefix("visual.")] = t.view(entry["shape"]).float()
    model = ViT()
    model.load_state_dict(state)
    return model
