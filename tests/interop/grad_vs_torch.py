#!/usr/bin/env python3
"""Compares `nanochat_dist grad` with an independent model in PyTorch, in double precision.

usage: grad_vs_torch.py NANOCHAT_DIST CHECKPOINT [--reference]

Builds the model of docs/model.md from the checkpoint's config.ini and HDF5 masters, computes loss
and gradients by autograd with straight-through quantizers, runs the program on the same tokens, and
prints the normalized error of every gradient. Exits 1 when the loss differs by more than 1e-4
(relative) or a gradient by more than 2 % (one activation on a rounding tie moves a gradient by
about 1 %; with --reference and no ties the errors are of order 1e-6). With use_collider in the
checkpoint's config, the choice of tokens (/kept) is made again from the losses of the model here,
filtered tokens are masked in the loss, and their keys and values are detached; no gradient may then
reach their rows of the residual stream. Needs numpy, h5py and torch."""
import argparse
import configparser
import glob
import json
import subprocess
import sys
import tempfile

if {"--help", "-h"} & set(sys.argv[1:]):  # before imports of what may be missing
    sys.exit(print(__doc__))

import h5py
import numpy as np
import torch
import torch.nn.functional as F

EPS = 1e-5


class Straight(torch.autograd.Function):
    """Takes the value of `forward` and the gradient of the identity."""

    @staticmethod
    def forward(ctx, x, value):
        return value

    @staticmethod
    def backward(ctx, g):
        return g, None


def ternary(w):
    scale = np.float16(max(float(w.detach().abs().mean()), EPS))
    codes = torch.clamp(torch.round(w.detach() / float(scale)), -1, 1)
    return Straight.apply(w, codes * float(scale))


def quantized(x):
    # The program divides in f32; doing the same keeps rounding ties on the same side.
    x32 = x.detach().float()
    a = x32.abs().amax(dim=-1, keepdim=True).clamp(min=EPS)
    q = torch.clamp(torch.round(x32 * (127.0 / a)), -128, 127)
    return Straight.apply(x, q.double() * a.double() / 127.0)


def norm(x, w):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * w


