/* What must be equal on all ranks. */
#include "core/base/build_info.h"
#include "core/base/facts.h"
#include "train/run/identity.h"

#include <stdlib.h>
#include <string.h>

/* Compares a text with rank 0's, which is sent only if some rank differs. Collective. */
static nd_status compare(nd_comm *comm, const char *mine, nd_status error, const char *what,
                         const char *advice)
{
    char own[ND_SHA256_HEX_SIZE] = "", first[ND_SHA256_HEX_SIZE];
    size_t size = strlen(mine) + 1;
    int differs[comm->size];
    bool any = false;
    ND_TRY(nd_comm_agree(comm, nd_sha256_hex(mine, size, own)));
    memcpy(first, own, sizeof first);
    ND_TRY(comm->ops.broadcast(comm, first, sizeof first, 0));
    const int here = memcmp(first, own, sizeof own) != 0;
    memset(differs, 0, sizeof differs);
    ND_TRY(comm->ops.allgather(comm, differs, &here, sizeof here));
    for (int r = 0; r < comm->size; r++)
        any |= differs[r] != 0;
    if (!any)
        return ND_OK;
    nd_fact_difference d;
    ND_TRY(comm->ops.broadcast(comm, &size, sizeof size, 0));
    ND_AUTOFREE char *theirs = malloc(size);
    ND_TRY(nd_comm_agree(comm, ND_CHECK(theirs, ND_ENOMEM, "no memory for %s", what)));
    if (comm->rank == 0)
        memcpy(theirs, mine, size);
    ND_TRY(comm->ops.broadcast(comm, theirs, size, 0));
    const bool found = here && nd_facts_differ(theirs, mine, &d);
    return nd_comm_agree(comm,
                         ND_CHECK(!found, error, "%s: '%s' is %s on this rank and %s on rank 0; %s",
                                  what, d.key, d.second, d.first, advice));
}

nd_status nd_identity_compare_programs(const nd_config *config, const char *resume, nd_comm *comm)
{
    /* Keys that may differ between machines; the data's own identity is compared later. */
    static const char *const own[] = {"data.data_path", "hardware.threads", "hardware.cpu_isa",
                                      NULL};
    char options[256];
    ND_AUTOFREE char *text = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    nd_build_options(options, sizeof options);
    if (memory) {
        fprintf(memory, "version = %s\ncommit = %s\nbuild = %s\n--resume = %s\n",
                nd_build_version(), nd_build_commit(), options, resume);
        nd_config_write_facts(config, own, memory);
        fclose(memory);
    }
    ND_TRY(
        nd_comm_agree(comm, ND_CHECK(text, ND_ENOMEM, "no memory for the description of a run")));
    return compare(comm, text, ND_ECONFIG, "ranks differ",
                   "all need the same program, configuration and options");
}

nd_status nd_identity_compare_data(const nd_identity *identity, nd_comm *comm)
{
    return compare(comm, identity->data, ND_EDATA, "ranks have different data",
                   "all need the same shards (a copy that is not complete, or an older one?)");
}
