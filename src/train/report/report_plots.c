#include "train/report/report_plots.h"

#include "train/report/report_measures.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };
static const double smoothing = 0.95;

/* Characters that gnuplot or a shell read are left out of file names; the number keeps them apart. */
static void file_stem(const nd_report *report, int i, char *stem, size_t size)
{
    int used = snprintf(stem, size, "%02d_", i + 1);
    for (const char *c = report->runs[i].name; *c && (size_t)used + 1 < size; c++)
        stem[used++] = isalnum((unsigned char)*c) || *c == '-' ? *c : '_';
    stem[used] = '\0';
}

/* A single-quoted string of gnuplot, in which only the quote itself is special. */
static void write_quoted(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
    fputc('\'', out);
}

static FILE *create(const char *directory, const char *name, const char *suffix, char *path)
{
    snprintf(path, PATH_SIZE, "%s/%s%s", directory, name, suffix);
    return fopen(path, "w");
}

static nd_status finish(FILE *file, const char *path)
{
    if (!file || fclose(file) != 0)
        return ND_FAIL(ND_EIO, "cannot write %.1000s: %s", path, strerror(errno));
    return ND_OK;
}

/* Two files a run: the training loss of every step, and the held-out loss of every evaluation. */
static nd_status write_curves(const nd_report *report, const char *directory, int i)
{
    const nd_report_run *run = &report->runs[i];
    char stem[ND_REPORT_NAME_MAX + 8], train_path[PATH_SIZE], val_path[PATH_SIZE];
    double seconds = 0.0, smooth = 0.0, weight = 0.0;
    file_stem(report, i, stem, sizeof stem);
    FILE *train = create(directory, stem, "_train.dat", train_path);
    FILE *val = create(directory, stem, "_val.dat", val_path);
    if (train)
        fputs("# million tokens, loss, smoothed loss, gradient norm\n", train);
    if (val)
        fputs("# million tokens, seconds in steps, val_loss, val_bpb\n", val);
    for (size_t s = 0; train && val && s < run->count; s++) {
        const nd_report_step *step = &run->steps[s];
        seconds += isfinite(step->step_ms) ? step->step_ms * 1e-3 : 0.0;
        if (isfinite(step->loss)) {
            smooth = smoothing * smooth + (1.0 - smoothing) * step->loss;
            weight = smoothing * weight + (1.0 - smoothing);
            fprintf(train, "%.9g %.9g %.9g %.9g\n", step->tokens * 1e-6, step->loss,
                    smooth / weight, step->grad_norm);
        }
        if (isfinite(step->val_loss))
            fprintf(val, "%.9g %.9g %.9g %.9g\n", step->tokens * 1e-6, seconds, step->val_loss,
                    step->val_bpb);
    }
    const nd_status status = finish(train, train_path);
    const nd_status second = finish(val, val_path);
    return status != ND_OK ? status : second;
}

static nd_status write_memory(const nd_report *report, const char *directory)
{
    char path[PATH_SIZE];
    FILE *out = create(directory, "memory", ".dat", path);
    if (out) {
        fputs("# MiB of: ", out);
        for (int c = 0; c < report->category_count; c++)
            fprintf(out, "%s ", report->categories[c]);
        fputc('\n', out);
        for (int i = 0; i < report->count; i++) {
            fputc('"', out);
            for (const char *c = report->runs[i].name; *c; c++)
                fputc(*c == '"' || *c == '\\' || *c == '\n' ? '_' : *c, out);
            fputc('"', out);
            for (int c = 0; c < report->category_count; c++) {
                const double bytes = report->runs[i].memory[c];
                fprintf(out, " %.6g", isfinite(bytes) ? bytes / (1024.0 * 1024.0) : 0.0);
            }
            fputc('\n', out);
        }
    }
    return finish(out, path);
}

static void write_head(FILE *out, const char *name, const char *x, const char *y)
{
    fprintf(out,
            "# gnuplot %s.gp draws %s.svg again\n"
            "set terminal svg size 860,520 dynamic background rgb 'white'\n"
            "set termoption noenhanced\n"
            "set output '%s.svg'\nset datafile missing 'nan'\n"
            "set grid\nset key outside right top\nset xlabel '%s'\nset ylabel '%s'\n",
            name, name, name, x, y);
}

/* A script that draws one column against another for every run that has such points. */
static nd_status write_lines(const nd_report *report, const char *directory, const char *name,
                             const char *x, const char *y, const char *suffix, const char *columns,
                             const char *style, bool held_out)
{
    char path[PATH_SIZE];
    const char *separator = "plot ";
    FILE *out = create(directory, name, ".gp", path);
    if (!out)
        return finish(out, path);
    write_head(out, name, x, y);
    for (int i = 0; i < report->count; i++) {
        const nd_report_run *run = &report->runs[i];
        char stem[ND_REPORT_NAME_MAX + 8];
        const size_t field = held_out ? ND_REPORT_FIELD(val_loss) : ND_REPORT_FIELD(loss);
        if (isnan(nd_report_last(run, field)))
            continue;
        file_stem(report, i, stem, sizeof stem);
        fprintf(out, "%s'%s_%s.dat' using %s with %s title ", separator, stem, suffix, columns,
                style);
        write_quoted(out, run->name);
        separator = ", \\\n     ";
    }
    if (separator[0] == 'p')
        fputs("set label 'no run has such points' at graph 0.5,0.5 center\nplot [0:1] [0:1] NaN "
              "notitle",
              out);
    fputc('\n', out);
    return finish(out, path);
}

