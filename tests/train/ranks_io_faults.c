/* Started alone by test_io_faults.c, linked with libnd_io_faults.so:
 *   ranks_io_faults CONFIG DIR KIND FIRST STRIDE [SECTION.KEY=VALUE]...
 *
 * A run has a checkpoint of step 3 and stands at step 4. For calls number FIRST, FIRST + STRIDE,
 * ... of the save of step 4, until the save has fewer: the disk fails there
 * (tests/io_faults/io_faults.h), in a process of its own. Whatever happens, the save must end with
 * an error that names a file and the reason or have succeeded; the newest checkpoint and `latest`
 * must be whole; and a run that resumes must end in the state of the one that was left alone.
 * Prints a line for each case that is otherwise, and exits 1. */
#include "io_faults/io_faults.h"

#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/step.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OLD = 3, NEW = 4, LAST = 6, SECONDS = 60 };

/* What a process of a case tells. */
typedef struct outcome {
    nd_status status;
    long seen, hit;
    char first[256], message[ND_ERROR_TEXT_MAX];
    char state[ND_SHA256_HEX_SIZE];
} outcome;

static nd_run run;
static char directory[256], checkpoints[288];
static outcome *told;
static int wrong, refused, passed, old_left, new_left;

static void need(nd_status status, const char *what)
{
    if (status == ND_OK)
        return;
    fprintf(stderr, "%s: %s\n", what, nd_error_get()->message);
    exit(1);
}

static void shell(const char *format)
{
    char command[8192];
    snprintf(command, sizeof command, format, directory, directory, directory);
    if (system(command) != 0) {
        fprintf(stderr, "%s failed\n", command);
        exit(1);
    }
}

static nd_status step_to(int64_t last)
{
    while (run.position.step < last) {
        nd_step_result step;
        ND_TRY(nd_step_run(&run, false, &step));
    }
    return ND_OK;
}

/* The state of the run as the checkpoint it would write. */
static nd_status state_now(const char *name)
{
    snprintf(run.config.logging.checkpoint_dir, sizeof run.config.logging.checkpoint_dir, "%s/%s",
             directory, name);
    ND_TRY(nd_save_begin(&run, false));
    strcpy(told->state, run.saving.state_sha256);
    return ND_OK;
}

static nd_status go_on(void)
{
    ND_TRY(step_to(LAST));
    return state_now("reference");
}

/* Restores the newest checkpoint and trains to the end. */
static nd_status resume(void)
{
    char path[ND_CHECKPOINT_PATH_MAX];
    ND_TRY(nd_checkpoint_newest(checkpoints, &run.log, path));
    ND_TRY(nd_checkpoint_restore(&run, path));
    nd_loader_close(run.data.loader);
    run.data.loader = NULL;
    ND_TRY(nd_run_start_loader(&run));
    ND_TRY(step_to(LAST));
    return state_now("again");
}

static const char *kind;
static long at;

static nd_status save_on_a_bad_disk(void)
{
    nd_io_faults_arm(kind, at, checkpoints);
    nd_status status = nd_save_begin(&run, true);
    if (status == ND_OK)
        status = step_to(NEW + 1);
    if (status == ND_OK)
        status = nd_save_finish(&run);
    told->seen = nd_io_faults_seen();
    told->hit = nd_io_faults_hit();
    snprintf(told->first, sizeof told->first, "%s", nd_io_faults_first());
    return status;
}

/* `work` in a process of its own; returns its wait status, with told->status what it returned. */
static int apart(nd_status (*work)(void))
{
    int ended;
    memset(told, 0, sizeof *told);
    const pid_t child = fork();
    if (child == 0) {
        alarm(SECONDS);
        nd_error_clear();
        told->status = work();
        memcpy(told->message, nd_error_get()->message, sizeof told->message);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &ended, 0) != child)
        exit(1);
    return ended;
}

static void complain(const outcome *o, const char *what)
{
    fprintf(stderr, "%s:%ld (%s): %s; status %d: %s\n", kind, at, o->first, what, (int)o->status,
            o->message);
    wrong++;
}

static bool names_file_and_reason(const outcome *o)
{
    return strstr(o->message, checkpoints) && (strstr(o->message, "No space left on device") ||
                                               strstr(o->message, "Input/output error"));
}

