/* REPORT.md: tables, claims, pictures. */
#include "core/base/build_info.h"
#include "core/base/durable_file.h"
#include "train/approximations.h"
#include "train/report/report_claims.h"
#include "train/report/report_measures.h"
#include "train/report/report_plots.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define FIELD ND_REPORT_FIELD

static const double mib = 1024.0 * 1024.0;

/* A number, or a dash where it is not known. Eight results live at a time. */
static const char *number(int decimals, double value)
{
    static _Thread_local char texts[8][48];
    static _Thread_local unsigned next;
    char *text = texts[next++ % 8];
    if (!isfinite(value))
        return "–";
    snprintf(text, sizeof texts[0], "%.*f", decimals, value);
    return text;
}

/* Text in a cell or a line: no bar, no line end. */
static void write_plain(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(*text == '|' ? '/' : *text == '\n' ? ' ' : *text, out);
}

static void start_row(FILE *out, const nd_report_run *run)
{
    fputs("| `", out);
    write_plain(out, run->name);
    fputs("` |", out);
}

static void write_losses(FILE *out, const nd_report *report)
{
    fputs(
        "\n## Loss\n\n"
        "| run | configuration | seed | steps | tokens | last loss | best val_loss | last val_loss "
        "| last val_bpb | kept tokens | ended |\n"
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|\n",
        out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        const char *role = nd_report_role_name(run->role);
        start_row(out, run);
        fprintf(out, " %s | %s | %s | %s M | %s | %s | %s | %s | %s %% | %s |\n",
                *role ? role : "other",
                number(0, run->config ? (double)run->config->training.seed : NAN),
                number(0, nd_report_last(run, FIELD(step))),
                number(3, nd_report_last(run, FIELD(tokens)) * 1e-6),
                number(4, nd_report_last(run, FIELD(loss))),
                number(4, nd_report_smallest(run, FIELD(val_loss))),
                number(4, nd_report_last(run, FIELD(val_loss))),
                number(4, nd_report_last(run, FIELD(val_bpb))),
                number(1, 100.0 * nd_report_mean(run, FIELD(kept_fraction))),
                run->finished ? "finished" : "**not finished**");
    }
    fputs(
        "\nLosses in nats a token. A `val_bpb` of 0 is unknown (synthetic data). Kept tokens: the "
        "mean part of\nthe tokens in the backward pass.\n",
        out);
}

/* The part of the wire's work beside which computations went on. */
static double hidden(const nd_report_run *run)
{
    const double shown = nd_report_share(run, FIELD(comm_wait_ms), FIELD(comm_busy_ms));
    return shown > 1.0 ? 0.0 : 1.0 - shown;
}

static void write_speed(FILE *out, const nd_report *report)
{
    fputs(
        "\n## Speed\n\n"
        "| run | ranks | tokens/s, median | step, median | data wait | collectives | hidden | sent "
        "a step |\n|---|--:|--:|--:|--:|--:|--:|--:|\n",
        out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        start_row(out, run);
        fprintf(out, " %s | %s | %s ms | %s %% | %s %% | %s %% | %s B |\n",
                number(0, run->ranks > 0 ? (double)run->ranks : NAN),
                number(0, nd_report_tokens_per_second(run)),
                number(1, nd_report_median(run, FIELD(step_ms))),
                number(3, 100.0 * nd_report_share(run, FIELD(data_wait_ms), FIELD(step_ms))),
                number(2, 100.0 * nd_report_share(run, FIELD(comm_wait_ms), FIELD(step_ms))),
                number(0, 100.0 * hidden(run)),
                number(0, nd_report_median(run, FIELD(comm_bytes))));
    }
    fputs("\nData wait and collectives are parts of the time of all steps; evaluations and saving "
          "are in no step.\nHidden: the part of the wire's work that computations went on beside; "
          "sent: median, all ranks together.\n",
          out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        char approximate[128] = "";
        if (run->config)
            nd_wire_approximations(run->config, (int)run->ranks, approximate, sizeof approximate);
        if (approximate[0])
            fprintf(out, "\nApproximate between the ranks of `%s`: %s.\n", run->name, approximate);
    }
}

static void write_memory(FILE *out, const nd_report *report)
{
    if (report->category_count == 0)
        return;
    fputs("\n## Memory\n\nMiB of rank 0, the largest of each category over the run; in brackets "
          "bytes "
          "for each parameter of the model.\n\n| run | parameters |",
          out);
    for (int c = 0; c < report->category_count; c++)
        fprintf(out, " %s |", report->categories[c]);
    fputs(" peak RSS |\n|---|--:|", out);
    for (int c = 0; c <= report->category_count; c++)
        fputs("--:|", out);
    fputc('\n', out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        const double parameters = run->parameters > 0 ? (double)run->parameters : NAN;
        start_row(out, run);
        fprintf(out, " %s M |", number(3, parameters * 1e-6));
        for (int c = 0; c <= report->category_count; c++) {
            const double bytes =
                c < report->category_count ? run->memory[c] : nd_report_largest(run, FIELD(rss));
            fprintf(out, " %s (%s) |", number(2, bytes / mib), number(2, bytes / parameters));
        }
        fputc('\n', out);
    }
}

