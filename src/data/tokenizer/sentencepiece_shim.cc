#include "data/tokenizer/sentencepiece_shim.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <sentencepiece_trainer.h>
#include <string>
#include <unordered_map>

namespace
{

// Pulls sentences from C. SentencePiece asks for value() before the first Next().
class callback_iterator final : public sentencepiece::SentenceIterator
{
  public:
    callback_iterator(nd_sentencepiece_next next, void *context) : next_(next), context_(context)
    {
        Next();
    }
    bool done() const override { return done_; }
    void Next() override
    {
        const char *text = nullptr;
        size_t bytes = 0;
        const int got = next_(context_, &text, &bytes);
        done_ = got <= 0;
        failed_ = got < 0;
        if (!done_)
            value_.assign(text, bytes);
    }
    const std::string &value() const override { return value_; }
    sentencepiece::util::Status status() const override
    {
        if (failed_)
            return sentencepiece::util::Status(sentencepiece::util::StatusCode::kAborted,
                                               "the text could not be read");
        return sentencepiece::util::Status();
    }

  private:
    nd_sentencepiece_next next_;
    void *context_;
    std::string value_;
    bool done_ = false;
    bool failed_ = false;
};

int fail(char *message, size_t message_size, const char *reason)
{
    std::snprintf(message, message_size, "%s", reason);
    return ND_SENTENCEPIECE_FAILED;
}

} // namespace

extern "C" int nd_sentencepiece_train(int vocab_size, int threads, uint32_t seed,
                                      nd_sentencepiece_next next, void *context, void **model,
                                      size_t *model_bytes, char *message, size_t message_size)
{
    try {
        const std::unordered_map<std::string, std::string> options = {
            {"minloglevel", "4"},
            {"model_type", "bpe"},
            {"vocab_size", std::to_string(vocab_size)},
            {"num_threads", std::to_string(threads)},
            {"byte_fallback", "true"},
            {"normalization_rule_name", "identity"},
            {"add_dummy_prefix", "false"},
            {"remove_extra_whitespaces", "false"},
            {"allow_whitespace_only_pieces", "true"},
            {"split_digits", "true"},
            {"character_coverage", "0.9995"},
            {"max_sentence_length", "65536"},
            {"unk_id", "0"},
            {"bos_id", "1"},
            {"eos_id", "2"},
            {"pad_id", "-1"},
        };
        sentencepiece::SetRandomGeneratorSeed(seed);
        callback_iterator sentences(next, context);
        std::string bytes;
        const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &bytes);
        if (!status.ok())
            return fail(message, message_size, status.error_message());
        *model = std::malloc(bytes.size());
        if (*model == nullptr)
            return ND_SENTENCEPIECE_NO_MEMORY;
        std::memcpy(*model, bytes.data(), bytes.size());
        *model_bytes = bytes.size();
        return 0;
    } catch (const std::bad_alloc &) {
        return ND_SENTENCEPIECE_NO_MEMORY;
    } catch (const std::exception &exception) {
        return fail(message, message_size, exception.what());
    } catch (...) {
        return fail(message, message_size, "unknown exception");
    }
}
