/* modeling.h: the code that transformers loads for model folders of our own type, as a text that is
 * part of the program; its source is modeling_qwen3_parallax.py. */
#ifndef NN_MODELING_H
#define NN_MODELING_H

#include "modeling_text.h" /* generated: static const char modeling_text[] */

#define MODELING_MODULE "modeling_qwen3_parallax"

#endif
