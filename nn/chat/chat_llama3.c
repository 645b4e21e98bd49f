/* chat_llama3.c: Llama-3's turns: a header with the role, the trimmed content, <|eot_id|>. */
#include "chat/chat_parts.h"

#include <string.h>

plx_status chat_write_llama3(FILE *out, const struct chat *chat, const struct chat_options *options,
                             struct error *err)
{
    size_t index;
    const json_t *message;
    REQUIRE(err, chat->tools == NULL, PLX_UNSUPPORTED, "llama3's chat template has no tools");
    fputs("<|begin_of_text|>", out);
    json_array_foreach(chat->messages, index, message)
    {
        const char *role = message_role(message);
        REQUIRE(err,
                strcmp(role, "tool") != 0 &&
                    json_array_size(json_object_get(message, "tool_calls")) == 0,
                PLX_UNSUPPORTED, "messages[%zu]: llama3's chat template has no tools", index);
        fprintf(out, "<|start_header_id|>%s<|end_header_id|>\n\n", role);
        bool assistant = strcmp(role, "assistant") == 0;
        if (assistant) TRY(span_open(out, options, err));
        write_slice(out, slice_trim(message_content(message)));
        fputs("<|eot_id|>", out);
        if (assistant) span_close(out, options);
    }
    if (options->answer) fputs("<|start_header_id|>assistant<|end_header_id|>\n\n", out);
    return PLX_OK;
}
