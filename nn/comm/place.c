/* place.c: see place.h. */
#include "comm/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* A whole number of the environment. */
static plx_status read_number(const char *name, long smallest, long largest, int *value,
                              struct error *err)
{
    const char *text = getenv(name);
    char *end = NULL;
    REQUIRE(err, text != NULL, PLX_INVALID_ARGUMENT,
            "%s: is not set, though this process is one of several ranks (RANK or WORLD_SIZE is)",
            name);
    errno = 0;
    long number = strtol(text, &end, 10);
    REQUIRE(err, end != text && *end == 0 && errno == 0 && number >= smallest && number <= largest,
            PLX_INVALID_ARGUMENT, "%s: \"%.64s\" is not a number from %ld to %ld", name, text,
            smallest, largest);
    *value = (int)number;
    return PLX_OK;
}

static plx_status read_address(struct place *place, struct error *err)
{
    const char *text = getenv("MASTER_ADDR");
    REQUIRE(err, text != NULL && text[0] != 0, PLX_INVALID_ARGUMENT,
            "MASTER_ADDR: is not set, though WORLD_SIZE is %d", place->size);
    REQUIRE(err, strlen(text) < sizeof place->address, PLX_INVALID_ARGUMENT,
            "MASTER_ADDR: has %zu characters, more than the %zu allowed", strlen(text),
            sizeof place->address - 1);
    snprintf(place->address, sizeof place->address, "%s", text);
    return read_number("MASTER_PORT", 1, 65535, &place->port, err);
}

/* Where torchrun keeps a store of its own at MASTER_PORT, the ranks meet at the next port. */
static plx_status leave_port_to_torchrun(struct place *place, struct error *err)
{
    const char *store = getenv("TORCHELASTIC_USE_AGENT_STORE");
    if (store == NULL || strcmp(store, "True") != 0) return PLX_OK;
    REQUIRE(err, place->port < 65535, PLX_INVALID_ARGUMENT,
            "MASTER_PORT: %d is torchrun's own, and there is no next one", place->port);
    place->port++;
    return PLX_OK;
}

plx_status place_launched(int *listener, int *report, struct error *err)
{
    const char *text = getenv(PLACE_LAUNCHED);
    char rest;
    *listener = *report = -1;
    if (text == NULL) return PLX_OK;
    bool good = sscanf(text, "%d,%d%c", listener, report, &rest) == 2 && *report >= 0;
    if (!good) *listener = *report = -1;
    REQUIRE(err, good, PLX_INVALID_ARGUMENT, "%s: \"%.64s\" is not what --gpus sets",
            PLACE_LAUNCHED, text);
    return PLX_OK;
}

plx_status place_read(struct place *place, struct error *err)
{
    *place = (struct place){.size = 1, .listener = -1};
    if (getenv("RANK") == NULL && getenv("WORLD_SIZE") == NULL) return PLX_OK;
    struct place read = *place;
    TRY(read_number("WORLD_SIZE", 1, PLACE_SIZE_MAX, &read.size, err));
    TRY(read_number("RANK", 0, read.size - 1, &read.rank, err));
    TRY(read_number("LOCAL_RANK", 0, read.size - 1, &read.local_rank, err));
    if (read.size == 1) return PLX_OK;
    TRY(read_address(&read, err));
    TRY(leave_port_to_torchrun(&read, err));
    int report;
    TRY(place_launched(&read.listener, &report, err));
    const char *job = getenv("PARALLAX_JOB");
    if (job != NULL) read.job = XXH64(job, strlen(job), 0);
    *place = read;
    return PLX_OK;
}
