"""GGUF weights, as llama.cpp and its kin use them, as a hub directory that can be trained.

transformers reads the file and dequantises every tensor; what it then holds is an ordinary model that still says it is
quantised, and as such can be neither saved nor trained. That mark is taken off here. Weights that were quantised to 4
bits stay what 4 bits left of them: good enough to train on from there, not the model that was published.
"""

from __future__ import annotations

from llava import extras, storage
from llava.errors import SettingsError

_MAGIC = b"GGUF"


def write_dequantised(file: str, out: str) -> int:
    """Write a GGUF file's model and tokenizer as a hub directory; returns the number of parameters.

    Args:
        file: a local `.gguf` file of a supported family.
        out: directory to write.

    Raises:
        SettingsError: no GGUF file, of a family that is not supported, without a tokenizer, or `gguf` is missing.
    """
    path = storage.local_path(file)
    if not path.is_file():
        raise SettingsError(f"file: {file}: no such file; expected a .gguf file on this machine")
    with path.open("rb") as opened:
        if opened.read(4) != _MAGIC:
            raise SettingsError(f"file: {file}: not a GGUF file (it does not begin with GGUF)")
    extras.require("llava gguf", "gguf", ["gguf", "torch", "transformers"])
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from llava.model import families

    folder, name = str(path.absolute().parent), path.name
    try:
        families.check(AutoConfig.from_pretrained(folder, gguf_file=name), file)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name)
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise SettingsError(f"file: {file}: cannot be read as GGUF: {error}") from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.config._name_or_path = ""
    target = storage.local_path(out)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for written in target.iterdir():
        written.chmod(0o644)  # safetensors makes its files unreadable to others
    return sum(parameter.numel() for parameter in model.parameters())
