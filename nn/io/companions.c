/* companions.c: see companions.h. They are read into memory, because the folder that a run began
 * with may be gone by its next checkpoint. */
#include "io/companions.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"

enum { PATH_SIZE = 4096, MAX_BYTES = 16 << 20 };

static const char *const names[COMPANIONS] = {"tokenizer_config.json", "special_tokens_map.json",
                                              "added_tokens.json",     "chat_template.jinja",
                                              "chat_template.json",    "generation_config.json"};

const char *companion_name(int index)
{
    return names[index];
}

static plx_status join(const char *folder, const char *name, char path[PATH_SIZE],
                       struct error *err)
{
    int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
    REQUIRE(err, length >= 0 && length < PATH_SIZE, PLX_INVALID_ARGUMENT,
            "%.200s...: the path is too long", folder);
    return PLX_OK;
}

static plx_status read_files(const char *folder, struct companions *companions, struct error *err)
{
    for (int i = 0; i < COMPANIONS; i++) {
        char path[PATH_SIZE];
        struct companion *file = &companions->files[i];
        TRY(join(folder, names[i], path, err));
        if (file_exists(path)) TRY(file_read_all(path, MAX_BYTES, &file->text, &file->size, err));
    }
    return PLX_OK;
}

plx_status companions_read(const char *folder, struct companions *companions, struct error *err)
{
    *companions = (struct companions){0};
    plx_status status = read_files(folder, companions, err);
    if (status != PLX_OK) companions_clear(companions);
    return status;
}

plx_status companions_write(const struct companions *companions, const char *folder,
                            struct error *err)
{
    for (int i = 0; i < COMPANIONS; i++) {
        char path[PATH_SIZE];
        const struct companion *file = &companions->files[i];
        if (file->text == NULL) continue;
        TRY(join(folder, names[i], path, err));
        TRY(file_replace(path, file->text, file->size, err));
    }
    return PLX_OK;
}

void companions_clear(struct companions *companions)
{
    for (int i = 0; i < COMPANIONS; i++) free(companions->files[i].text);
    *companions = (struct companions){0};
}