static void write_state(FILE *out, const nd_report *report)
{
    fputs(
        "\nOptimizer state alone, as it lies in the newest checkpoint, of all ranks (the category "
        "`optimizer` also\nholds the scratch of one update); and of the matrices that rank 0 owns, "
        "as "
        "the last step's metrics count its\nmemory:\n\n"
        "| run | MiB | B a parameter | of the ternary matrices, B a weight | in rank 0's metrics "
        "|\n"
        "|---|--:|--:|--:|--:|\n",
        out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        start_row(out, run);
        fprintf(out, " %s | %s | %s | %s |\n", number(3, run->state_bytes / mib),
                number(4, run->state_bytes / (double)run->parameters),
                number(4, run->matrix_state_bytes / (double)run->matrix_parameters),
                number(4, nd_report_last(run, FIELD(matrix_state_bytes)) /
                              nd_report_last(run, FIELD(matrix_weights))));
    }
}

static void write_claims(FILE *out, const nd_report *report)
{
    nd_report_claim claims[ND_REPORT_CLAIMS_MAX];
    const int count = nd_report_claims(report, claims);
    int verdicts[3] = {0};
    for (int i = 0; i < count; i++)
        verdicts[claims[i].verdict]++;
    fprintf(out,
            "\n## Claims\n\n%d pass, %d fail, %d not measurable.\n\n"
            "| claim | of | claimed | measured | verdict | from, or why not |\n"
            "|---|---|---|---|---|---|\n",
            verdicts[ND_VERDICT_PASS], verdicts[ND_VERDICT_FAIL],
            verdicts[ND_VERDICT_NOT_MEASURABLE]);
    for (int i = 0; i < count; i++) {
        fprintf(out, "| %s | %s | %s | %s | %s | ", claims[i].topic,
                nd_report_role_name(claims[i].role), claims[i].claimed, claims[i].measured,
                nd_verdict_name(claims[i].verdict));
        write_plain(out, claims[i].details);
        fputs(" |\n", out);
    }
    fputc('\n', out);
    nd_report_write_rules(out);
}

/* Tokens saved at the losses that the baseline has after parts of its tokens. */
static void write_tokens_to_loss(FILE *out, const nd_report *report)
{
    static const double parts[] = {0.25, 0.5, 0.75, 1.0};
    enum { PARTS = sizeof parts / sizeof parts[0] };
    fputs(
        "\n## Tokens to equal held-out loss\n\nFewer (−) or more (+) tokens than the baseline of "
        "the same seed, to the loss it has after that part of its\ntokens.\n\n| run | 25 % | 50 % "
        "| 75 % | 100 % |\n|---|--:|--:|--:|--:|\n",
        out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        const nd_report_run *base = nd_report_peer(report, run, ND_REPORT_BASELINE);
        if (run->role == ND_REPORT_BASELINE || !base)
            continue;
        start_row(out, run);
        for (int p = 0; p < PARTS; p++) {
            const double target =
                nd_report_loss_at(base, parts[p] * nd_report_last(base, FIELD(tokens)));
            const double saved = nd_report_tokens_saved(run, base, target);
            if (isinf(saved))
                fputs(" never reached |", out);
            else
                fprintf(out, " %s%s %% |",
                        saved > 0.0   ? "−"
                        : saved < 0.0 ? "+"
                                      : "",
                        number(1, fabs(100.0 * saved)));
        }
        fputc('\n', out);
    }
}

/* Lines of the configuration that differ from the first run's, without [logging]. */
static void write_differences(FILE *out, const nd_report_run *run, const nd_report_run *first)
{
    char *mine = NULL, *theirs = NULL, section[64] = "", *at_mine = NULL, *at_theirs = NULL;
    size_t size;
    const char *separator = " ";
    FILE *text = open_memstream(&mine, &size);
    if (text) {
        nd_config_write(run->config, text);
        fclose(text);
    }
    text = open_memstream(&theirs, &size);
    if (text) {
        nd_config_write(first->config, text);
        fclose(text);
    }
    /* Both have every key, in the same order. */
    char *line = mine ? strtok_r(mine, "\n", &at_mine) : NULL;
    const char *other = theirs ? strtok_r(theirs, "\n", &at_theirs) : NULL;
    while (line && other) {
        if (line[0] == '[')
            snprintf(section, sizeof section, "%s", line);
        else if (strcmp(line, other) != 0 && strcmp(section, "[logging]") != 0) {
            fputs(separator, out);
            write_plain(out, line);
            separator = "; ";
        }
        line = strtok_r(NULL, "\n", &at_mine);
        other = strtok_r(NULL, "\n", &at_theirs);
    }
    if (separator[0] == ' ')
        fputs(" nothing", out);
    free(mine);
    free(theirs);
}

