#!/usr/bin/env python3
"""Loads an exported checkpoint with transformers and compares it with nanochat_dist; imports models
that transformers has written.

usage: safetensors_vs_transformers.py NANOCHAT_DIST CHECKPOINT [--data-path DIR] [--texts FILE...]

1. Exports f32 and bf16. The safetensors package reads the tensors; each is compared with codes and
   scales computed here from the HDF5 masters: they must be equal to the bit.
2. AutoModelForCausalLM (LlamaForCausalLM or BitNetForCausalLM) loads the f32 directory without a
   missing or unexpected weight; its logits after every token of a text are within 1e-3 of `sample
   --logits`.
3. AutoTokenizer makes the same tokens.
4. Export, import, export: every file the same bytes.
5. A llama that transformers has made and saved (f32, bf16, f16, in shards) is imported: its masters
   are the weights in our order of rows. With --data-path it is trained on for three steps.

Needs numpy, h5py, torch, safetensors, transformers and sentencepiece. Exits 1 when a check is
broken."""
import argparse
import configparser
import filecmp
import json
import os
import shutil
import subprocess
import sys
import tempfile

if {"--help", "-h"} & set(sys.argv[1:]):  # before imports of what may be missing
    sys.exit(print(__doc__))

import numpy as np
import safetensors.torch
import torch
import transformers

from exported import check, dequantized, failures, masters, run

PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_sub_norm": "self_attn.attn_sub_norm",
    "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_sub_norm": "mlp.ffn_sub_norm",
    "ffn_down": "mlp.down_proj",
}
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
       "output.weight": "lm_head.weight"}


def their_name(name):
    if name in TOP:
        return TOP[name]
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{PARTS[part]}.weight"