static nd_status write_bars(const nd_report *report, const char *directory)
{
    char path[PATH_SIZE];
    FILE *out = create(directory, "memory", ".gp", path);
    if (!out)
        return finish(out, path);
    write_head(out, "memory", "", "MiB, rank 0");
    fputs("set style data histograms\nset style histogram rowstacked\nset style fill solid 0.85 "
          "border -1\nset boxwidth 0.7\nset xtics rotate by -25\nset yrange [0:*]\n",
          out);
    for (int c = 0; c < report->category_count; c++) {
        fprintf(out, "%s using %d%s title ", c == 0 ? "plot 'memory.dat'" : ", \\\n     ''", c + 2,
                c == 0 ? ":xtic(1)" : "");
        write_quoted(out, report->categories[c]);
    }
    if (report->category_count == 0)
        fputs("set label 'no run tells its memory' at graph 0.5,0.5 center\nplot [0:1] [0:1] NaN "
              "notitle",
              out);
    fputc('\n', out);
    return finish(out, path);
}

/* Runs gnuplot on one script, its words going to gnuplot.log. Returns 0, its exit status, or -errno
 * when it could not be started. */
static int run_gnuplot(const char *directory, const char *script)
{
    posix_spawn_file_actions_t actions;
    char *arguments[] = {"gnuplot", (char *)script, NULL};
    pid_t child;
    int ended;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, directory);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "gnuplot.log",
                                     O_WRONLY | O_CREAT | O_APPEND, 0666);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    const int failed = posix_spawnp(&child, "gnuplot", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failed)
        return -failed;
    while (waitpid(child, &ended, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : 128 + WTERMSIG(ended);
}

static void draw(const char *directory, nd_report_plot *plot, char *problem, size_t size)
{
    char path[PATH_SIZE], script[64];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s.svg", directory, plot->name);
    unlink(path); /* of an earlier report, which would be taken for this one's */
    snprintf(script, sizeof script, "%s.gp", plot->name);
    const int code = run_gnuplot(directory, script);
    plot->drawn = code == 0 && stat(path, &info) == 0 && info.st_size > 0;
    if (plot->drawn || problem[0])
        return;
    if (code == -ENOENT)
        snprintf(problem, size,
                 "gnuplot is not installed (package gnuplot-nox; launch/install_deps.sh --report)");
    else if (code < 0)
        snprintf(problem, size, "gnuplot cannot be started: %s", strerror(-code));
    else
        snprintf(problem, size, "gnuplot left %s.gp with %d; gnuplot.log holds its words",
                 plot->name, code);
}

nd_status nd_report_draw(const nd_report *report, const char *directory,
                         nd_report_plot plots[ND_REPORT_PLOTS], char *problem, size_t size)
{
    static const nd_report_plot all[ND_REPORT_PLOTS] = {
        {"val_loss", "Held-out loss over tokens", false},
        {"val_loss_time", "Held-out loss over time spent in steps", false},
        {"train_loss", "Training loss over tokens, smoothed (0.95 old, 0.05 new)", false},
        {"memory", "Memory by category, the largest over the run, rank 0", false}};
    char log[PATH_SIZE];
    struct stat info;
    for (int i = 0; i < report->count; i++)
        ND_TRY(write_curves(report, directory, i));
    ND_TRY(write_memory(report, directory));
    ND_TRY(write_lines(report, directory, "val_loss", "million tokens",
                       "held-out loss (nats a token)", "val", "1:3",
                       "linespoints pointtype 7 pointsize 0.4", true));
    ND_TRY(write_lines(report, directory, "val_loss_time", "seconds in steps",
                       "held-out loss (nats a token)", "val", "2:3",
                       "linespoints pointtype 7 pointsize 0.4", true));
    ND_TRY(write_lines(report, directory, "train_loss", "million tokens",
                       "training loss (nats a token)", "train", "1:3", "lines", false));
    ND_TRY(write_bars(report, directory));
    snprintf(log, sizeof log, "%s/gnuplot.log", directory);
    unlink(log);
    problem[0] = '\0';
    for (int i = 0; i < ND_REPORT_PLOTS; i++) {
        plots[i] = all[i];
        draw(directory, &plots[i], problem, size);
    }
    if (stat(log, &info) == 0 && info.st_size == 0)
        unlink(log);
    return ND_OK;
}
