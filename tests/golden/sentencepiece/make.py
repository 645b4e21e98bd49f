# Makes the models and cases of this folder with SentencePiece's own trainer and encoder.
# usage: python3 make.py REPOSITORY (needs the package sentencepiece; 0.2.3 made what is here)
import json
import os
import random
import sys
from pathlib import Path

import sentencepiece

SOURCES = ["README.md", "CONTRIBUTING.md", "docs/conventions.md", "lib/parallax/NOTES.md", "nn/ops/NOTES.md"]
MODELS = {
    # as Llama-2's: byte fallback, spaces kept, a space before the text
    "llama": dict(model_type="bpe", vocab_size=900, byte_fallback=True, remove_extra_whitespaces=False,
                  allow_whitespace_only_pieces=True, split_digits=True),
    "plain": dict(model_type="bpe", vocab_size=700, character_coverage=0.99, user_defined_symbols=["<sep>", "ab"]),
    "unigram": dict(model_type="unigram", vocab_size=500, character_coverage=0.995),
    "unigram_bytes": dict(model_type="unigram", vocab_size=700, byte_fallback=True, add_dummy_prefix=False,
                          remove_extra_whitespaces=False),
}
WORDS = ["  ", " ", "the", "a", "<s>", "</s>", "<sep>", "ab", "\u2581", "\n", "\t", "123", "\u00e9", "\u3000", "<unk>",
         "<0x41>"]
EDGES = ["", "  ", " a", "a ", "a  b", "hello world", "\u2581a", "\u3000"]


def sample(chance, text):
    if chance.random() < 0.5:
        start = chance.randrange(len(text) - 200)
        return text[start : start + chance.randrange(1, 120)]
    made = ""
    for _ in range(chance.randrange(30)):
        kind = chance.random()
        if kind < 0.3:
            made += chance.choice(WORDS)
        elif kind < 0.8:
            made += chr(chance.randrange(0x20, 0x7F))
        elif kind < 0.95:
            made += chr(chance.randrange(0xA0, 0x3000))
        else:
            made += chr(chance.randrange(0x1F300, 0x1F700))
    return made


text = "".join((Path(sys.argv[1]) / source).read_text(encoding="utf8") for source in SOURCES)
os.chdir(Path(__file__).parent)  # a model keeps the names that it was trained with
corpus = Path("corpus.txt")
corpus.write_text(text, encoding="utf8")
chance = random.Random(1)
for name, options in MODELS.items():
    prefix = Path(name)
    sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(prefix), minloglevel=2, num_threads=1,
                                             normalization_rule_name="identity", max_sentence_length=20000, **options)
    prefix.with_suffix(".vocab").unlink()
    model = sentencepiece.SentencePieceProcessor(model_file=str(prefix.with_suffix(".model")))
    with open(prefix.with_suffix(".cases.jsonl"), "w", encoding="utf8") as file:
        for case in EDGES + [sample(chance, text) for _ in range(90)]:
            ids = model.encode(case)
            file.write(json.dumps({"text": case, "ids": ids, "decoded": model.decode(ids)}) + "\n")
corpus.unlink()
