#include "train/log/progress.h"

#include "core/base/clock.h"

void nd_progress_begin(nd_progress_state *progress, const nd_run *run, int64_t last_step)
{
    *progress = (nd_progress_state){.started = nd_seconds(),
                                    .first_step = run->position.step,
                                    .val_bpb = -1.0,
                                    .val_loss = -1.0,
                                    .last_step = last_step};
}

void nd_progress_advance(nd_progress_state *progress, const nd_run *run, const nd_step_result *step)
{
    const double tokens =
        (double)(run->config.training.batch_size * run->config.training.seq_length);
    const double speed = tokens / (step->step_ms * 1e-3);
    if (run->position.step - progress->first_step <= 2)
        progress->tokens_per_second = speed; /* the first step prepares workspaces */
    else
        progress->tokens_per_second = 0.9 * progress->tokens_per_second + 0.1 * speed;
}

static void format_duration(double seconds, char *text, size_t size)
{
    const long long whole = (long long)(seconds + 0.5);
    if (whole < 60)
        snprintf(text, size, "%llds", whole);
    else if (whole < 3600)
        snprintf(text, size, "%lldm%02llds", whole / 60, whole % 60);
    else
        snprintf(text, size, "%lldh%02lldm", whole / 3600, whole / 60 % 60);
}

static void format_rate(double rate, char *text, size_t size)
{
    if (rate >= 1e6)
        snprintf(text, size, "%.2fM", rate * 1e-6);
    else if (rate >= 1e3)
        snprintf(text, size, "%.1fk", rate * 1e-3);
    else
        snprintf(text, size, "%.0f", rate);
}

void nd_progress_line(const nd_progress_state *progress, const nd_run *run,
                      const nd_step_result *step, char *text, size_t size)
{
    char eta[32], rate[32], val[48] = "";
    const double elapsed = nd_seconds() - progress->started;
    const double done = (double)(run->position.step - progress->first_step);
    const double left = (double)(progress->last_step - run->position.step);
    format_duration(done > 0.0 ? elapsed / done * left : 0.0, eta, sizeof eta);
    format_rate(progress->tokens_per_second, rate, sizeof rate);
    if (progress->val_bpb > 0.0)
        snprintf(val, sizeof val, "  val %.4f bpb", progress->val_bpb);
    else if (progress->val_loss >= 0.0)
        snprintf(val, sizeof val, "  val %.4f", progress->val_loss);
    snprintf(text, size,
             "step %lld/%lld  loss %.4f%s  lr %.2e  |g| %.3f  %s tok/s  eta %s  data %.1f ms  mem "
             "%.0f MiB",
             (long long)run->position.step, (long long)progress->last_step, step->loss, val,
             step->lr, step->grad_norm, rate, eta, step->data_wait_ms,
             (double)nd_memory_resident() / (1024.0 * 1024.0));
}
