/* The reader of safetensors against headers written here by hand. */
#include "exchange/safetensors_read.h"
#include "exchange/safetensors_write.h"
#include "support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A file of this header and `data_bytes` bytes 0, 1, 2, ... */
static uint8_t *file_of(const char *header, size_t data_bytes, size_t *size)
{
    const uint64_t length = strlen(header);
    *size = 8 + strlen(header) + data_bytes;
    uint8_t *bytes = malloc(*size);
    cr_assert(bytes != NULL);
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, header, strlen(header));
    for (size_t i = 0; i < data_bytes; i++)
        bytes[8 + strlen(header) + i] = (uint8_t)i;
    return bytes;
}

static void check_refused(const char *header, size_t data_bytes, const char *says)
{
    size_t size;
    nd_safetensors f;
    uint8_t *bytes = file_of(header, data_bytes, &size);
    ND_ASSERT_FAILS(nd_safetensors_parse(bytes, size, "x", &f), ND_EDATA, says);
    free(bytes);
}

Test(safetensors, a_header_that_contradicts_itself_is_refused)
{
    check_refused("[]", 0, "not a safetensors file");
    check_refused("{", 0, "its header is not JSON");
    check_refused("{\"a\":1}", 0, "lacks dtype, shape or data_offsets");
    check_refused("{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
                  "type 'F31'");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4,
                  "has no valid shape");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
                  "\"data_offsets\":[0,4]}}",
                  4, "has no valid shape");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
                  "4 bytes, its shape asks for 8");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 4,
                  "damaged or cut short");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8,
                  "starts at byte 4 of the data, expected 0");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                  4, "expected 4");
    check_refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
                  "5 bytes of data, its tensors have 4");
    check_refused("{\"__metadata__\":{\"a\":1}}", 0, "'a' in __metadata__ is not a string");
    check_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]},"
                  "\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}",
                  1, "duplicate");
}

Test(safetensors, a_header_longer_than_the_file_is_refused)
{
    const uint8_t bytes[10] = {255, 255, 255, 255, 255, 255, 255, 255, '{', '}'};
    nd_safetensors f;
    ND_ASSERT_FAILS(nd_safetensors_parse(bytes, sizeof bytes, "x", &f), ND_EDATA, "cut short");
    ND_ASSERT_FAILS(nd_safetensors_parse(bytes, 3, "x", &f), ND_EDATA, "not a safetensors file");
}

Test(safetensors, floats_of_every_width_are_read)
{
    static const char header[] = "{\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[8,16]},"
                                 "\"f\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                                 "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[4,6]},"
                                 "\"h\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[6,8]}}";
    const float single = -1.25f;
    const double wide = 0.1;
    const uint16_t halves[2] = {0x4049, 0x3555}; /* 3.140625 in bf16, 0.333 in fp16 */
    size_t size;
    nd_safetensors f;
    float value;
    uint8_t *bytes = file_of(header, 16, &size), *data = bytes + size - 16;
    memcpy(data, &single, 4);
    memcpy(data + 4, halves, 4);
    memcpy(data + 8, &wide, 8);
    ND_ASSERT_OK(nd_safetensors_parse(bytes, size, "x", &f));
    ND_ASSERT_OK(nd_safetensors_floats(nd_safetensors_find(&f, "f"), 0, 1, &value));
    cr_assert(value == -1.25f);
    ND_ASSERT_OK(nd_safetensors_floats(nd_safetensors_find(&f, "b"), 0, 1, &value));
    cr_assert(value == 3.140625f);
    ND_ASSERT_OK(nd_safetensors_floats(nd_safetensors_find(&f, "h"), 0, 1, &value));
    cr_assert(value == 0.333251953125f);
    ND_ASSERT_OK(nd_safetensors_floats(nd_safetensors_find(&f, "d"), 0, 1, &value));
    cr_assert(value == 0.1f);
    nd_safetensors_free(&f);
    free(bytes);
}

Test(safetensors, what_is_written_is_read_and_a_changed_bit_is_found)
{
    char path[128], directory[64];
    size_t size;
    bool has_digest;
    nd_safetensors_writer *w;
    nd_safetensors f;
    const float values[6] = {1, 2, 3, 4, 5, 6};
    strcpy(directory, nd_test_directory());
    snprintf(path, sizeof path, "%s/a.safetensors", directory);
    ND_ASSERT_OK(nd_safetensors_writer_create(&w));
    ND_ASSERT_OK(nd_safetensors_put_text(w, "note", "a \"quoted\" text"));
    ND_ASSERT_OK(nd_safetensors_put_tensor(w, "m", false, 2, 3, false));
    ND_ASSERT_OK(nd_safetensors_writer_start(w, path));
    ND_ASSERT_OK(nd_safetensors_write(w, values, sizeof values));
    ND_ASSERT_OK(nd_safetensors_writer_finish(w));
    nd_safetensors_writer_close(w);
    char *bytes = nd_test_read_file(path, &size);
    ND_ASSERT_OK(nd_safetensors_parse(bytes, size, path, &f));
    cr_assert_eq(f.count, 1);
    cr_assert_eq(f.tensors[0].shape[0], 2);
    cr_assert_eq(f.tensors[0].shape[1], 3);
    cr_assert_eq((f.data - (const uint8_t *)bytes) % 8, 0);
    cr_assert_eq(memcmp(f.tensors[0].data, values, sizeof values), 0);
    cr_assert_str_eq(nd_safetensors_text(&f, "note"), "a \"quoted\" text");
    ND_ASSERT_OK(nd_safetensors_verify(&f, path, &has_digest));
    cr_assert(has_digest);
    bytes[size - 1] = (char)(bytes[size - 1] ^ 1);
    ND_ASSERT_FAILS(nd_safetensors_verify(&f, path, &has_digest), ND_EDATA, "damaged");
    nd_safetensors_free(&f);
    free(bytes);
    nd_test_remove_directory(directory);
}
