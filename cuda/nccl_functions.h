/* The functions of NCCL that are used. The library is opened when several GPUs train: the program
 * also starts without it. */
#pragma once

#include <nccl.h>

/* Member, function. */
#define NCCL_FUNCTIONS(F)                                                                          \
    F(get_id, ncclGetUniqueId)                                                                     \
    F(version, ncclGetVersion)                                                                     \
    F(init, ncclCommInitRankConfig)                                                                \
    F(split, ncclCommSplit)                                                                        \
    F(async_error, ncclCommGetAsyncError)                                                          \
    F(abort, ncclCommAbort)                                                                        \
    F(finalize, ncclCommFinalize)                                                                  \
    F(destroy, ncclCommDestroy)                                                                    \
    F(error_string, ncclGetErrorString)                                                            \
    F(group_start, ncclGroupStart)                                                                 \
    F(group_end, ncclGroupEnd)                                                                     \
    F(reduce, ncclReduce)                                                                          \
    F(all_reduce, ncclAllReduce)                                                                   \
    F(broadcast, ncclBroadcast)                                                                    \
    F(send, ncclSend)                                                                              \
    F(receive, ncclRecv)

struct nccl_functions {
#define MEMBER(member, function) decltype(&function) member;
    NCCL_FUNCTIONS(MEMBER)
#undef MEMBER
};