/* The step of the newest whole checkpoint, -1 when there is none. */
static int64_t newest_step(void)
{
    char path[ND_CHECKPOINT_PATH_MAX], latest[ND_CHECKPOINT_PATH_MAX];
    nd_checkpoint c;
    nd_error_clear();
    if (nd_checkpoint_resolve(checkpoints, &run.log, latest) != ND_OK ||
        nd_checkpoint_open(latest, true, &c) != ND_OK)
        return -1;
    nd_checkpoint_close(&c);
    if (nd_checkpoint_newest(checkpoints, &run.log, path) != ND_OK ||
        nd_checkpoint_open(path, true, &c) != ND_OK)
        return -1;
    const int64_t step = c.step;
    nd_checkpoint_close(&c);
    return step;
}

/* Returns whether the save had a call number `at`. */
static bool run_case(const char *reference)
{
    shell("rm -rf '%s/checkpoints' && cp -a '%s/old' '%s/checkpoints'");
    const int ended = apart(save_on_a_bad_disk);
    const outcome o = *told;
    const int64_t step = newest_step();
    if (ended != 0)
        complain(&o, "crashed or hung");
    if (o.status != ND_OK && o.status != ND_ECHECKPOINT)
        complain(&o, "another status than that of a checkpoint");
    if (o.status != ND_OK && !names_file_and_reason(&o))
        complain(&o, "the message lacks the file or the reason");
    const bool removing = strcmp(o.first, "renameat2 .tmp_step_00000003") == 0; /* only a warning */
    if (o.hit > 0 && o.status == ND_OK && strcmp(kind, "enospc") == 0 && !removing)
        complain(&o, "not noticed");
    if ((o.hit == 0 || strcmp(kind, "short") == 0) && o.status != ND_OK)
        complain(&o, "failed for nothing");
    if (step != NEW && (o.status == ND_OK || step != OLD))
        complain(&o, "no complete checkpoint");
    refused += o.status != ND_OK;
    passed += o.status == ND_OK;
    old_left += step == OLD;
    new_left += step == NEW;
    if (apart(resume) != 0 || told->status != ND_OK || strcmp(told->state, reference) != 0) {
        fprintf(stderr, "resumed: %s\n", told->message);
        complain(&o, "the run that resumes ends otherwise");
    }
    return o.seen >= at;
}

int main(int argc, char **argv)
{
    static nd_config config;
    nd_comm *comm = NULL;
    char reference[ND_SHA256_HEX_SIZE];
    if (argc < 6 || nd_comm_create_solo(&comm) != ND_OK)
        return 2;
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(directory, sizeof directory, "%s", argv[2]);
    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", argv[2]);
    kind = argv[3];
    nd_config_defaults(&config);
    need(nd_config_read_file(&config, argv[1]), argv[1]);
    for (int i = 6; i < argc; i++)
        need(nd_config_set(&config, argv[i], "argument"), argv[i]);
    config.training.use_async_loader = false; /* processes that fork have no threads */
    config.hardware.threads = 1;
    config.logging.checkpoint_keep = 1;
    snprintf(config.logging.checkpoint_dir, sizeof config.logging.checkpoint_dir, "%s/old",
             directory);
    need(nd_config_check(&config), "configuration");
    need(nd_run_create(&config, comm, &run), "run");
    need(nd_run_start_loader(&run), "loader");
    need(step_to(OLD), "steps");
    need(nd_save_begin(&run, false), "the old checkpoint");
    snprintf(run.config.logging.checkpoint_dir, sizeof run.config.logging.checkpoint_dir, "%s",
             checkpoints);
    need(step_to(NEW), "steps");
    if (apart(go_on) != 0 || told->status != ND_OK)
        return 1;
    strcpy(reference, told->state);
    const long stride = atol(argv[5]);
    for (at = atol(argv[4]); run_case(reference) && wrong < 5; at += stride)
        ;
    printf(
        "%s: %d cases, %d saves failed and %d did not; the old checkpoint was left %d times, the "
        "new one %d times; %d wrong\n",
        kind, refused + passed, refused, passed, old_left, new_left, wrong);
    nd_run_destroy(&run);
    nd_comm_destroy(comm);
    return wrong > 0;
}
