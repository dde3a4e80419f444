#!/usr/bin/env python3
"""Times training steps of nanochat_dist and of the same model in PyTorch, in turn, on this CPU.

usage: bench/vs_pytorch/compare.py [--dir DIR] [--steps N] [--optimizer adamw|muon]... [--micro N]...
                                   [--precision fp32|bf16]... [--isa ISA] [--checkpointing]

  --dir DIR        a folder for PyTorch, installed from PyPI on the first run (build/vs_pytorch)
  --steps N        steps of each measurement, of which the median counts (5)
  --optimizer O    adamw or muon; may be given twice (both)
  --micro N        sequences computed at once, of the 8 of a step; may be given more than once (8)
  --precision P    PyTorch's; may be given twice (both)
  --isa ISA        limits nanochat_dist and PyTorch to an instruction set: AVX2, AVX512_CORE ... (all)
  --checkpointing  times nanochat_dist with recompute_ffn and with gradient_checkpointing too, each a row
                   of its own
  --limit S        seconds after which a PyTorch measurement is given up (200): bf16 without bf16 instructions
                   takes minutes a step

6 bitnet layers of 512, 8 sequences of 512 tokens. PyTorch runs eager and compiled, in fp32 and bf16. Of each side
counts what takes least memory among its runs within 3 % of its fastest. For each --micro nanochat_dist runs
first and last, and the slower of the two counts. Threads wait as either program has it by default.
Needs build/release/bench/bench_throughput."""
import argparse
import json
import os
import re
import subprocess
import sys
import venv

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BENCH = f"{ROOT}/build/release/bench/bench_throughput"


def fail(text):
    sys.exit(f"compare: {text}")


def python_with_torch(directory):
    python = f"{directory}/bin/python"
    if not os.path.exists(python) or subprocess.run([python, "-c", "import torch"]).returncode:
        print(f"installing PyTorch into {directory}", flush=True)
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "numpy", "setuptools"],
                       check=True)
    return python


def environment(isa):
    e = dict(os.environ)
    if isa:
        e.update(DNNL_MAX_CPU_ISA=isa, ONEDNN_MAX_CPU_ISA=isa)
        if "512" not in isa:  # PyTorch's own kernels, its compiler's, and MKL's
            e.update(ATEN_CPU_CAPABILITY="avx2", MKL_ENABLE_INSTRUCTIONS="AVX2")
    return e


SAVINGS = [None, "recompute_ffn", "gradient_checkpointing"]


def ours(optimizer, micro, saving, steps, isa):
    words = [BENCH, "--steps", str(steps), "--set", f"training.optimizer_type={optimizer}",
             "--set", f"training.micro_batch_size={micro}"]
    words += ["--set", f"hardware.{saving}=true"] if saving else []
    done = subprocess.run(words, env=environment(isa), capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(words)} failed: {done.stderr.strip()}")
    find = lambda pattern: float(re.search(pattern, done.stdout).group(1))
    return {
        "name": f"nanochat_dist, {micro} at once" + (f", {saving}" if saving else ""),
        "parameters": find(r"([\d.]+)M parameters"),
        "step_s": find(r"step \| ([\d.]+) ms") / 1e3,
        "peak_bytes": find(r"its peak \| ([\d.]+)") * 2**20,
        "roofline": find(r"ratio to the roofline\*\* \| \*\*([\d.]+)"),
    }


def theirs(python, optimizer, micro, precision, compiled, steps, isa, limit):
    words = [python, f"{HERE}/torch_model.py", "--optimizer", optimizer, "--precision", precision,
             "--micro", str(micro), "--steps", str(steps)] + ["--compile"] * compiled
    name = f"PyTorch {precision} {'compiled' if compiled else 'eager'}, {micro} at once"
    try:
        done = subprocess.run(words, env=environment(isa), capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        print(f"{name}: given up, {steps + 2} steps took more than {limit} s", flush=True)
        return None
    if done.returncode:
        print(f"{name} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return None
    result = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {4096 / result['step_s']:.0f} tokens/s", flush=True)
    return dict(result, name=name)


def counted(runs):
    """The smallest of those that are as fast as the fastest, within 3 %."""
    fastest = min(r["step_s"] for r in runs)
    return min((r for r in runs if r["step_s"] <= 1.03 * fastest), key=lambda r: r["peak_bytes"])


def compare(python, optimizer, a):
    micros = a.micro or [8]
    modes = [(m, s) for s in SAVINGS[:3 if a.checkpointing else 1] for m in micros]
    first = [ours(optimizer, m, s, a.steps, a.isa) for m, s in modes]
    others = [theirs(python, optimizer, m, p, c, a.steps, a.isa, a.limit)
              for m in micros for p in a.precision or ["fp32", "bf16"] for c in (False, True)]
    others = [r for r in others if r]
    if not others:
        fail("PyTorch did not run at all")
    last = [ours(optimizer, m, s, a.steps, a.isa) for m, s in modes]
    both = [max(pair, key=lambda r: r["step_s"]) for pair in zip(first, last)]
    for r in others:
        if abs(r["parameters"] / 1e6 - both[0]["parameters"]) > 0.006:
            fail(f"{r['name']} has {r['parameters'] / 1e6:.2f}M parameters, nanochat_dist "
                 f"{both[0]['parameters']}M: they are not the same model")
    rows, other = [counted(both[:len(micros)])] + both[len(micros):], counted(others)
    print(f"\n{optimizer}, medians of {a.steps} steps, PyTorch {others[0]['torch']}, "
          f"{others[0]['threads']} threads\n\n| | tokens/s | peak memory, MiB |\n|---|---|---|")
    for r in both + others:
        print(f"| {r['name']} | {4096 / r['step_s']:.0f} | {r['peak_bytes'] / 2**20:.0f} |")
    for mine in rows:
        print(f"| **{mine['name']}** to {other['name']} | **{other['step_s'] / mine['step_s']:.2f}** "
              f"| **{mine['peak_bytes'] / other['peak_bytes']:.2f}** |")
    print("\nratio to the roofline, at first and at last: "
          + ", ".join(f"{f['roofline']} and {l['roofline']}" for f, l in zip(first, last)), flush=True)


def cpu():
    text = open("/proc/cpuinfo").read()
    flags = re.search(r"flags\s*: (.*)", text).group(1).split()
    known = ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
    return (f"{re.search(r'model name.*: (.*)', text).group(1)}, {len(os.sched_getaffinity(0))} CPUs, "
            f"{' '.join(f for f in known if f in flags)}")


def main():
    if "--help" in sys.argv or "-h" in sys.argv:
        print(__doc__)
        return
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--dir", default=f"{ROOT}/build/vs_pytorch")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--optimizer", action="append", choices=["adamw", "muon"])
    parser.add_argument("--micro", type=int, action="append", choices=[1, 2, 4, 8])
    parser.add_argument("--precision", action="append", choices=["fp32", "bf16"])
    parser.add_argument("--isa")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--limit", type=float, default=200)
    a = parser.parse_args()
    if not os.path.exists(BENCH):
        fail(f"no {BENCH}: cmake --preset release && cmake --build --preset release")
    python = python_with_torch(a.dir)
    print(f"{cpu()}{', limited to ' + a.isa if a.isa else ''}", flush=True)
    for optimizer in a.optimizer or ["adamw", "muon"]:
        compare(python, optimizer, a)


if __name__ == "__main__":
    main()
