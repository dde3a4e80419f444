#!/usr/bin/env python3
"""Runs an exported checkpoint in unmodified llama.cpp and compares it with nanochat_dist.

usage: gguf_vs_llama_cpp.py NANOCHAT_DIST CHECKPOINT DATA_PATH [--windows N] [--texts FILE...]

1. Exports every GGUF type. Reads them back with the gguf package and compares each tensor,
   dequantized there, with codes and scales computed here from the HDF5 masters: they must be equal
   to the bit.
2. Tokens of texts: llama.cpp's and ours must be equal.
3. Perplexity of the first N held-out windows in llama.cpp against `eval`: f32 within 0.1 % of
   `eval --no-activation-quant`, the packed types within 1 % of `eval`, f16 within 0.1 %.
4. Logits of f32 after every token of a text, against `sample --logits`: at most 1e-3 apart.
5. Greedy continuations: equal for f32; for the packed types the number of equal tokens is printed.

Needs numpy, h5py, gguf and llama_cpp (llama-cpp-python built without change for this CPU). Exits 1
when a bound is broken."""
import argparse
import configparser
import glob
import json
import os
import sys
import tempfile

if {"--help", "-h"} & set(sys.argv[1:]):  # before imports of what may be missing
    sys.exit(print(__doc__))

import gguf
import h5py
import llama_cpp
import numpy as np

from exported import check, dequantized, failures, masters, run

PACKED = ["tq2_0", "tq1_0", "q2_0"]
TYPES = ["f32", "f16"] + PACKED


def check_tensors(path, name, weights, group):
    reader = gguf.GGUFReader(path)
    worst, exact = "", True
    for t in reader.tensors:
        got = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        w = weights[t.name]
        if "norm" in t.name:
            want = w.reshape(-1)
        elif t.name in ("token_embd.weight", "output.weight"):
            want = w if name == "f32" else w.astype(np.float16).astype(np.float32)
        else:
            want = dequantized(w, group)
        # Zero has a sign in what is computed here only.
        if not np.array_equal(got.reshape(want.shape) + 0.0, want + 0.0):
            exact, worst = False, t.name
    check(exact and len(reader.tensors) == len(weights),
          f"{name}: {len(reader.tensors)} tensors read by gguf {worst}are the checkpoint's, to the bit")


def load(path, context, f16_cache=False):
    cache = {} if f16_cache else {"type_k": 0, "type_v": 0}  # GGML_TYPE_F32
    return llama_cpp.Llama(path, n_ctx=context, n_batch=context, n_ubatch=context, logits_all=True,
                           n_threads=2, n_threads_batch=2, verbose=False, **cache)


def logits_of(model, tokens):
    model.reset()
    model.eval([int(t) for t in tokens])
    return np.array(model.scores[: len(tokens)])


def windows(data_path, length, count):
    found = []
    for path in sorted(glob.glob(f"{data_path}/val_*.h5")):
        tokens = h5py.File(path)["tokens"][()].astype(np.int64)
        for at in range(0, len(tokens) - length, length):
            found.append(tokens[at : at + length + 1])
            if len(found) == count:
                return found
    return found


def loss_of(model, found):
    total, count = 0.0, 0
    for w in found:
        z = logits_of(model, w[:-1]).astype(np.float64)
        top = z.max(axis=1)
        lse = top + np.log(np.exp(z - top[:, None]).sum(axis=1))
        total += (lse - z[np.arange(len(w) - 1), w[1:]]).sum()
        count += len(w) - 1
    return total / count


def greedy(model, tokens, count, end):
    tokens = list(tokens)
    start = len(tokens)
    model.reset()
    model.eval([int(t) for t in tokens])
    while len(tokens) - start < count:
        token = int(np.argmax(model.scores[len(tokens) - 1]))
        if token == end:
            break
        tokens.append(token)
        model.eval([token])
    return tokens[start:]


