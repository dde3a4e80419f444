/* Started alone or under mpirun by test_saves.c: ranks_saves CONFIG DIR [SECTION.KEY=VALUE]...
 *
 * Saves the same step twice: waiting for it, and beside the next steps of training. Exits 0 when
 * rank 0 found every file of the two checkpoints to be the same to the byte. */
#include "train/checkpoint/checkpoint.h"
#include "train/checkpoint/checkpoint_save.h"
#include "train/step.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SAVED_AT = 3, BESIDE = 3 };

#define DO(expression)                                                                             \
    do {                                                                                           \
        if ((expression) != ND_OK) {                                                               \
            fprintf(stderr, "rank %d: %s: %s\n", comm->rank, #expression,                          \
                    nd_error_get()->message);                                                      \
            comm->ops.abort(comm, 1);                                                              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static char *read_file(const char *directory, const char *name, size_t *bytes)
{
    char path[2 * ND_CHECKPOINT_PATH_MAX];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    if (!file || fstat(fileno(file), &info) != 0)
        return NULL;
    char *text = malloc((size_t)info.st_size + 1);
    *bytes = text ? fread(text, 1, (size_t)info.st_size, file) : 0;
    fclose(file);
    return text;
}

static bool same_file(const char *a, const char *b, const char *name)
{
    size_t bytes = 0, other_bytes = 0;
    char *text = read_file(a, name, &bytes), *other = read_file(b, name, &other_bytes);
    const bool same = text && other && bytes == other_bytes && memcmp(text, other, bytes) == 0;
    free(text);
    free(other);
    return same;
}

static int compare(const char *a, const char *b, int ranks)
{
    struct dirent **entries;
    int wrong = 0, files = 0;
    const int count = scandir(a, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const bool file = entries[i]->d_name[0] != '.';
        files += file;
        if (file && !same_file(a, b, entries[i]->d_name)) {
            fprintf(stderr, "%s is not the same in %s and %s\n", entries[i]->d_name, a, b);
            wrong++;
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    if (files < ranks + 2) {
        fprintf(stderr, "%s has %d files\n", a, files);
        wrong++;
    }
    return wrong;
}

int main(int argc, char **argv)
{
    static nd_run run;
    static nd_config config;
    char path[ND_CHECKPOINT_PATH_MAX], waited[ND_CHECKPOINT_PATH_MAX];
    nd_step_result step;
    nd_comm *comm = NULL;
    int wrong = 0;
    if (argc < 3 || nd_comm_create(&comm) != ND_OK)
        return 2;
    nd_config_defaults(&config);
    DO(nd_config_read_file(&config, argv[1]));
    for (int i = 3; i < argc; i++)
        DO(nd_config_set(&config, argv[i], "argument"));
    DO(nd_config_check(&config));
    snprintf(config.logging.run_dir, sizeof config.logging.run_dir, "%s", argv[2]);
    snprintf(waited, sizeof waited, "%s/waited", argv[2]);
    DO(nd_run_create(&config, comm, &run));
    DO(nd_run_start_loader(&run));
    for (int i = 0; i < SAVED_AT; i++)
        DO(nd_step_run(&run, false, &step));
    DO(nd_save_begin(&run, false));
    snprintf(path, sizeof path, "%.4000s/checkpoints/step_%08d", argv[2], SAVED_AT);
    if (comm->rank == 0 && rename(path, waited) != 0)
        return 1;
    DO(nd_save_begin(&run, true));
    for (int i = 0; i < BESIDE; i++)
        DO(nd_step_run(&run, false, &step));
    DO(nd_save_finish(&run));
    if (comm->rank == 0)
        wrong = compare(waited, path, comm->size);
    nd_run_destroy(&run);
    nd_comm_destroy(comm);
    return wrong > 0;
}
