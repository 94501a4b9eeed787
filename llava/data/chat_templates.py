"""The jinja sources of the templates; `llava/data/templates.py` says what each means, tests hold the two together.

Each is appended to FLATTEN, which turns texts, and lists of image and text items, into one string by the rule of
`set_apart`. A message of role `system` at the front replaces SYSTEM_TEXT.
"""

FLATTEN = """\
{%- set flat = namespace(messages=[], parts=[], text='') -%}
{%- for message in messages -%}
{%- set flat.text = '' -%}
{%- if message['content'] is string -%}
{%- set flat.parts = [message['content']] -%}
{%- else -%}
{%- set flat.parts = [] -%}
{%- for item in message['content'] -%}
{%- set flat.parts = flat.parts + ['<image>' if item['type'] == 'image' else item['text']] -%}
{%- endfor -%}
{%- endif -%}
{%- for part in flat.parts -%}
{%- for words in part.split('<image>') -%}
{%- for piece in ([words] if loop.first else ['<image>', words]) -%}
{%- if piece -%}
{%- set apart = flat.text and flat.text[-1] == flat.text[-1] | trim and piece[0] == piece[0] | trim -%}
{%- set touches = piece == '<image>' or flat.text[-7:] == '<image>' -%}
{%- set flat.text = flat.text + ('\\n' if apart and touches else '') + piece -%}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- endfor -%}
{%- set flat.text = flat.text | trim -%}
{%- set flat.messages = flat.messages + [{'role': message['role'], 'content': flat.text}] -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""

_SYSTEM = """\
{%- set system = 'SYSTEM_TEXT' -%}
{%- if messages and messages[0]['role'] == 'system' -%}
{%- set system = messages[0]['content'] -%}
{%- set messages = messages[1:] -%}
{%- endif -%}
"""

PLAIN = """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- '<image>' * (message['content'].split('<image>') | length - 1) -}}
{%- elif message['role'] == 'assistant' -%}
{{- message['content'] + '\\n' -}}
{%- endif -%}
{%- endfor -%}
"""

V0 = (
    _SYSTEM
    + """\
{{- system + '###' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- 'Human: ' + message['content'] + '###' -}}
{%- if not loop.last or add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
{%- else -%}
{{- ' ' + message['content'] + '###' -}}
{%- endif -%}
{%- endfor -%}
"""
)

V1 = (
    _SYSTEM
    + """\
{{- system + ' ' -}}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{{- 'USER: ' + message['content'] -}}
{%- if not loop.last or add_generation_prompt -%}{{- ' ASSISTANT:' -}}{%- endif -%}
{%- else -%}
{{- ' ' + message['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""
)

LLAMA_2 = (
    _SYSTEM
    + """\
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}
{%- if loop.first -%}
{{- '[INST] <<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] + ' [/INST]' -}}
{%- else -%}
{{- bos_token + '[INST] ' + message['content'] + ' [/INST]' -}}
{%- endif -%}
{%- else -%}
{{- ' ' + message['content'] + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""
)

MISTRAL = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- raise_exception('mistral_instruct has no system message') -}}
{%- elif message['role'] == 'user' -%}
{{- '[INST] ' + message['content'] + ' [/INST]' -}}
{%- else -%}
{{- ' ' + message['content'] + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""

CHATML = (
    _SYSTEM
    + """\
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' -}}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
)

LLAMA_3 = (
    _SYSTEM
    + """\
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
)

NO_THOUGHT = "<think>\n\n</think>\n\n"

# `enable_thinking=True` leaves the empty thought out of the prompt, as Qwen's own template does; training never did.
QWEN_3 = """\
{%- set no_thought = '<think>\\n\\n</think>\\n\\n' -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['role'] == 'assistant' -%}{{- no_thought -}}{%- endif -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if not (enable_thinking is defined and enable_thinking) -%}{{- no_thought -}}{%- endif -%}
{%- endif -%}
"""
