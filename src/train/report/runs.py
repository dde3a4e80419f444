"""What the directory of a run holds, whole or cut off: config.ini, metrics.jsonl, the newest checkpoint's
manifest and command.txt. Figures are NaN where the metrics do not hold them. A directory with plan.txt, the
output of `nanochat_dist plan`, in place of metrics.jsonl tells the memory of a run that was not made."""
import configparser
import json
import math
import os
import re
import sys

NAN = float("nan")
EVERY_STEP = ("step tokens loss grad_norm step_ms data_wait_ms comm_wait_ms comm_bytes kept_fraction restarts "
              "ranks last_step parameters").split()
TERNARY = re.compile(r"\.(attn_(q|k|v|output)|ffn_(gate|up|down)|(hidden|embd)_proj)\.weight$")
BYTES = {"f32": 4, "bf16": 2, "i8": 1, "u8": 1}


class ReportError(Exception):
    """An error with its message and the program's exit code."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def is_number(value):
    """Whether this is a number that tables and pictures can hold: no bool, no NaN, and far from overflow."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e100 < value < 1e100


def is_step(value):
    return is_number(value) and isinstance(value, int) and value > 0


def printable(text):
    """The text on one line, without what XML and UTF-8 cannot hold; names of directories may have it."""
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "\ufffd" for c in text)


def median(values):
    values = sorted(values)
    if not values:
        return NAN
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    return low if low == high else 0.5 * (low + high)  # also of infinities


def compact(step):
    """What is read of a step: a run may have a million of them. "mem" becomes memory by category, beside "rss"."""
    kept = {sys.intern(key): value for key, value in step.items()
            if isinstance(value, (int, float)) or value is None or key == "approximate"}
    memory = step.get("mem") if isinstance(step.get("mem"), dict) else {}
    kept["mem"] = {sys.intern(key): value for key, value in memory.items() if is_number(value)}
    kept["rss"] = max(kept["mem"].pop(key, 0) for key in ("rss", "peak")) or None
    return kept


