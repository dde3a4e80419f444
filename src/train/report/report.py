#!/usr/bin/env python3
"""`nanochat_dist report`: REPORT.md of runs, with pictures and their data beside it. Needs Python 3.6 and no
other package. src/cli/cmd_report.c checks the options and starts it:

    report.py PROGRAM_VERSION OUT CLAIMS|"" RUN..."""
import math
import os
import platform
import re
import shlex
import sys
import textwrap
import time

import chart
from claims import Claims, peer
from runs import NAN, ReportError, is_number, read_runs

MIB = 2**20
HEADING = "# Report of "


def number(value, decimals):
    """A number, or a dash where it is not known."""
    return "%.*f" % (decimals, value) if is_number(value) and math.isfinite(value) else "–"


def plain(text):
    """Text in a cell or a line: no bar, no line end."""
    return text.replace("|", "/").replace("\n", " ")


def prose(text):
    return textwrap.fill(text, 110, break_on_hyphens=False, break_long_words=False) + "\n"


def table(head, rows):
    """A Markdown table; columns whose name begins with `>` are aligned to the right."""
    lines = ["| " + " | ".join(name.lstrip(">") for name in head) + " |",
             "|" + "|".join("--:" if name[0] == ">" else "---" for name in head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def code(run):
    """The run's name as code, which ends at as many backticks as it begins with."""
    longest = max(map(len, re.findall("`+", run.name)), default=0)
    return "`%s`" % plain(run.name) if not longest else "%s %s %s" % (
        "`" * (longest + 1), plain(run.name), "`" * (longest + 1))


def claims_section(claims, runs):
    verdicts = claims.judge(runs)
    counts = [sum(v.verdict == name for v in verdicts) for name in ("pass", "**fail**", "not measurable")]
    rows = [(v.topic, v.role, v.claimed, v.measured, v.verdict, plain(v.details)) for v in verdicts]
    return ("## Claims\n\n%d pass, %d fail, %d not measurable.\n\n" % tuple(counts) +
            table(("claim", "of", "claimed", "measured", "verdict", "from, or why not"), rows) +
            "\n" + prose(claims.rules))


def tokens_section(base_of, runs):
    """Tokens saved at the losses that the baseline has after parts of its tokens."""
    parts, rows = (0.25, 0.5, 0.75, 1.0), []
    for run in runs:
        base, cells = base_of(run), []
        if base is None or base is run or run.role and run.role == base.role:
            continue
        for part in parts:
            saved = run.tokens_saved(base, base.loss_at(part * base.last("tokens")))
            sign = "−" if saved > 0 else "+" if saved < 0 else ""
            cells.append("never reached" if math.isinf(saved) else sign + number(abs(100 * saved), 1) + " %")
        rows.append([code(run)] + cells)
    return ("## Tokens to equal held-out loss\n\n" +
            prose("Fewer (−) or more (+) tokens than the baseline of the same seed, to the loss it has after that "
                  "part of its tokens.") + "\n" +
            table(["run"] + [">%d %%" % (100 * part) for part in parts], rows))


def loss_section(runs):
    head = ("run", "configuration", ">seed", ">steps", ">tokens", ">last loss", ">best val_loss", ">last val_loss",
            ">last val_bpb", ">kept tokens", "ended")
    rows = [(code(r), r.role or "other", number(r.seed, 0), number(r.last("step"), 0),
             number(r.last("tokens") * 1e-6, 3) + " M", number(r.last("loss"), 4), number(r.smallest("val_loss"), 4),
             number(r.last("val_loss"), 4), number(r.last("val_bpb"), 4),
             number(100 * r.mean("kept_fraction"), 1) + " %", "finished" if r.finished else "**not finished**")
            for r in runs]
    return ("## Loss\n\n" + table(head, rows) + "\n" +
            prose("Losses in nats a token. A `val_bpb` of 0 is unknown (synthetic data). Kept tokens: the mean part "
                  "of the tokens in the backward pass."))


def speed_section(runs):
    head = ("run", ">ranks", ">tokens/s, median", ">step, median", ">data wait", ">collectives", ">hidden",
            ">sent a step")
    rows = [(code(r), number(r.ranks, 0), number(r.tokens_per_second(), 0), number(r.median("step_ms"), 1) + " ms",
             number(100 * r.share("data_wait_ms", "step_ms"), 3) + " %",
             number(100 * r.share("comm_wait_ms", "step_ms"), 2) + " %",
             number(100 - min(100 * r.share("comm_wait_ms", "comm_busy_ms"), 100), 0) + " %",
             number(r.median("comm_bytes"), 0) + " B") for r in runs]
    approximate = ["\nApproximate between the ranks of %s: %s.\n" % (code(r), plain(r.steps[-1]["approximate"]))
                   for r in runs if r.steps and isinstance(r.steps[-1].get("approximate"), str)]
    return ("## Speed\n\n" + table(head, rows) + "\n" +
            prose("Data wait and collectives are parts of the time of all steps; evaluations and saving are in no "
                  "step. Hidden: the part of the communication that overlaps computation; sent: median, all ranks "
                  "together.") + "".join(approximate))


def seeds(runs):
    """(name, runs) of the runs that differ by their seed alone; those of one seed are told apart."""
    groups = {}
    for run in runs:
        key = (run.recipe(), 0)
        while any(run.seed == other.seed for other in groups.get(key, [])):
            key = (key[0], key[1] + 1)
        groups.setdefault(key, []).append(run)
    return [(mean_name(group), group) for group in groups.values()]


def mean_name(group):
    return "%s, mean of %d" % (group[0].role or group[0].name, len(group)) if len(group) > 1 else group[0].name


def memory_categories(runs):
    return list(dict.fromkeys(name for run in runs for name in run.memory_names()))


def memory_section(runs):
    runs = [group[0] for _, group in seeds(runs)]
    categories = memory_categories(runs)
    text = "## Memory\n"
    if categories:
        rows = []
        for run in runs:
            sizes = [run.memory(name) for name in categories] + [run.peak()]
            bytes_each = [number(size / (run.parameters or NAN), 2) for size in sizes]
            rows.append([code(run), number(run.parameters * 1e-6, 3) + " M"] +
                        ["%s (%s)" % (number(size / MIB, 2), each) for size, each in zip(sizes, bytes_each)])
        text += ("\n" + prose("MiB of rank 0, the largest of each category over the run; in brackets bytes for "
                              "each parameter of the model. Where a run has been planned, not made, the last "
                              "column is the sum. Of runs that differ by their seed alone the first stands "
                              "for all.") + "\n" +
                 table(["run", ">parameters"] + [">" + name for name in categories + ["peak RSS"]], rows))
    rows = [(code(r), number(r.state_bytes / MIB, 3), number(r.state_bytes / (r.parameters or NAN), 4),
             number(r.matrix_state_bytes / (r.ternary or NAN), 4),
             number(r.last("matrix_state_bytes") / (r.last("matrix_weights") or NAN), 4))
            for r in runs if not r.planned]
    return text + ("\n" + prose("Optimizer state alone, as it lies in the newest checkpoint, of all ranks (the "
                                "category `optimizer` also holds the scratch of one update); and of the matrices "
                                "that rank 0 owns, as the last step's metrics count its memory:") + "\n" +
                   table(("run", ">MiB", ">B a parameter", ">of the ternary matrices, B a weight",
                          ">in rank 0's metrics"), rows))


def mean_curves(groups, curves):
    """A curve of each of seeds(); runs with fewer points, as those cut short, have one of their own."""
    means = []
    for _, group in groups:
        for count in dict.fromkeys(len(curves[run.path]) for run in group):
            alike = [run for run in group if len(curves[run.path]) == count]
            places = zip(*(curves[run.path] for run in alike))
            means.append((mean_name(alike), [tuple(sum(axis) / len(alike) for axis in zip(*place))
                                             for place in places]))
    return means


def pictures_section(runs, files):
    """Draws the pictures and writes the points they are drawn from."""
    losses, times, training = {}, {}, {}
    for i, run in enumerate(run for run in runs if not run.planned):
        seconds, smooth, weight, train, val = 0.0, 0.0, 0.0, [], []
        for step in run.steps:
            values = {key: step[key] if is_number(step.get(key)) else NAN
                      for key in ("tokens", "loss", "step_ms", "val_loss", "val_bpb", "grad_norm")}
            millions = values["tokens"] * 1e-6
            seconds += values["step_ms"] * 1e-3 if math.isfinite(values["step_ms"]) else 0
            if math.isfinite(values["loss"]):
                smooth, weight = 0.95 * smooth + 0.05 * values["loss"], 0.95 * weight + 0.05
                train.append((millions, values["loss"], smooth / weight, values["grad_norm"]))
            if math.isfinite(values["val_loss"]):
                val.append((millions, seconds, values["val_loss"], values["val_bpb"]))
        stem = "%02d_%s" % (i + 1, re.sub(r"[^A-Za-z0-9-]", "_", run.name)[:200])
        for suffix, head, rows in (("train", "million tokens, loss, smoothed loss, gradient norm", train),
                                   ("val", "million tokens, seconds in steps, val_loss, val_bpb", val)):
            files["%s_%s.dat" % (stem, suffix)] = "# %s\n" % head + "".join(
                " ".join("%.9g" % value for value in row) + "\n" for row in rows)
        losses[run.path] = [(row[0], row[2]) for row in val if row[0] == row[0]]
        times[run.path] = [(row[1], row[2]) for row in val]
        training[run.path] = [(row[0], row[2]) for row in train if row[0] == row[0]]
    small = seeds(run for run in runs if not run.large())
    trained = [(name, group) for name, group in small if not group[0].planned]
    losses, times, training = (mean_curves(trained, curves) for curves in (losses, times, training))
    firsts = [group[0] for _, group in small]
    sizes = {name: [0 if math.isnan(r.memory(name)) else r.memory(name) / MIB for r in firsts]
             for name in memory_categories(firsts)}
    names, held_out = [name for name, _ in small], "held-out loss (nats a token)"
    state = [(group[0].role or group[0].name, group[0].memory("optimizer") / MIB,
              [run.last("val_loss") for run in group if math.isfinite(run.last("val_loss"))])
             for _, group in trained]
    pictures = (
        ("val_loss", "Held-out loss over tokens", chart.lines, "million tokens", held_out, losses, True),
        ("val_loss_time", "Held-out loss over time spent in steps", chart.lines, "seconds in steps", held_out, times,
         True),
        ("train_loss", "Training loss over tokens, smoothed (0.95 old, 0.05 new)", chart.lines, "million tokens",
         "training loss (nats a token)", training, False),
        ("memory", "Memory by category, the largest over the run, rank 0", chart.bars, "MiB, rank 0", names, sizes),
        ("optimizer", "Optimizer memory, the largest over the run, rank 0", chart.bars, "MiB, rank 0", names,
         {name: values for name, values in sizes.items() if name == "optimizer"}),
        ("loss_memory", "Held-out loss at the end over optimizer memory: the mean of the seeds, and their range",
         chart.points, "MiB of optimizer memory, rank 0", held_out, state))
    text = "## Pictures\n\n"
    for name, title, draw, *what in pictures:
        files[name + ".svg"] = draw(*what)
        text += "%s:\n\n![%s](%s.svg)\n\n" % (title, title, name)
    return text + "The points of the curves are in the `.dat` files.\n"


def runs_section(runs, first):
    text = "## The runs\n"
    for _, (run, *others) in seeds(runs):
        text += "\n**%s**" % code(run)
        if run.config is not None and run is not first:
            other = [key.split(".", 1)[1] + " = " + value for key, value in run.config.items()
                     if first.config.get(key) != value and not key.startswith("logging.")]
            text += ". Other than in %s: %s" % (code(first), plain("; ".join(other)) or "nothing")
        text += ". The same with other seeds: %s" % ", ".join(map(code, others)) if others else ""
        notes = ["- %s\n" % (note if each is run else "%s: %s" % (code(each), note))
                 for each in (run, *others) for note in each.notes]
        text += ".\n\n" + "".join(notes) + ("\n" if notes else "") + "```sh\n"
        for each in (run, *others):
            text += (each.command.rstrip("\n") if each.command is not None else
                     "# as far as its directory tells\n%snanochat_dist --config %s"
                     % ("mpirun -np %d " % each.ranks if each.ranks > 1 else "",
                        shlex.quote(each.name + "/config.ini"))) + "\n"
        text += "```\n"
    return text


def proc_value(path, key):
    """The first line of a file of /proc that begins with `key`, after the colon."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith(key)), "unknown")
    except OSError:
        return "unknown"


def machine_section(version):
    memory = proc_value("/proc/meminfo", "MemTotal").split()[0]
    rows = (("processor", proc_value("/proc/cpuinfo", "model name")), ("cores", str(os.cpu_count())),
            ("memory", "%.1f GiB" % (int(memory) / MIB) if memory.isdigit() else memory),
            ("system", "%s %s" % (platform.system(), platform.release())), ("program", "nanochat_dist " + version),
            ("written", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())))
    return ("## The machine\n\nWhere this report was written, which is where the runs were made if nobody moved "
            "them.\n\n" + table((" ", " "), rows))


def check_own(directory, names):
    """Only a report is replaced by one, and its pictures and data only where it is beside them."""
    report = os.path.join(directory, "REPORT.md")
    begin = ""
    if os.path.exists(report):
        with open(report, encoding="utf-8", errors="surrogateescape") as file:
            begin = file.read(len(HEADING))
    for path in (os.path.join(directory, name) for name in names):
        if begin != HEADING and os.path.lexists(path) and (os.path.islink(path) or os.path.getsize(path)):
            raise ReportError(2, "%s: this file is not a report%s and is not replaced by one; move it elsewhere, or "
                                 "give another --out" % (path, "" if path == report else "'s"))


def write_files(directory, files):
    """Writes all under other names first. A report is renamed first: what is beside it may be replaced."""
    check_own(directory, files)
    made = []
    path = directory
    try:
        for name, text in files.items():
            path = os.path.join(directory, name)
            temporary = "%s.%d.tmp" % (path, os.getpid())
            with open(temporary, "x", encoding="utf-8", errors="surrogateescape") as file:
                made.append((temporary, path))
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        while made:
            path = made[0][1]
            os.replace(*made[0])
            made.pop(0)
    except OSError as error:
        for temporary, _ in made:
            os.unlink(temporary)
        raise ReportError(1, "cannot write %s: %s" % (path, error.strerror))


def write_report(version, directory, claims_path, paths):
    claims, runs = Claims(claims_path) if claims_path else None, read_runs(paths)
    if claims:
        claims.assign_roles(runs)
    if os.path.exists(directory) and not os.path.isdir(directory):
        raise ReportError(2, "%s exists and is not a directory" % directory)
    path = os.path.join(directory, "REPORT.md")
    os.makedirs(directory, exist_ok=True)
    files = {"REPORT.md": ""}
    suite = claims is not None and claims.apply_to(runs)
    readable = [run for run in runs if run.config is not None]
    first = next((run for run in readable if suite and run.role == claims.baseline), (readable or runs)[0])
    sections = [claims_section(claims, runs)] if suite else []
    if len(runs) > 1:
        sections.append(tokens_section((lambda run: peer(runs, run, claims.baseline)) if suite
                                       else (lambda run: first), [run for run in runs if not run.large()]))
    made = [run for run in runs if not run.planned]
    sections += [loss_section(made), speed_section(made), memory_section(runs), pictures_section(runs, files),
                 runs_section(runs, first), machine_section(version)]
    files["REPORT.md"] = (HEADING + "%d run%s\n\n" % (len(runs), "" if len(runs) == 1 else "s")
                          + "\n".join(sections))
    write_files(directory, files)
    said = "%s: %d run%s\n" % (path, len(runs), "" if len(runs) == 1 else "s")
    sys.stdout.buffer.write(os.fsencode(said))  # a path is any bytes
    sys.stdout.buffer.flush()


def main():
    version, directory, claims_path, *paths = sys.argv[1:]
    try:
        write_report(version, directory, claims_path, paths)
    except ReportError as error:
        print("nanochat_dist: error: %s" % error, file=sys.stderr)
        return error.code
    except OSError as error:
        what = error.filename or "standard output"
        print("nanochat_dist: error: cannot write %s: %s" % (what, error.strerror), file=sys.stderr)
        sys.stdout = None  # its flush at the end would fail again
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
