/* Preprocessor lists. */
#pragma once

/* ND_EACH(F_, A(x), B(y)) is F_A(x) F_B(y), for up to ten items. */
#define ND_EACH(f, ...)                                                                            \
    ND_EACH_OF(__VA_ARGS__, ND_EACH_10, ND_EACH_9, ND_EACH_8, ND_EACH_7, ND_EACH_6, ND_EACH_5,     \
               ND_EACH_4, ND_EACH_3, ND_EACH_2, ND_EACH_1, )                                       \
    (f, __VA_ARGS__)
#define ND_EACH_OF(a, b, c, d, e, f, g, h, i, j, chosen, ...) chosen
#define ND_EACH_1(f, x) f##x
#define ND_EACH_2(f, x, ...) f##x ND_EACH_1(f, __VA_ARGS__)
#define ND_EACH_3(f, x, ...) f##x ND_EACH_2(f, __VA_ARGS__)
#define ND_EACH_4(f, x, ...) f##x ND_EACH_3(f, __VA_ARGS__)
#define ND_EACH_5(f, x, ...) f##x ND_EACH_4(f, __VA_ARGS__)
#define ND_EACH_6(f, x, ...) f##x ND_EACH_5(f, __VA_ARGS__)
#define ND_EACH_7(f, x, ...) f##x ND_EACH_6(f, __VA_ARGS__)
#define ND_EACH_8(f, x, ...) f##x ND_EACH_7(f, __VA_ARGS__)
#define ND_EACH_9(f, x, ...) f##x ND_EACH_8(f, __VA_ARGS__)
#define ND_EACH_10(f, x, ...) f##x ND_EACH_9(f, __VA_ARGS__)
