#include "data/sentencepiece_encode.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <sentencepiece_processor.h>
#include <vector>

static int fail(char *message, size_t message_size, const char *reason)
{
    std::snprintf(message, message_size, "%s", reason);
    return -1;
}

extern "C" int nd_sentencepiece_encode(const void *model, size_t model_bytes, const char *text,
                                       size_t bytes, int32_t **ids, size_t *count, char *message,
                                       size_t message_size)
{
    try {
        sentencepiece::SentencePieceProcessor processor;
        const auto loaded = processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(model), model_bytes));
        if (!loaded.ok())
            return fail(message, message_size, loaded.error_message());
        std::vector<int> result;
        const auto encoded = processor.Encode(absl::string_view(text, bytes), &result);
        if (!encoded.ok())
            return fail(message, message_size, encoded.error_message());
        *ids = static_cast<int32_t *>(std::malloc((result.size() + 1) * sizeof(int32_t)));
        if (*ids == nullptr)
            return fail(message, message_size, "out of memory");
        for (size_t i = 0; i < result.size(); i++)
            (*ids)[i] = result[i];
        *count = result.size();
        return 0;
    } catch (const std::exception &exception) {
        return fail(message, message_size, exception.what());
    } catch (...) {
        return fail(message, message_size, "unknown exception");
    }
}
