#include "train/checkpoint/manifest_identity.h"

#include <stdlib.h>
#include <string.h>

typedef struct text_key {
    const char *name;
    size_t offset, size;
} text_key;

#define KEY(name, member)                                                                          \
    {                                                                                              \
        name, offsetof(nd_identity, member), sizeof((nd_identity *)NULL)->member                   \
    }
static const text_key text_keys[] = {
    KEY("run_id", run_id),           KEY("config_sha256", config_sha256),
    KEY("data_sha256", data_sha256), KEY("version", version),
    KEY("commit", commit),           KEY("host", host),
    KEY("launcher", launcher),       KEY("build", build),
    KEY("libraries", libraries)};
enum { TEXT_KEYS = sizeof text_keys / sizeof *text_keys };

/* One string per line, for comparison by people. NULL without memory. */
static json_t *lines_json(const char *text)
{
    json_t *lines = json_array();
    for (size_t length; *text; text += length + (text[length] == '\n')) {
        length = strcspn(text, "\n");
        if (json_array_append_new(lines, json_stringn(text, length)) != 0) {
            json_decref(lines);
            return NULL;
        }
    }
    return lines;
}

bool nd_manifest_add_identity(json_t *root, const nd_identity *identity)
{
    for (int i = 0; i < TEXT_KEYS; i++) {
        const char *text = (const char *)identity + text_keys[i].offset;
        if (text[0] && json_object_set_new(root, text_keys[i].name, json_string(text)) != 0)
            return false;
    }
    return !identity->data || json_object_set_new(root, "data", lines_json(identity->data)) == 0;
}

static nd_status parse_lines(const json_t *lines, const char *path, char **text)
{
    size_t i, total = 1;
    json_t *item;
    json_array_foreach(lines, i, item)
    {
        ND_FAIL_IF(!json_is_string(item), ND_ECHECKPOINT,
                   "%s: entry %zu of \"data\" is not a string", path, i);
        total += json_string_length(item) + 1;
    }
    char *at = *text = malloc(total);
    ND_FAIL_IF(!at, ND_ENOMEM, "no memory for the manifest %s", path);
    json_array_foreach(lines, i, item)
    {
        at = stpcpy(at, json_string_value(item));
        *at++ = '\n';
    }
    *at = '\0';
    return ND_OK;
}

nd_status nd_manifest_parse_identity(const json_t *root, const char *path, nd_identity *identity)
{
    const json_t *data = json_object_get(root, "data");
    for (int i = 0; i < TEXT_KEYS; i++) {
        const json_t *value = json_object_get(root, text_keys[i].name);
        if (!value)
            continue;
        ND_FAIL_IF(!json_is_string(value) || json_string_length(value) >= text_keys[i].size,
                   ND_ECHECKPOINT, "%s: \"%s\" is malformed", path, text_keys[i].name);
        strcpy((char *)identity + text_keys[i].offset, json_string_value(value));
    }
    if (!data)
        return ND_OK;
    ND_FAIL_IF(!json_is_array(data), ND_ECHECKPOINT, "%s: \"data\" is not a list", path);
    return parse_lines(data, path, &identity->data);
}