def rope(x, base, halves):
    batch, length, heads, dim = x.shape
    freq = base ** (-2.0 * torch.arange(dim // 2, dtype=torch.double) / dim)
    angle = torch.arange(length, dtype=torch.double)[:, None] * freq
    c, s = angle.cos()[None, :, None], angle.sin()[None, :, None]
    if halves:
        u, v = x[..., : dim // 2], x[..., dim // 2 :]
        return torch.cat([u * c - v * s, u * s + v * c], -1)
    u, v = x[..., 0::2], x[..., 1::2]
    return torch.stack([u * c - v * s, u * s + v * c], -1).flatten(-2)


def unlike_rule(nll, training, kept, weight):
    """Tokens that docs/collider.md does not let stay, or go, or weigh so. What is drawn is taken as
    it is."""
    loss = nll.detach().flatten().numpy()
    filtered = int(float(training["collider_sparsity"]) * loss.size)
    if training["collider_rule"].strip('"') == "sample":
        counted = abs(int(kept.sum()) - (loss.size - filtered))
        return counted + int((weight[kept] < 1.0).sum()) + int((weight[~kept] != 0.0).sum())
    importance = (loss - loss.min()) / (loss.max() - loss.min())
    lowest = np.argsort(loss, kind="stable")[:filtered]
    stays = np.ones(loss.size, bool)
    stays[lowest[importance[lowest] < float(training["collider_threshold"])]] = False
    return int((stays.reshape(kept.shape) != kept).sum() + (weight != kept).sum())


def model(p, cfg, tokens, kept=None):
    """Loss of each token, and the residual stream before each layer."""
    m = cfg["model"]
    bitnet = m["arch"].strip('"') == "bitnet"
    heads, kv = int(m["num_heads"]), int(m["num_kv_heads"])
    d = int(m["hidden_dim"])
    hd = d // heads
    base = float(m["rope_base"])
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    batch, length = inputs.shape
    x = p["token_embd.weight"][inputs]
    stream = []
    for layer in range(int(m["num_layers"])):
        w = lambda name: p[f"blk.{layer}.{name}.weight"]
        lin = lambda value, name: quantized(value) @ ternary(w(name)).T
        if kept is not None:
            x.retain_grad()
            stream.append(x)
        h = norm(x, w("attn_norm"))
        q = rope(lin(h, "attn_q").view(batch, length, heads, hd), base, bitnet)
        k = rope(lin(h, "attn_k").view(batch, length, kv, hd), base, bitnet)
        v = lin(h, "attn_v").view(batch, length, kv, hd)
        if kept is not None:
            mask = torch.tensor(kept)[:, :, None, None]
            k, v = (torch.where(mask, t, t.detach()) for t in (k, v))
        k, v = (t.repeat_interleave(heads // kv, dim=2) for t in (k, v))
        o = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True)
        o = o.transpose(1, 2).reshape(batch, length, d)
        if bitnet:
            o = norm(o, w("attn_sub_norm"))
        x = x + lin(o, "attn_output")
        h = norm(x, w("ffn_norm"))
        h = F.silu(lin(h, "ffn_gate")) * lin(h, "ffn_up")
        if bitnet:
            h = norm(h, w("ffn_sub_norm"))
        x = x + lin(h, "ffn_down")
    head = p.get("output.weight", p["token_embd.weight"])
    logits = norm(x, p["output_norm.weight"]) @ head.T
    nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return nll.view(batch, length), stream


def load(directory):
    params = {}
    manifest = json.load(open(f"{directory}/manifest.json"))
    for path in sorted(glob.glob(f"{directory}/rank_*.h5")):
        with h5py.File(path) as f:
            for name, data in f.get("masters", {}).items():
                values = data[()]
                if values.dtype == np.uint16:  # bf16 bit patterns
                    values = (values.astype(np.uint32) << 16).view(np.float32)
                t = torch.tensor(values, dtype=torch.double)
                params[name] = (t[0] if t.shape[0] == 1 else t).requires_grad_()
    assert len(params) == sum(t["part"] == "master" for t in manifest["tensors"])
    return params


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", metavar="NANOCHAT_DIST")
    parser.add_argument("checkpoint", metavar="CHECKPOINT")
    parser.add_argument("--reference", action="store_true")
    arguments = parser.parse_args()
    program, checkpoint = arguments.program, arguments.checkpoint
    extra = ["--reference"] if arguments.reference else []
    cfg = configparser.ConfigParser()
    cfg.read(f"{checkpoint}/config.ini")
    params = load(checkpoint)
    rng = np.random.default_rng(7)
    tokens = rng.integers(0, int(cfg["model"]["vocab_size"]), (3, 25))
    with tempfile.TemporaryDirectory() as tmp:
        with h5py.File(f"{tmp}/tokens.h5", "w") as f:
            f["tokens"] = tokens.astype(np.int32)
        subprocess.run([program, "grad", "--checkpoint", checkpoint, "--tokens", f"{tmp}/tokens.h5",
                        "--out", f"{tmp}/grad.h5", *extra], check=True)
        with h5py.File(f"{tmp}/grad.h5") as f:
            found_loss = float(f["loss"][()])
            found = {k: v[()] for k, v in f["gradients"].items()}
            kept = f["kept"][()].astype(bool) if "kept" in f else None
            weight = f["weight"][()] if kept is not None else 1.0
    nll, stream = model(params, cfg, torch.tensor(tokens), kept)
    loss = nll.mean()
    (nll * torch.as_tensor(weight)).sum().div(nll.numel()).backward()
    bad = abs(found_loss / loss.item() - 1) > 1e-4
    print(f"loss {found_loss:.9f}, PyTorch {loss.item():.9f}")
    if kept is not None:
        others = unlike_rule(nll, cfg["training"], kept, weight)
        reached = max(float(np.abs(x.grad.numpy()[~kept]).max(initial=0.0)) for x in stream)
        bad |= others > 0 or reached > 0.0 or bool(kept.all())
        print(f"{kept.sum()} of {kept.size} tokens take part, {others} are not as the rule has them; "
              f"largest gradient of a filtered row {reached}")
    for name, p in params.items():
        g = p.grad.numpy()
        error = np.linalg.norm(found[name].reshape(g.shape) - g) / max(np.linalg.norm(g), 1e-30)
        bad |= not error < 2e-2
        print(f"{name:30s} {error:.3e}")
    sys.exit(int(bad))


if __name__ == "__main__":
    main()
