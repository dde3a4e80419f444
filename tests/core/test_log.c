/* Lines of the log. */
#include "core/base/log.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* What the two outputs of a log receive. */
static void write_lines(char **terminal, char **file)
{
    size_t sizes[2];
    nd_log log = {.terminal = open_memstream(terminal, &sizes[0]),
                  .file = open_memstream(file, &sizes[1])};
    nd_log_line(&log, "resumed %s at step %d", "step_00000004", 4);
    nd_log_progress(&log, "step 5/8");
    fclose(log.terminal);
    fclose(log.file);
}

Test(log, every_line_of_terminal_and_file_begins_with_its_local_time)
{
    char *outputs[2], *next;
    const time_t before = time(NULL);
    write_lines(&outputs[0], &outputs[1]);
    const time_t after = time(NULL);
    for (int i = 0; i < 2; i++) {
        for (char *line = outputs[i]; *line; line = next) {
            struct tm parsed = {.tm_isdst = -1};
            next = strchr(line, '\n') + 1;
            const char *text = strptime(line, "%Y-%m-%d %H:%M:%S ", &parsed);
            cr_assert(text != NULL, "no time: %s", line);
            const time_t told = mktime(&parsed);
            cr_assert(told >= before && told <= after, "%s", line);
        }
        cr_assert(strstr(outputs[i], " resumed step_00000004 at step 4\n") != NULL);
        free(outputs[i]);
    }
}
