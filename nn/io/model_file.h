/* model_file.h: a model folder: config.json, model.safetensors, tokenizer.json, shaped as Hugging
 * Face does.
 *
 * Reads model_type qwen3, qwen2, llama, mistral, parallax (flash-linear-attention) and
 * qwen3_parallax (ours), and writes a model in its own family's layout where that can say it. */
#ifndef NN_MODEL_FILE_H
#define NN_MODEL_FILE_H

#include "data/data.h"
#include "model.h"

/* config.json; name is for messages. */
plx_status model_config_parse(const char *json, size_t size, const char *name,
                              struct model_config *config, struct error *err);
plx_status model_config_load(const char *path, struct model_config *config, struct error *err);
/* The family whose layout model_config_format writes; and whether a family's layout can say the
 * model, PLX_UNSUPPORTED with the reason if not. */
enum model_family model_config_family(const struct model_config *config);
plx_status model_config_can_be(const struct model_config *config, enum model_family family,
                               struct error *err);
/* FOLDER/config.json. */
plx_status model_folder_config(const char *folder, struct model_config *config, struct error *err);
/* malloc'd JSON text of a config. */
plx_status model_config_format(const struct model_config *config, char **json, struct error *err);

/* FOLDER itself where it holds config.json; otherwise the newest sound checkpoint of a run folder.
 * path has room for size bytes. */
plx_status model_folder_find(const char *folder, char *path, size_t size, struct error *err);
/* The same; note hears one sentence for each damaged or unfinished checkpoint that was passed over.
 */
plx_status model_folder_find_noting(const char *folder, char *path, size_t size,
                                    void (*note)(void *user, const char *sentence), void *user,
                                    struct error *err);
struct weights;
/* Every parameter (those of adapters where they are wanted) is there in its shape, and nothing else
 * is but what model_load_values ignores. */
plx_status model_check_weights(struct param_list *params, const struct weights *weights,
                               bool adapters, struct error *err);
/* Values of every parameter from FOLDER/model.safetensors (or its shards by index.json). Missing,
 * surplus and misshapen tensors are errors that name the tensor and both shapes; a redundant
 * lm_head of a tied model is checked equal and ignored. */
plx_status model_load_values(struct model *model, const char *folder, struct error *err);
/* The same from a folder of the model without its adapters, which take their start values. */
plx_status model_load_adapted(struct model *model, const char *folder, uint64_t seed,
                              struct error *err);
/* Reads config, creates the model on be and loads it. */
plx_status model_open(struct backend *be, const char *folder, struct model **model,
                      struct error *err);
/* Writes config.json, model.safetensors (dtype f32, bf16 or f64) and tokenizer.json (tokenizer may
 * be NULL) into an existing folder, each file atomically; callers make the whole so. */
plx_status model_save(struct model *model, const struct tokenizer *tokenizer, const char *folder,
                      plx_dtype dtype, struct error *err);

#endif
