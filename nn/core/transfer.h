/* transfer.h: dense tensors in a device's memory, written and read by the host: whole, or in pieces
 * through one buffer of bounded size.
 *
 * What draws start values or reads and writes files is handed host memory and knows no device. The
 * calls go through on the CPU too, so that its bits are those of every device. */
#ifndef NN_TRANSFER_H
#define NN_TRANSFER_H

#include "core/device.h"

/* All of a tensor, to or from as many elements of its dtype on the host. */
plx_status transfer_upload(const struct device *device, plx_stream stream,
                           const struct plx_tensor *tensor, const void *host, struct error *err);
plx_status transfer_download(const struct device *device, plx_stream stream,
                             const struct plx_tensor *tensor, void *host, struct error *err);

/* Elements first .. first + count - 1 of a tensor, in host memory: to be filled, or to be read. */
typedef plx_status (*transfer_piece)(void *user, void *elements, int64_t first, int64_t count,
                                     struct error *err);
/* Fills a tensor piece by piece, from the first element to the last. */
plx_status transfer_write(const struct device *device, plx_stream stream,
                          const struct plx_tensor *tensor, transfer_piece fill, void *user,
                          struct error *err);
/* Shows a tensor piece by piece, from the first element to the last. */
plx_status transfer_read(const struct device *device, plx_stream stream,
                         const struct plx_tensor *tensor, transfer_piece show, void *user,
                         struct error *err);

#endif
