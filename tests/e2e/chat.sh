# Chats with a model that has a chat tokenizer: messages as an argument, as JSON, as lines; what the model is given; refusals.
source "$(dirname "$0")/common.sh"
make_text text 30
must "$parallax" tokenizer train t.json --data text --vocab-size 330 --special "<|endoftext|>" "<|im_start|>" "<|im_end|>" "<|eot_id|>"
must "$parallax" train --data text --tokenizer t.json --out run "${tiny[@]}" --context 256 --steps 4
cp -r "$(final run)" model
rm model/manifest.json
sample=("$parallax" sample model --max-tokens 8 --temperature 0 --threads 1)

# Without a template nothing is guessed.
refuses 1 'model: holds neither chat_template.jinja nor tokenizer_config.json' "${sample[@]}" --chat "hi"
echo '{"chat_template": "{{ messages }}"}' >model/tokenizer_config.json
refuses 1 "tokenizer_config.json: the chat template that begins with '\{\{ messages \}\}' is not known" "${sample[@]}" --chat "hi"
refuses 2 'the chat template "chatml" is not known' "${sample[@]}" --chat "hi" --chat-template chatml
echo '{"chat_template": "<|im_start|> ns.last_query_index reasoning_content.strip( enable_thinking is false <tool_response>"}' \
    >model/tokenizer_config.json

# What the model is given, by every road. The shell drops newlines at the end, which may be the whole answer.
turn="<|im_start|>user
hi<|im_end|>
<|im_start|>assistant"
prompt() { "${sample[@]}" --chat --echo "$@"; }
[[ "$(prompt "hi")" == "$turn"* ]] || fail "an argument: $(prompt "hi")"
[[ "$(prompt "hi" --no-think)" == "$turn
<think>

</think>"* ]] || fail "--no-think: $(prompt "hi" --no-think)"
[[ "$(prompt "hi" --system "Be brief.")" == "<|im_start|>system
Be brief.<|im_end|>
$turn"* ]] || fail "--system"
echo '[{"role": "user", "content": "hi"}]' >messages.json
[[ "$(prompt --file messages.json)" == "$turn"* ]] || fail "a file"
[[ "$(prompt - <messages.json)" == "$turn"* ]] || fail "standard input"
echo '{"messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "f"}]}' >tools.json
[[ "$(prompt --file tools.json)" == *"
<tools>
{\"name\": \"f\"}
</tools>"* ]] || fail "tools"
[[ "$(prompt "hi" --chat-template llama3)" == "<|begin_of_text|><|start_header_id|>user"* ]] || fail "--chat-template llama3"

# Lines are turns of one chat: the second prompt holds the first answer.
first=$(printf 'hi\n' | "${sample[@]}" --turns)
both=$(printf 'hi\n\nmore\n' | "${sample[@]}" --turns --echo)
[[ "$both" == "$turn
$first"* ]] || fail "the first turn: $both"
[[ "$both" == *"<|im_end|>
<|im_start|>user
more<|im_end|>
<|im_start|>assistant"* ]] || fail "the second turn: $both"

# Refusals.
echo '[{"role": "human", "content": "hi"}]' >bad.json
refuses 1 'bad.json: messages\[0\].role is human' "${sample[@]}" --chat --file bad.json
refuses 1 'standard input: line 1, column ' "${sample[@]}" --chat -
refuses 2 '--system: messages in JSON hold their own' "${sample[@]}" --chat --file messages.json --system "x"
refuses 2 '--turns: reads standard input' "${sample[@]}" --turns "hi"
refuses 1 'absent.json' "${sample[@]}" --chat --file absent.json
must "$parallax" tokenizer train model/tokenizer.json --data text --vocab-size 320
refuses 1 'model: the tokenizer has no token <\|im_end\|>, which ends the turns of qwen3' "${sample[@]}" --chat "hi"
