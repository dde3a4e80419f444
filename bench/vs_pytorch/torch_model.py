#!/usr/bin/env python3
"""Trains the model of docs/model.md (bitnet) with PyTorch, and prints how long a step takes.

usage: torch_model.py --optimizer adamw|muon --precision fp32|bf16 [--compile] [--steps N]
                      [--layers N] [--width N] [--batch N] [--micro N] [--length N] [--vocabulary N]

What it computes is what bench_throughput trains: ternary weights and 8-bit activations, fake-quantized
with straight-through gradients; grouped-query attention by scaled_dot_product_attention; SwiGLU; sub-norms;
a tied head; clipping; AdamW for the embedding and the norms, AdamW or Muon for the matrices. bf16 means
autocast over f32 masters. --micro N computes N sequences at once and adds up their gradients. Random tokens.
Prints one JSON object."""
import argparse
import json
import resource
import statistics
import sys
import time

if {"--help", "-h"} & set(sys.argv[1:]):  # before imports of what may be missing
    sys.exit(print(__doc__))

import torch
import torch.nn.functional as F
from torch import nn

EPS = 1e-5


class Ternary(torch.autograd.Function):
    """round(w / mean|w|) clipped to -1, 0, 1, times the scale; the gradient passes."""

    @staticmethod
    def forward(ctx, w):
        scale = w.abs().mean().clamp(min=EPS)
        return (w / scale).round().clamp(-1, 1) * scale

    @staticmethod
    def backward(ctx, g):
        return g


class Quantized(torch.autograd.Function):
    """Rows rounded to 8 bits by their largest magnitude; the gradient passes."""

    @staticmethod
    def forward(ctx, x):
        scale = 127.0 / x.abs().amax(dim=-1, keepdim=True).clamp(min=EPS)
        return (x * scale).round().clamp(-128, 127) / scale

    @staticmethod
    def backward(ctx, g):
        return g


class Linear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * inputs**-0.5)

    def forward(self, x):
        return F.linear(Quantized.apply(x), Ternary.apply(self.weight))


class Layer(nn.Module):
    def __init__(self, width, heads, kv_heads, ffn):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        kv = kv_heads * self.size
        self.q, self.k, self.v = Linear(width, width), Linear(width, kv), Linear(width, kv)
        self.out = Linear(width, width)
        self.gate, self.up, self.down = Linear(width, ffn), Linear(width, ffn), Linear(ffn, width)
        self.norms = nn.ModuleList(nn.RMSNorm(n, EPS) for n in (width, width, width, ffn))

    def split(self, x, heads):
        return x.view(*x.shape[:2], heads, self.size).transpose(1, 2)

    def forward(self, x, cos, sin):
        h = self.norms[0](x)
        q, k = self.split(self.q(h), self.heads), self.split(self.k(h), self.kv_heads)
        v = self.split(self.v(h), self.kv_heads)
        q, k = turn(q, cos, sin), turn(k, cos, sin)
        k, v = (t.repeat_interleave(self.heads // self.kv_heads, dim=1) for t in (k, v))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(self.norms[1](o.transpose(1, 2).flatten(2)))
        h = self.norms[2](x)
        return x + self.down(self.norms[3](F.silu(self.gate(h)) * self.up(h)))


def turn(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


class Model(nn.Module):
    def __init__(self, a):
        super().__init__()
        self.embedding = nn.Embedding(a.vocabulary, a.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        heads, ffn = a.width // 64, a.width * 7 // 2
        self.layers = nn.ModuleList(Layer(a.width, heads, heads // 2, ffn) for _ in range(a.layers))
        self.norm = nn.RMSNorm(a.width, EPS)
        angles = torch.outer(torch.arange(a.length), 10000.0 ** (-torch.arange(32) / 32))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens):
        x = self.embedding(tokens[:, :-1])
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.embedding.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


class Muon(torch.optim.Optimizer):
    """Momentum with Nesterov, orthogonalized by five Newton-Schulz iterations in `dtype`."""

    def __init__(self, params, dtype, lr=0.02, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m = state.setdefault("momentum", torch.zeros_like(p))
                m.mul_(group["momentum"]).add_(p.grad)
                x = orthogonalized(p.grad.add(m, alpha=group["momentum"]), self.dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(x.to(p.dtype), alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def orthogonalized(x, dtype):
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x).to(dtype)
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x


def optimizers(model, kind, dtype):
    matrices = [p for m in model.modules() if isinstance(m, Linear) for p in m.parameters()]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    adamw = lambda params: torch.optim.AdamW(params, lr=3e-3, betas=(0.9, 0.95), fused=True)
    return [adamw(others), Muon(matrices, dtype) if kind == "muon" else adamw(matrices)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--compile", action="store_true")
    for name, value in dict(steps=5, layers=6, width=512, batch=8, micro=8, length=512, vocabulary=4096).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.manual_seed(1)
    model = Model(a)
    run = torch.compile(model) if a.compile else model
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    both = optimizers(model, a.optimizer, dtype)
    times = []
    for _ in range(2 + a.steps):  # the first two warm up, and compile
        tokens = torch.randint(a.vocabulary, (a.batch, a.length + 1))
        begin = time.perf_counter()
        for part in tokens.split(a.micro):
            with torch.autocast("cpu", torch.bfloat16, enabled=a.precision == "bf16"):
                loss = run(part) * (len(part) / a.batch)
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in both:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()
        times.append(time.perf_counter() - begin)
    print(json.dumps({
        "parameters": sum(p.numel() for p in model.parameters()),
        "step_s": statistics.median(times[2:]),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }))


if __name__ == "__main__":
    main()
