#include "optim/mtp_schedule.h"
#include "support/support.h"

static nd_config config_with(int schedule)
{
    static nd_config config;
    nd_config_defaults(&config);
    config.training.use_mtp = true;
    config.training.mtp_n_tokens = 4;
    config.training.mtp_weight = 0.5;
    config.training.total_steps = 90;
    config.training.mtp_schedule = schedule;
    return config;
}

static void assert_weights(const nd_config *config, int64_t step, float second, float third,
                           float fourth)
{
    float weights[ND_OFFSETS_MAX];
    nd_mtp_weights(config, step, weights);
    cr_assert_eq(weights[0], 1.0f);
    cr_assert_float_eq(weights[1], second, 1e-6, "step %d: %g", (int)step, (double)weights[1]);
    cr_assert_float_eq(weights[2], third, 1e-6, "step %d: %g", (int)step, (double)weights[2]);
    cr_assert_float_eq(weights[3], fourth, 1e-6, "step %d: %g", (int)step, (double)weights[3]);
    cr_assert_eq(weights[4], 0.0f);
}

Test(mtp_schedule, thirds_drop_the_far_tokens_and_then_all)
{
    const nd_config config = config_with(ND_MTP_THIRDS);
    assert_weights(&config, 0, 0.5f, 0.25f, 0.125f);
    assert_weights(&config, 29, 0.5f, 0.25f, 0.125f);
    assert_weights(&config, 30, 0.5f, 0.25f, 0.0f);
    assert_weights(&config, 60, 0.0f, 0.0f, 0.0f);
}

Test(mtp_schedule, linear_falls_to_nothing)
{
    const nd_config config = config_with(ND_MTP_LINEAR);
    assert_weights(&config, 0, 0.5f, 0.25f, 0.125f);
    assert_weights(&config, 45, 0.25f, 0.125f, 0.0625f);
}

Test(mtp_schedule, none_counts_after_mtp_until)
{
    nd_config config = config_with(ND_MTP_CONSTANT);
    config.training.mtp_until = 0.3;
    assert_weights(&config, 26, 0.5f, 0.25f, 0.125f);
    assert_weights(&config, 27, 0.0f, 0.0f, 0.0f);
    config.training.mtp_schedule = ND_MTP_THIRDS;
    config.training.mtp_until = 0.5;
    assert_weights(&config, 44, 0.5f, 0.25f, 0.0f);
    assert_weights(&config, 45, 0.0f, 0.0f, 0.0f);
}

Test(mtp_schedule, without_use_mtp_only_the_next_token_counts)
{
    nd_config config = config_with(ND_MTP_CONSTANT);
    assert_weights(&config, 80, 0.5f, 0.25f, 0.125f);
    config.training.use_mtp = false;
    assert_weights(&config, 0, 0.0f, 0.0f, 0.0f);
}
