/* Which GPU a rank takes, and what it says when there are too few. */
#include "device_choice.h"
#include "support/support.h"

#include <string.h>

Test(device_choice, a_rank_takes_the_gpu_of_its_number_on_this_host)
{
    int device = -7;
    for (int rank = 0; rank < 4; rank++) {
        ND_ASSERT_OK(nd_choose_device(true, 4, NULL, rank, 4, "", &device));
        cr_assert_eq(device, rank);
        ND_ASSERT_OK(nd_choose_device(false, 8, NULL, rank, 4, "", &device));
        cr_assert_eq(device, rank);
    }
}

Test(device_choice, without_a_gpu_auto_computes_on_the_cpu_and_cuda_is_refused)
{
    int device = 0;
    ND_ASSERT_OK(nd_choose_device(false, 0, NULL, 0, 4, "no driver", &device));
    cr_assert_eq(device, -1);
    ND_ASSERT_FAILS(nd_choose_device(true, 0, NULL, 0, 4, "no driver", &device), ND_ECONFIG,
                    "target = cuda, but this host has no CUDA device: no driver");
}

Test(device_choice, more_ranks_than_gpus_are_refused_with_both_numbers)
{
    int device = 0;
    ND_ASSERT_FAILS(nd_choose_device(true, 1, NULL, 0, 4, "", &device), ND_ECONFIG,
                    "4 ranks on this host, 1 GPU: a rank needs a GPU of its own; start 1 rank on");
    ND_ASSERT_FAILS(nd_choose_device(false, 2, NULL, 2, 3, "", &device), ND_ECONFIG,
                    "3 ranks on this host, 2 GPUs: a rank needs a GPU of its own; start 2 ranks");
}

Test(device_choice, a_rank_that_is_shown_one_gpu_takes_it)
{
    int device = -7;
    for (int rank = 0; rank < 4; rank++) {
        ND_ASSERT_OK(nd_choose_device(true, 1, "0", rank, 4, "", &device));
        cr_assert_eq(device, 0);
        ND_ASSERT_OK(nd_choose_device(true, 1, "GPU-5ebe9f43-ac33420d4628", rank, 4, "", &device));
        cr_assert_eq(device, 0);
    }
    ND_ASSERT_FAILS(nd_choose_device(true, 2, "0,1", 2, 3, "", &device), ND_ECONFIG,
                    "3 ranks on this host, 2 GPUs");
    ND_ASSERT_FAILS(nd_choose_device(true, 1, "0,9", 1, 2, "", &device), ND_ECONFIG,
                    "2 ranks on this host, 1 GPU");
}