static void write_runs(FILE *out, const nd_report *report)
{
    const nd_report_run *first = NULL;
    for (int i = 0; i < report->count && !(first && first->role == ND_REPORT_BASELINE); i++)
        if (report->runs[i].config && (!first || report->runs[i].role == ND_REPORT_BASELINE))
            first = &report->runs[i];
    fputs("\n## The runs\n", out);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        fputs("\n**`", out);
        write_plain(out, run->name);
        fputs("`**", out);
        if (run->config && run != first) {
            fputs(". Other than in `", out);
            write_plain(out, first->name);
            fputs("`:", out);
            write_differences(out, run, first);
        }
        fputs(".\n\n", out);
        char *notes = run->notes ? strdup(run->notes) : NULL, *at = NULL;
        for (char *line = notes ? strtok_r(notes, "\n", &at) : NULL; line;
             line = strtok_r(NULL, "\n", &at))
            fprintf(out, "- %s\n", line);
        free(notes);
        fprintf(out, "%s```sh\n", run->notes ? "\n" : "");
        if (run->command)
            fprintf(out, "%s%s", run->command,
                    run->command[0] && run->command[strlen(run->command) - 1] == '\n' ? "" : "\n");
        else
            fprintf(out,
                    "# as far as its directory tells\n%snanochat_dist --config %s/config.ini\n",
                    run->ranks > 1 ? "mpirun " : "", run->name);
        fputs("```\n", out);
    }
}

/* The first line of a file of /proc that begins with `key`, after the colon. */
static void proc_value(const char *path, const char *key, char *value, size_t size)
{
    char line[512];
    FILE *file = fopen(path, "r");
    snprintf(value, size, "unknown");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && strchr(line, ':')) {
            const char *text = strchr(line, ':') + 1;
            text += strspn(text, " \t");
            snprintf(value, size, "%.*s", (int)strcspn(text, "\n"), text);
            break;
        }
    if (file)
        fclose(file);
}

static void write_machine(FILE *out)
{
    char cpu[256], memory[64], day[32];
    struct utsname system;
    const time_t now = time(NULL);
    struct tm when;
    proc_value("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    proc_value("/proc/meminfo", "MemTotal", memory, sizeof memory);
    if (uname(&system) != 0)
        memset(&system, 0, sizeof system);
    gmtime_r(&now, &when);
    strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &when);
    fprintf(
        out,
        "\n## The machine\n\nWhere this report was written, which is where the runs were made "
        "if nobody moved them.\n\n| | |\n|---|---|\n| processor | %s |\n| cores | %ld |\n| memory "
        "| %.1f GiB |\n| system | %s %s |\n| program | nanochat_dist %s |\n| written | %s |\n",
        cpu, sysconf(_SC_NPROCESSORS_ONLN), strtod(memory, NULL) / (1024.0 * 1024.0),
        system.sysname, system.release, nd_build_version(), day);
}

static void write_pictures(FILE *out, const nd_report_plot plots[ND_REPORT_PLOTS],
                           const char *problem)
{
    fputs("\n## Pictures\n\n", out);
    if (problem[0])
        fprintf(out,
                "Not all are drawn: %s. The data and the scripts are here; `gnuplot NAME.gp` draws "
                "them.\n\n",
                problem);
    for (int i = 0; i < ND_REPORT_PLOTS; i++)
        if (plots[i].drawn)
            fprintf(out, "%s:\n\n![%s](%s.svg)\n\n", plots[i].title, plots[i].title, plots[i].name);
        else
            fprintf(out, "%s: `%s.gp`.\n\n", plots[i].title, plots[i].name);
    fputs("Each is drawn by the script of its name from the `.dat` files beside it.\n", out);
}

nd_status nd_report_write(const nd_report *report, const char *directory)
{
    nd_report_plot plots[ND_REPORT_PLOTS];
    char problem[512], path[4096], *text = NULL;
    size_t size = 0;
    if (strlen(directory) > sizeof path - 256)
        return ND_FAIL(ND_EIO, "--out: a path of %zu characters is too long", strlen(directory));
    ND_TRY(nd_directory_create(directory));
    ND_TRY(nd_report_draw(report, directory, plots, problem, sizeof problem));
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return ND_FAIL(ND_ENOMEM, "no memory for the report");
    fprintf(out, "# Report of %d run%s\n", report->count, report->count == 1 ? "" : "s");
    if (nd_report_has_claims(report)) {
        write_claims(out, report);
        write_tokens_to_loss(out, report);
    }
    write_losses(out, report);
    write_speed(out, report);
    write_memory(out, report);
    write_state(out, report);
    write_pictures(out, plots, problem);
    write_runs(out, report);
    write_machine(out);
    if (fclose(out) != 0) {
        free(text);
        return ND_FAIL(ND_ENOMEM, "no memory for the report");
    }
    snprintf(path, sizeof path, "%s/REPORT.md", directory);
    const nd_status status = nd_durable_write(path, text, size);
    free(text);
    return status;
}
