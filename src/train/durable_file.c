#include "train/durable_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_LONGEST = 4096, PART_BYTES = 1 << 20 };

nd_status nd_directory_create(const char *path)
{
    char partial[PATH_LONGEST];
    if (strlen(path) >= sizeof partial)
        return ND_FAIL(ND_EIO, "the path of a directory is longer than %zu bytes", sizeof partial);
    strcpy(partial, path);
    for (char *at = partial + 1;; at++) {
        const char saved = *at;
        if (saved != '/' && saved != '\0')
            continue;
        *at = '\0';
        if (mkdir(partial, 0777) != 0 && errno != EEXIST)
            return ND_FAIL(ND_EIO, "cannot make directory %s: %s", partial, strerror(errno));
        *at = saved;
        if (saved == '\0')
            break;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return ND_FAIL(ND_EIO, "%s exists and is not a directory", path);
    return ND_OK;
}

nd_status nd_directory_remove(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        return errno == ENOENT ? ND_OK
                               : ND_FAIL(ND_EIO, "cannot list %s: %s", path, strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
    if (rmdir(path) != 0)
        return ND_FAIL(ND_EIO, "cannot remove %s: %s", path, strerror(errno));
    return ND_OK;
}

nd_status nd_path_sync(const char *path)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return ND_FAIL(ND_EIO, "cannot open %s to sync it: %s", path, strerror(errno));
    const int failed = fsync(file);
    const int reason = errno;
    close(file);
    return failed ? ND_FAIL(ND_EIO, "cannot sync %s: %s", path, strerror(reason)) : ND_OK;
}

nd_status nd_file_write_synced(const char *path, const void *bytes, size_t size)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file < 0)
        return ND_FAIL(ND_EIO, "cannot write %s: %s", path, strerror(errno));
    const char *at = bytes;
    for (size_t left = size; left > 0;) {
        const ssize_t wrote = write(file, at, left);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0) {
            const int reason = wrote < 0 ? errno : ENOSPC;
            close(file);
            return ND_FAIL(ND_EIO, "cannot write %s: %s", path, strerror(reason));
        }
        at += wrote;
        left -= (size_t)wrote;
    }
    const int failed = fsync(file) != 0 ? errno : 0;
    if (close(file) != 0 || failed)
        return ND_FAIL(ND_EIO, "cannot finish %s: %s", path, strerror(failed ? failed : errno));
    return ND_OK;
}

nd_status nd_file_read(const char *path, char **bytes, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return ND_FAIL(ND_EIO, "cannot read %s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        fclose(file);
        return ND_FAIL(ND_EIO, "%s is not a regular file", path);
    }
    char *text = malloc((size_t)info.st_size + 1);
    const size_t got = text ? fread(text, 1, (size_t)info.st_size, file) : 0;
    fclose(file);
    if (!text)
        return ND_FAIL(ND_ENOMEM, "no memory for the %lld bytes of %s", (long long)info.st_size,
                       path);
    text[got] = '\0';
    *bytes = text;
    *size = got;
    return ND_OK;
}

nd_status nd_file_digest(const char *path, int64_t *bytes, char hex[ND_SHA256_HEX_SIZE])
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return ND_FAIL(ND_EIO, "cannot read %s: %s", path, strerror(errno));
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    unsigned char *part = malloc(PART_BYTES), digest[EVP_MAX_MD_SIZE];
    bool ok = context && part && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    *bytes = 0;
    for (size_t got; ok && (got = fread(part, 1, PART_BYTES, file)) > 0;) {
        ok = EVP_DigestUpdate(context, part, got) == 1;
        *bytes += (int64_t)got;
    }
    ok = ok && !ferror(file) && EVP_DigestFinal_ex(context, digest, NULL) == 1;
    free(part);
    EVP_MD_CTX_free(context);
    fclose(file);
    if (!ok)
        return ND_FAIL(ND_EIO, "cannot read %s to its end", path);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return ND_OK;
}

nd_status nd_link_replace(const char *directory, const char *link, const char *target)
{
    char temporary[PATH_LONGEST], final[PATH_LONGEST];
    if (snprintf(temporary, sizeof temporary, "%s/.tmp_%s", directory, link) >= PATH_LONGEST ||
        snprintf(final, sizeof final, "%s/%s", directory, link) >= PATH_LONGEST)
        return ND_FAIL(ND_EIO, "the path of %s/%s is too long", directory, link);
    unlink(temporary);
    if (symlink(target, temporary) != 0 || rename(temporary, final) != 0)
        return ND_FAIL(ND_EIO, "cannot make %s point to %s: %s", final, target, strerror(errno));
    return nd_path_sync(directory);
}
