/* transfer.c: the loops of transfer.h. A piece is large against the cost of a call to the device
 * and small against its tensor. */
#include "core/transfer.h"

#include <stdlib.h>

enum { PIECE_BYTES = 4 << 20 };

static size_t bytes_of(const struct plx_tensor *tensor)
{
    return (size_t)plx_tensor_count(tensor) * plx_dtype_size(tensor->dtype);
}

plx_status transfer_upload(const struct device *device, plx_stream stream,
                           const struct plx_tensor *tensor, const void *host, struct error *err)
{
    return device->upload(tensor->data, host, bytes_of(tensor), stream, err);
}

plx_status transfer_download(const struct device *device, plx_stream stream,
                             const struct plx_tensor *tensor, void *host, struct error *err)
{
    return device->download(host, tensor->data, bytes_of(tensor), stream, err);
}

/* A buffer for the pieces of a tensor, and the elements of one. */
static plx_status make_buffer(const struct plx_tensor *tensor, void **buffer, int64_t *most,
                              struct error *err)
{
    const size_t width = plx_dtype_size(tensor->dtype);
    const int64_t total = plx_tensor_count(tensor);
    *most = (int64_t)(PIECE_BYTES / width);
    if (*most > total) *most = total;
    *buffer = malloc((size_t)*most * width + 1);
    REQUIRE(err, *buffer != NULL, PLX_OUT_OF_MEMORY, "no memory to move %lld values of a tensor",
            (long long)*most);
    return PLX_OK;
}

/* Piece by piece: from the device before `piece` is called, or to it behind that. */
static plx_status move(const struct device *device, plx_stream stream,
                       const struct plx_tensor *tensor, bool write, transfer_piece piece,
                       void *user, struct error *err)
{
    const size_t width = plx_dtype_size(tensor->dtype);
    const int64_t total = plx_tensor_count(tensor);
    void *buffer;
    int64_t most;
    TRY(make_buffer(tensor, &buffer, &most, err));
    plx_status status = PLX_OK;
    for (int64_t first = 0; status == PLX_OK && first < total; first += most) {
        const int64_t count = total - first < most ? total - first : most;
        const size_t bytes = (size_t)count * width;
        char *place = (char *)tensor->data + (size_t)first * width;
        if (!write) status = device->download(buffer, place, bytes, stream, err);
        if (status == PLX_OK) status = piece(user, buffer, first, count, err);
        if (status == PLX_OK && write) status = device->upload(place, buffer, bytes, stream, err);
    }
    free(buffer);
    return status;
}

plx_status transfer_write(const struct device *device, plx_stream stream,
                          const struct plx_tensor *tensor, transfer_piece fill, void *user,
                          struct error *err)
{
    return move(device, stream, tensor, true, fill, user, err);
}

plx_status transfer_read(const struct device *device, plx_stream stream,
                         const struct plx_tensor *tensor, transfer_piece show, void *user,
                         struct error *err)
{
    return move(device, stream, tensor, false, show, user, err);
}
