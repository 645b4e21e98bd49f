/* fuzz_chat.c: any bytes as messages, and as a template. What is accepted must render to the same
 * text twice, or be refused with a sentence. */
#include "chat/chat.h"
#include "fuzz.h"

static void render(const struct chat *chat, const char *name, bool thinking, bool answer)
{
    const struct chat_template *family;
    struct chat_options options = {.thinking = thinking, .answer = answer};
    struct error err = {0};
    char *texts[2] = {NULL, NULL};
    size_t sizes[2];
    check(chat_template_by_name(name, &family, &err) == PLX_OK);
    for (int i = 0; i < 2; i++) {
        plx_status status = chat_render(family, chat, &options, &texts[i], &sizes[i], &err);
        check((status == PLX_OK) == (texts[i] != NULL));
        check((status == PLX_OK) == (err.text[0] == '\0'));
    }
    if (texts[0] != NULL) {
        check(sizes[0] == sizes[1] && strlen(texts[0]) == sizes[0]);
        check(strcmp(texts[0], texts[1]) == 0);
    }
    free(texts[0]);
    free(texts[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct chat chat;
    plx_status status = chat_parse((const char *)data, size, "fuzz", &chat, &err);
    check_outcome(status, &err);
    if (status == PLX_OK) {
        render(&chat, "qwen3", true, true);
        render(&chat, "qwen3", false, true);
        render(&chat, "qwen3", true, false);
        render(&chat, "llama3", true, true);
    }
    chat_clear(&chat);
    /* As a template's text it must be recognised or refused, and never read beyond its end. */
    char *text = malloc(size + 1);
    const struct chat_template *family;
    check(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    check((chat_template_by_text(text, "fuzz", &family, NULL) == PLX_OK) == (family != NULL));
    free(text);
    return 0;
}