class Run:
    """One run. Its public methods are what the expressions of claims may call."""

    def __init__(self, given):
        self.path = self._directory(given)
        self.name = os.path.basename(self.path)
        self.role = ""
        self.notes = []
        self.config = self._read_config()
        self.planned = {}
        self.steps = self._read_metrics()
        self.ranks = self.latest("ranks")
        self.parameters = self.latest("parameters")
        self.ternary = self.latest("ternary_parameters")
        if not self.steps:
            self._read_plan()
        self.seed = self.setting("training.seed")
        self.finished = not self.planned and self._ending()
        self.state_bytes, self.matrix_state_bytes = self._read_state()
        self.command = self._read_text("command.txt")

    @staticmethod
    def _directory(given):
        try:
            os.stat(given)
        except OSError as error:
            raise ReportError(3, "%s: %s" % (given, error.strerror))
        if not os.path.isdir(given):
            raise ReportError(3, "%s is not a directory; name the directory of a run" % given)
        files = ("metrics.jsonl", "training.log", "config.ini", "command.txt", "plan.txt")
        if not any(os.path.exists(os.path.join(given, name)) for name in files):
            raise ReportError(3, "%s holds no run: none of metrics.jsonl, training.log and config.ini" % given)
        return os.path.realpath(given)

    def _read_text(self, name):
        path = os.path.join(self.path, name)
        if os.path.exists(path) and not os.path.isfile(path):
            self.notes.append("cannot read %s: not a regular file" % name)
            return None
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.notes.append("cannot read %s: %s" % (name, error.strerror))
            return None

    def _read_config(self):
        text = self._read_text("config.ini")
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(text or "")
        except configparser.Error as error:
            self.notes.append("its configuration cannot be read: %s" % " ".join(str(error).split()))
            return None
        if text is None:
            self.notes.append("no config.ini")
            return None
        return {"%s.%s" % (section, key): value.strip().strip('"')
                for section in parser.sections() for key, value in parser[section].items()}

    def recipe(self):
        """What is alike in runs that differ by their seed alone."""
        return self.role, frozenset(item for item in (self.config or {"": self.name}).items()
                                    if item[0] != "training.seed" and not item[0].startswith("logging."))

    def setting(self, key):
        """A key of the configuration, "section.key": True, False, a number or a text; "" when absent."""
        value = (self.config or {}).get(key, "")
        if value in ("true", "false"):
            return value == "true"
        try:
            return float(value)
        except ValueError:
            return value

    def _read_metrics(self):
        text, steps, bad, cut = self._read_text("metrics.jsonl"), [], 0, False
        if text is None:
            if not os.path.exists(os.path.join(self.path, "plan.txt")):
                self.notes.append("no metrics.jsonl")
            return steps
        for line in re.finditer(r"\S.*", text):
            try:
                step = json.loads(line.group())
                cut = not (isinstance(step, dict) and is_step(step.get("step")))
            except (ValueError, RecursionError):
                cut = True
            bad += cut
            if cut:
                continue
            # A step that was done again after a restart replaces what came of it the first time.
            while steps and steps[-1]["step"] >= step["step"]:
                steps.pop()
            steps.append(compact(step))
        if cut:
            self.notes.append("the last line of metrics.jsonl is cut off; it is left out")
        if bad > cut:
            self.notes.append("%d lines of metrics.jsonl are not JSON objects with a step; they are left out"
                              % (bad - cut))
        self._note_steps(steps)
        return steps

    def _read_plan(self):
        """Parameters and rank 0's memory by category as `plan` prints them."""
        text = self._read_text("plan.txt")
        head = re.match(r"([\d.]+)M parameters, ([\d.]+)M of them ternary;.* on (\d+) ranks?", text or "")
        if not head:
            return
        self.parameters, self.ternary = float(head.group(1)) * 1e6, float(head.group(2)) * 1e6
        self.ranks = int(head.group(3))
        rows = re.search(r"^memory .*\n((?:  \w+ .*\n)+?)  sum ", text, re.M)
        for name, size in re.findall(r"^  (\w+) +([\d.]+)", rows.group(1) if rows else "", re.M):
            self.planned[name] = float(size) * 2**20

    def _note_steps(self, steps):
        if not steps:
            self.notes.append("metrics.jsonl holds no step")
        self._note_missing_steps([step["step"] for step in steps])
        for key in EVERY_STEP if steps else ():
            # A skipped step has null for what was not finite.
            missing = sum(not is_number(step.get(key)) and step.get(key, "") is not None for step in steps)
            if missing == len(steps):
                self.notes.append("metrics.jsonl has no `%s`" % key)
            elif missing:
                self.notes.append("metrics.jsonl lacks `%s` in %d of %d steps" % (key, missing, len(steps)))
        skipped = next((step["skipped"] for step in reversed(steps) if is_step(step.get("skipped"))), 0)
        if skipped:
            self.notes.append("%d step%s skipped for NaN, infinity or a loss spike"
                              % (skipped, " was" if skipped == 1 else "s were"))
        before = 0
        for step in steps:
            restarts = step.get("restarts")
            if is_number(restarts) and restarts > before:
                self.notes.append("resumed before step %d (restart %d)" % (step["step"], restarts))
            before = restarts if is_number(restarts) else before

    def _note_missing_steps(self, present):
        """Steps before the last that have no line: of a full disk, or of a run that this one went on from."""
        gaps = [(before + 1, step - 1) for before, step in zip([0] + present, present) if step - before > 1]
        if gaps:
            named = ["%d" % first if first == last else "%d to %d" % (first, last) for first, last in gaps[:5]]
            self.notes.append("metrics.jsonl lacks the lines of steps: %s%s"
                              % (", ".join(named), " and %d more" % (len(gaps) - 5) if len(gaps) > 5 else ""))

    def _ending(self):
        last, end = self.last("step"), self.latest("last_step")
        end = self.setting("training.total_steps") if math.isnan(end) else end
        if is_number(end) and 0 < end <= last:
            return True
        if self.steps and self.steps[-1].get("stop_requested"):
            self.notes.append("stopped on a signal after step %d" % last)
        self.notes.append("did not finish: ended after step %d%s"
                          % (0 if math.isnan(last) else last, " of %d" % end if is_number(end) and end else ""))
        return False

    def _manifest(self):
        """The text of the newest checkpoint's manifest, or None where there is no checkpoint."""
        places = [self.setting("logging.checkpoint_dir"), os.path.join(self.path, "checkpoints"), self.path]
        for place in filter(None, map(str, places)):
            names = os.listdir(place) if os.path.isdir(place) else []
            steps = sorted((n for n in names if re.fullmatch(r"step_\d{8,}", n)), key=lambda n: int(n[5:]))
            for name in ["latest"] + steps[::-1]:
                path = os.path.join(place, name, "manifest.json")
                if os.path.exists(path):
                    with open(path, encoding="utf-8") as file:
                        return file.read()
        return None

    def _read_state(self):
        """Bytes of optimizer state as it lies in the newest checkpoint, and of the ternary matrices'."""
        try:
            text = self._manifest()
            if text is None:
                return NAN, NAN
            sizes = [(t["name"], t["shape"][0] * t["shape"][1] * BYTES[t["dtype"]])
                     for t in json.loads(text)["tensors"] if t["part"] != "master"]
            return sum(size for _, size in sizes), sum(size for name, size in sizes if TERNARY.search(name))
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            self.notes.append("its newest checkpoint cannot be read: %s" % error)
            return NAN, NAN

    def finite(self, key):
        return [step[key] for step in self.steps if is_number(step.get(key)) and math.isfinite(step[key])]

    def latest(self, key):
        return (self.finite(key) or [NAN])[-1]

    last = latest

    def median(self, key):
        return median(self.finite(key))

    def mean(self, key):
        values = self.finite(key)
        return math.fsum(values) / len(values) if values else NAN

    def largest(self, key):
        return max(self.finite(key), default=NAN)

    def smallest(self, key):
        return min(self.finite(key), default=NAN)

    def share(self, part, whole):
        """Sum of one field over the sum of another, over the steps that have both."""
        both = [(s[part], s[whole]) for s in self.steps if is_number(s.get(part)) and is_number(s.get(whole))]
        total = sum(pair[1] for pair in both)
        return sum(pair[0] for pair in both) / total if total > 0 else NAN

    def memory(self, category):
        """Bytes of a memory category on rank 0, the largest over the run."""
        if self.planned:
            return self.planned.get(category, NAN)
        return max((s["mem"][category] for s in self.steps if category in s["mem"]), default=NAN)

    def printed(self, name, row, column):
        """A number of the table in a text file beside the run: of the row that begins with `row`, its column."""
        for line in (self._read_text(name) or "").splitlines():
            cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
            number = re.match(r"\d+\.?\d*", cells[column]) if len(cells) > column and cells[0] == row else None
            if number:
                return float(number.group())
        return NAN

    def heading(self, name):
        """The first line of a text file beside the run."""
        return (self._read_text(name) or "").split("\n")[0]

    def large(self):
        """Whether it tells memory alone: planned, or a few steps of a model that wants many."""
        return bool(self.planned) or (self.parameters >= 1e8 and not self.last("step") >= 100)

    def shape(self):
        return self.setting("model.hidden_dim"), self.setting("model.num_layers")

    def memory_names(self):
        return list(self.planned) or list(dict.fromkeys(name for step in self.steps for name in step["mem"]))

    def peak(self):
        """Bytes of the resident set at its peak; of a plan the sum of its categories."""
        return sum(self.planned.values()) if self.planned else self.largest("rss")

    def memory_total(self):
        """Of all categories but the program and the loader, which no choice of systems changes."""
        names = set(self.memory_names()) - {"program", "loader"}
        return sum(self.memory(name) for name in names) if names else NAN

    def parameters_of_rank(self):
        return self.parameters / (self.ranks if self.ranks > 0 else 1)

    def tokens_per_second(self):
        """Median over the steps; tokens_per_sec in the metrics is smoothed."""
        rates, before = [], {"step": 0, "tokens": 0}
        for s in self.steps:
            if all(is_number(s.get(key)) for key in ("tokens", "step_ms")) and s["step_ms"] > 0 \
                    and s["step"] - before["step"] == 1 and is_number(before.get("tokens")):
                rates.append((s["tokens"] - before["tokens"]) / (s["step_ms"] * 1e-3))
            before = s
        return median(rates)

    def curve(self):
        return [(s["tokens"], s["val_loss"]) for s in self.steps
                if is_number(s.get("tokens")) and is_number(s.get("val_loss"))]

    def tokens_to_loss(self, target):
        """Tokens after which the held-out loss first is `target` or less, linear between evaluations; the
        first evaluation's where it is there already, infinite when never, NaN without a curve."""
        before = None
        for tokens, loss in self.curve():
            if loss <= target:
                if not before:
                    return tokens
                return before[0] + (before[1] - target) / (before[1] - loss) * (tokens - before[0])
            before = tokens, loss
        return math.inf if before else NAN

    def loss_at(self, at):
        """Held-out loss after so many tokens, linear between evaluations; NaN outside them."""
        before = None
        for tokens, loss in self.curve():
            if tokens == at:
                return loss
            if tokens > at:
                return before[1] + (loss - before[1]) * (at - before[0]) / (tokens - before[0]) if before else NAN
            before = tokens, loss
        return NAN

    def tokens_saved(self, base, target):
        """1 - tokens / tokens of `base` to the held-out loss `target`; minus infinity when never reached, NaN
        when `base` does not reach it or has at its first evaluation."""
        curve, theirs = base.curve(), base.tokens_to_loss(target)
        if not curve or curve[0][1] <= target or not math.isfinite(theirs):
            return NAN
        return 1 - self.tokens_to_loss(target) / theirs

    def within(self, key, low, high):
        """Part of the steps after warm-up with a value from `low` to `high`."""
        warmup = self.setting("training.warmup_steps") or 0
        values = [s[key] for s in self.steps if s["step"] > warmup and is_number(s.get(key))]
        return sum(low <= value <= high for value in values) / len(values) if values else NAN

    def state_of_weights(self, weights):
        """Bytes of the ternary matrices' optimizer state in memory, projectors included, for each of so many
        matrix weights."""
        return self.last("matrix_state_bytes") / weights if weights > 0 else NAN

    def state(self):
        if math.isfinite(self.state_bytes) and self.ternary > 0:
            return ("state alone, in the checkpoint, %.2f MiB of all ranks: %.3f B a matrix weight"
                    % (self.state_bytes / 2**20, self.matrix_state_bytes / self.ternary))
        return "no checkpoint tells the state alone"


def read_runs(paths):
    runs = [Run(path) for path in paths]
    for i, run in enumerate(runs):
        if any(run.path == other.path for other in runs[:i]):
            raise ReportError(2, "%s is named twice" % run.path)
    parts = 2
    while len({run.name for run in runs}) < len(runs):  # different paths differ in some component from the end
        for run in runs:
            run.name = "/".join(run.path.split("/")[-parts:])
        parts += 1
    for run in runs:
        run.name = printable(run.name)
    return runs
