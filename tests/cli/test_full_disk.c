/* A disk that fills up while a checkpoint is written. */
#include "support/run_files.h"
#include "support/support.h"

#include <stdio.h>
#include <string.h>

/* Trains with checkpoints on a file system of `kilobytes` that the first one fits and the second
 * does not. */
static void fill_disk(int ranks, int kilobytes)
{
    static char output[16384];
    char directory[64], config[128];
    strcpy(directory, nd_test_directory());
    snprintf(config, sizeof config, "%s/config.ini", directory);
    nd_test_write_config(config);
    if (nd_test_shell(output, sizeof output,
                      "mkdir %s/disk && mount -t tmpfs -o size=%dk tmpfs %s/disk", directory,
                      kilobytes, directory) != 0) {
        nd_test_remove_directory(directory);
        cr_skip_test("no right to mount a small file system here");
    }
    const int code = nd_test_mpirun(output, sizeof output, ranks,
                                    "%s --config %s --run-dir %s/run --checkpoint-dir %s/disk/ck",
                                    ND_BINARY, config, directory, directory);
    char listing[1024];
    nd_test_shell(listing, sizeof listing, "ls -A %s/disk/ck; readlink %s/disk/ck/latest",
                  directory, directory);
    const int loads =
        nd_test_shell(NULL, 0, "%s info --verify %s/disk/ck/latest", ND_BINARY, directory);
    nd_test_shell(NULL, 0, "umount %s/disk", directory);
    nd_test_remove_directory(directory);
    cr_assert_eq(code, 4, "exit %d: %s", code, output);
    cr_assert(strstr(output, "saved") != NULL, "the first checkpoint did not fit: %s", output);
    cr_assert(strstr(output, "step_00000008") != NULL, "%s", output);
    cr_assert(strstr(output, "disk full") != NULL || strstr(output, "No space left") != NULL, "%s",
              output);
    cr_assert(strstr(listing, "step_00000004\n") != NULL, "%s", listing);
    cr_assert_eq(loads, 0, "the older checkpoint does not load");
}

Test(full_disk, leaves_the_older_checkpoint_and_says_so)
{
    fill_disk(1, 500);
}

Test(full_disk, of_one_rank_stops_all)
{
    fill_disk(2, 500);
}
