/* Which ranks share a host, and who keeps whose copies. */
#include "train/snapshot/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void number_hosts(nd_hosts *hosts, int ranks)
{
    hosts->count = 0;
    for (int r = 0; r < ranks; r++) {
        int before = 0;
        while (before < r && strcmp(hosts->names[before], hosts->names[r]) != 0)
            before++;
        hosts->of[r] = before < r ? hosts->of[before] : hosts->count++;
    }
}

/* The position of a rank when ranks are ordered by host, and the rank at a position. */
static int place_of(const nd_hosts *hosts, int ranks, int rank)
{
    int place = 0;
    for (int r = 0; r < ranks; r++)
        place += hosts->of[r] < hosts->of[rank] || (r < rank && hosts->of[r] == hosts->of[rank]);
    return place;
}

static int rank_at(const nd_hosts *hosts, int ranks, int place)
{
    int rank = 0;
    while (place_of(hosts, ranks, rank) != place)
        rank++;
    return rank;
}

static int most_on_a_host(const nd_hosts *hosts, int ranks)
{
    int most = 0;
    for (int host = 0; host < hosts->count; host++) {
        int here = 0;
        for (int r = 0; r < ranks; r++)
            here += hosts->of[r] == host;
        most = here > most ? here : most;
    }
    return most;
}

/* With ranks ordered by host, a shift by the largest host's size leads to another host, unless one
 * host has more than half of the ranks. */
static int buddy_of(const nd_hosts *hosts, int ranks, int rank, nd_snapshot_buddy_choice choice)
{
    if (choice == ND_SNAPSHOT_BUDDY_OFF || ranks == 1 ||
        (hosts->count == 1 && choice == ND_SNAPSHOT_BUDDY_OTHER_HOST))
        return -1;
    const int shift = hosts->count == 1 ? 1 : most_on_a_host(hosts, ranks);
    return rank_at(hosts, ranks, (place_of(hosts, ranks, rank) + shift) % ranks);
}

nd_status nd_hosts_find(nd_comm *comm, nd_snapshot_buddy_choice choice, nd_hosts *hosts)
{
    char name[ND_HOST_NAME_MAX] = "";
    hosts->of = calloc((size_t)comm->size, sizeof *hosts->of);
    hosts->buddy = calloc((size_t)comm->size, sizeof *hosts->buddy);
    hosts->names = calloc((size_t)comm->size, sizeof *hosts->names);
    if (!hosts->of || !hosts->buddy || !hosts->names)
        return ND_FAIL(ND_ENOMEM, "no memory for the names of %d ranks' hosts", comm->size);
    if (gethostname(name, sizeof name) != 0 || !name[0])
        strcpy(name, "unknown");
    for (char *at = name; *at; at++) /* it becomes the name of a directory */
        if (*at == '/' || (*at == '.' && at == name))
            *at = '_';
    ND_TRY(comm->ops.allgather(comm, hosts->names, name, sizeof name));
    number_hosts(hosts, comm->size);
    for (int r = 0; r < comm->size; r++)
        hosts->buddy[r] = buddy_of(hosts, comm->size, r, choice);
    return ND_OK;
}

void nd_hosts_free(nd_hosts *hosts)
{
    free(hosts->of);
    free(hosts->buddy);
    free(hosts->names);
    *hosts = (nd_hosts){0};
}

int nd_hosts_leader(const nd_hosts *hosts, int host)
{
    int rank = 0;
    while (hosts->of[rank] != host)
        rank++;
    return rank;
}