def their_rows(w, name, arch, heads, kv_heads):
    """Pairs (2i, 2i + 1) of a head's rows become (i, i + D/2)."""
    if arch != "llama" or not name.endswith(("attn_q.weight", "attn_k.weight")):
        return w
    n = heads if "attn_q" in name else kv_heads
    return w.reshape(n, -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def compare_tensors(directory, want, kind):
    got = safetensors.torch.load_file(f"{directory}/model.safetensors")
    different = [n for n in want if n not in got or not torch.equal(got[n].reshape(-1), want[n].reshape(-1))]
    check(not different and len(got) == len(want),
          f"{kind}: {len(got)} tensors read by safetensors are the checkpoint's, to the bit {different[:3]}")


def same_files(a, b):
    names = sorted(os.listdir(a))
    return names == sorted(os.listdir(b)) and not filecmp.cmpfiles(a, b, names, shallow=False)[1]


def foreign(program, directory, data_path, dtype, tied):
    """A llama of transformers' making, in shards."""
    torch.manual_seed(1)
    shape = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=64, intermediate_size=200, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6,
        tie_word_embeddings=tied)
    model = transformers.LlamaForCausalLM(shape).to(dtype)
    path, out = f"{directory}/foreign", f"{directory}/foreign_run"
    model.save_pretrained(path, max_shard_size="300KB")
    shards = [n for n in os.listdir(path) if n.endswith(".safetensors")]
    text = run(program, "import", "--from", path, "--out", out).decode()
    got = masters(f"{out}/checkpoints/latest")
    weights = model.state_dict()
    wrong = [n for n in got if not np.array_equal(
        their_rows(got[n], n, "llama", 4, 2).reshape(-1),
        weights[their_name(n)].float().numpy().reshape(-1))]
    check(not wrong and len(got) == 2 + 9 * 2 + (not tied) and "1e-06" in text,
          f"import of {dtype} in {len(shards)} shards, tied {tied}: {len(got)} masters are its weights {wrong}")
    if data_path:
        done = subprocess.run(
            [program, "train", "--config", f"{out}/checkpoints/latest/config.ini", "--data-path", data_path,
             "--run-dir", out, "--resume", "auto", "--total-steps", "3", "--set", "training.batch_size=4",
             "--set", "training.warmup_steps=1", "--set", "logging.eval_samples=4"], capture_output=True)
        lines = open(f"{out}/metrics.jsonl").read().splitlines() if done.returncode == 0 else []
        losses = [json.loads(line)["loss"] for line in lines]
        check(len(losses) == 3 and np.isfinite(losses).all(), f"and trains on: losses {losses}")
    shutil.rmtree(path)
    shutil.rmtree(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("checkpoint")
    parser.add_argument("--data-path")
    parser.add_argument("--texts", nargs="*", default=[])
    a = parser.parse_args()
    config = configparser.ConfigParser()
    config.read(f"{a.checkpoint}/config.ini")
    model_of = config["model"]
    arch, group = model_of["arch"].strip('"'), model_of.getint("group_size")
    heads, kv_heads = model_of.getint("num_heads"), model_of.getint("num_kv_heads")
    weights = masters(a.checkpoint)
    directory = tempfile.mkdtemp()

    for kind, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        path = f"{directory}/{kind}"
        run(a.program, "export", "--checkpoint", a.checkpoint, "--format", "safetensors", "--type", kind,
            "--out", path)
        want = {}
        for name, w in weights.items():
            ternary = "norm" not in name and name not in TOP
            x = their_rows(dequantized(w, group) if ternary else w, name, arch, heads, kv_heads)
            want[their_name(name)] = torch.from_numpy(np.ascontiguousarray(x)).to(dtype)
        compare_tensors(path, want, kind)
        run(a.program, "import", "--from", path, "--out", f"{directory}/run")
        run(a.program, "export", "--checkpoint", f"{directory}/run", "--format", "safetensors", "--type",
            kind, "--out", f"{directory}/again")
        check(same_files(path, f"{directory}/again"), f"{kind}: export, import, export gives the same bytes")
        shutil.rmtree(f"{directory}/run")
        shutil.rmtree(f"{directory}/again")

    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        f"{directory}/f32", dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    check(not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"],
          f"{type(model).__name__} takes every weight")
    tokenizer = transformers.AutoTokenizer.from_pretrained(f"{directory}/f32")
    worst = 0.0
    for prompt in ("use std::collections::HashMap;\n\nimpl", "/// Returns the", "pub fn"):
        path = f"{directory}/logits.f32"
        out = run(a.program, "sample", "--checkpoint", a.checkpoint, "--prompt", prompt, "--temperature",
                  "0", "--max-tokens", "60", "--precision", "fp32", "--no-activation-quant", "--ids",
                  "--logits", path).split()
        ours = np.fromfile(path, "<f4").reshape(-1, model_of.getint("vocab_size"))
        start = tokenizer(prompt)["input_ids"]
        ids = torch.tensor([start + [int(t) for t in out]])
        with torch.no_grad():
            theirs = model(ids[:, : len(ours)]).logits[0].numpy()
        worst = max(worst, float(np.abs(ours - theirs).max()))
        made = model.generate(torch.tensor([start]), max_new_tokens=60, do_sample=False)[0].tolist()
        made = made[len(start):]
        made = made[:-1] if made and made[-1] == tokenizer.eos_token_id else made
        check(made == [int(t) for t in out], f"greedy continuation of {len(out)} tokens is the same")
    check(worst <= 1e-3, f"largest difference of logits {worst:.2e}")

    texts = [open(p, "rb").read().decode() for p in a.texts]
    texts += ["fn main() {\n    println!(\"{}\", 1 + 2);\n}\n", "  two  spaces\tand a tab\r\n\n\n",
              "naïve Ωmega 漢字 🦀 é e\u0301", "a" * 300]
    wrong = 0
    for text in texts:
        ours = run(a.program, "tokenizer", "encode", "--model", f"{a.checkpoint}/tokenizer.model",
                   input=text.encode()).split()
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        wrong += [int(t) for t in ours] != theirs or tokenizer.decode(theirs) != text
    check(wrong == 0, f"AutoTokenizer: {len(texts) - wrong} of {len(texts)} texts have the same tokens")

    for dtype, tied in ((torch.float32, False), (torch.bfloat16, True), (torch.float16, False)):
        foreign(a.program, directory, a.data_path, dtype, tied)
    shutil.rmtree(directory)
    if failures:
        sys.exit(f"{len(failures)} of the checks are broken")


if __name__ == "__main__":
    main()