def equal_start(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("checkpoint")
    parser.add_argument("data_path")
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--texts", nargs="*", default=[])
    a = parser.parse_args()
    config = configparser.ConfigParser()
    config.read(f"{a.checkpoint}/config.ini")
    context = config.getint("model", "max_seq_len")
    length = config.getint("training", "seq_length")
    group = config.getint("model", "group_size")
    tokenizer = f"{a.checkpoint}/tokenizer.model"
    weights = masters(a.checkpoint)
    directory = tempfile.mkdtemp()
    texts = [open(p, "rb").read().decode() for p in a.texts]
    texts += ["fn main() {\n    println!(\"{}\", 1 + 2);\n}\n", "  two  spaces\tand a tab\r\n\n\n", "",
              "naïve Ωmega 漢字 🦀 \u0000? no: é e\u0301", "</s> <s> <unk> <0x0A>", "a" * 300]
    texts = [t.replace("\u0000", "") for t in texts]

    for name in TYPES:
        run(a.program, "export", "--checkpoint", a.checkpoint, "--type", name, "--out",
            f"{directory}/{name}.gguf")
        if name != "q2_0":  # the gguf package of 0.19 does not know the type
            check_tensors(f"{directory}/{name}.gguf", name, weights, group)

    model = load(f"{directory}/f32.gguf", context)
    end = model.token_eos()
    different, total = 0, 0
    for text in texts:
        ours = [int(t) for t in run(a.program, "tokenizer", "encode", "--model", tokenizer,
                                    input=text.encode()).split()]
        theirs = model.tokenize(text.encode(), add_bos=False, special=False)
        different += ours != theirs
        total += len(ours)
    check(different == 0, f"tokens: {len(texts) - different} of {len(texts)} texts equal, {total} tokens")
    check(model.token_bos() == end, "llama.cpp begins with the mark between documents")

    prompts = ["pub fn new(", "use std::collections::HashMap;\n\nimpl", "/// Returns"]
    worst, scale = 0.0, 0.0
    for i, prompt in enumerate(prompts):
        path = f"{directory}/logits.f32"
        out = run(a.program, "sample", "--checkpoint", a.checkpoint, "--prompt", prompt, "--temperature",
                  "0", "--max-tokens", "100", "--precision", "fp32", "--no-activation-quant", "--ids",
                  "--logits", path).split()
        ours = [int(t) for t in out]
        start = model.tokenize(prompt.encode(), add_bos=True, special=False)
        theirs = greedy(model, start, 100, end)
        check(ours == theirs, f"f32 greedy: {equal_start(ours, theirs)} of {len(ours)} tokens equal")
        z = np.fromfile(path, "<f4").reshape(-1, config.getint("model", "vocab_size"))
        got = logits_of(model, start + ours)
        worst = max(worst, float(np.abs(got - z[: len(got)]).max()))
        scale = max(scale, float(np.abs(z).max()))
    check(worst <= 1e-3, f"f32 logits: largest difference {worst:.2e} (largest logit {scale:.1f})")

    held_out = windows(a.data_path, length, a.windows)

    def evaluate(*extra):
        text = run(a.program, "eval", "--checkpoint", a.checkpoint, "--data-path", a.data_path,
                   "--samples", str(len(held_out)), "--precision", "fp32", "--json", *extra)
        return json.loads(text)["val_loss"]

    quantized, plain = evaluate(), evaluate("--no-activation-quant")
    print(f"        eval: perplexity {np.exp(quantized):.4f}, without activation quantization "
          f"{np.exp(plain):.4f}; {len(held_out)} windows of {length}")
    for name in TYPES:
        other = load(f"{directory}/{name}.gguf", context)
        loss = loss_of(other, held_out)
        want, bound = (quantized, 1e-2) if name in PACKED else (plain, 1e-3)
        error = np.exp(loss - want) - 1.0
        check(abs(error) <= bound, f"{name} perplexity: {np.exp(loss):.4f}, {100 * error:+.4f} % "
              f"({os.path.getsize(f'{directory}/{name}.gguf')} bytes)")
        for prompt in prompts if name in PACKED else []:
            ours = [int(t) for t in run(
                a.program, "sample", "--checkpoint", a.checkpoint, "--prompt", prompt, "--temperature",
                "0", "--max-tokens", "100", "--precision", "fp32", "--ids").split()]
            start = other.tokenize(prompt.encode(), add_bos=True, special=False)
            theirs = greedy(other, start, 100, end)
            # What llama.cpp would have said at every place of our own continuation.
            agreed = np.argmax(logits_of(other, start + ours)[len(start) - 1 : -1], axis=1)
            print(f"        {name} greedy: {equal_start(ours, theirs)} of {len(ours)} tokens equal from "
                  f"the start, {int((agreed == np.array(ours)).sum())} along our own continuation")
    for path in glob.glob(f"{directory}/*"):
        os.remove(path)
    os.rmdir(directory)
    if failures:
        sys.exit(f"{len(failures)} of the checks are broken")


if __name__ == "__main__":
    main()
