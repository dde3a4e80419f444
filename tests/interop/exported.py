"""What the checks of exported checkpoints share; to be imported. Needs numpy and h5py."""
import json
import subprocess
import sys

import h5py
import numpy as np

failures = []


def check(holds, text):
    print(("ok      " if holds else "BROKEN  ") + text, flush=True)
    if not holds:
        failures.append(text)


def run(program, *arguments, **options):
    done = subprocess.run([program, *arguments], capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout


def masters(checkpoint):
    manifest = json.load(open(f"{checkpoint}/manifest.json"))
    found = {}
    for t in manifest["tensors"]:
        if t["part"] == "master":
            x = h5py.File(f"{checkpoint}/{t['file']}")["masters/" + t["name"]][()]
            found[t["name"]] = (x.astype("<u4") << 16).view("<f4") if t["dtype"] == "bf16" else x
    return found


def dequantized(w, group):
    """Codes times scale, by docs/model.md."""
    x = w.astype(np.float64).reshape(1 if group == 0 else w.size // group, -1)
    s = np.maximum(np.abs(x).mean(axis=1, keepdims=True), 1e-5).astype(np.float32)
    s = s.astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(x.astype(np.float32) / s), -1, 1)
    return (codes * s).astype(np.float32).reshape(w.shape) + 0.0
