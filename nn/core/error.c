/* error.c: the status and the sentence of a failure; see error.h. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "data/utf8.h"

plx_status error_set(struct error *err, plx_status status, const char *format, ...)
{
    if (err == NULL || err->status != PLX_OK) return status;
    err->status = status;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    utf8_make_printable(err->text); /* names and values may come from hostile files */
    return status;
}

void error_clear(struct error *err)
{
    err->status = PLX_OK;
    err->text[0] = '\0';
}
