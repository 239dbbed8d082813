"""Tiny vision-language models, built from a configuration and saved like those of a model hub."""

import json
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
)

# A chat template like those of published models.
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}%IMAGE%{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# The last byte of a rendered TEMPLATE; the answer follows it.
END_OF_QUESTION = ":"
PATCH = 14
# An answer in the requested format.
ANSWER = json.dumps(
    {
        "Location": "middle left",
        "Boundary": "smooth and well-defined",
        "Characteristics": "round, homogeneous, brighter than the surroundings",
        "Area Percentage": 12,
        "Confidence": "high",
        "Remarks": "It lies at the left. Nothing else.",
    }
)


def _tokenizer(
    *special_tokens: str, answer: str | None = None, adds_bos: bool = True, **named_tokens: str
) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one token per byte, and one for the `answer`.

    `named_tokens` are special tokens that also have a name. With `adds_bos`, <s> begins each text,
    as for Llama.
    """
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet())]
    if answer is not None:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        ((answer_token, _),) = byte_level.pre_tokenize_str(answer)
        alphabet.append(answer_token)
    backend = Tokenizer(models.BPE({text: i for i, text in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokens = ["<s>", "</s>", "<pad>", *special_tokens, *named_tokens.values()]
    backend.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    if adds_bos:
        special = [("<s>", backend.token_to_id("<s>"))]
        backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={f"{name}_token": token for name, token in named_tokens.items()},
        additional_special_tokens=list(special_tokens),
    )


def _text_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16384,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


_VISION_CONFIG = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 4 * PATCH,
    "patch_size": PATCH,
}


def _randomise_weights(model: torch.nn.Module, seed: int) -> None:
    """Draw weights so large that image and question change the answer."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            scale = 1.0 if "embed" in name else 2 / weight[0].numel() ** 0.5
            weight.data.normal_(0, scale, generator=generator)


def _always_answer(model: LlavaForConditionalGeneration, answer: int, start: int) -> None:
    """Make the model write token `answer` after `start`, then the end, whatever the input is."""
    layers = model.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    # If layers add nothing, the logits of a token depend only on its own embedding.
    embedding = model.get_input_embeddings().weight.data
    head = model.get_output_embeddings().weight.data
    embedding.zero_()
    head.zero_()
    embedding[start, 0] = embedding[answer, 1] = 1
    embedding[:, 2] = 1
    # So far above the others that sampling at any temperature also takes them.
    head[answer, 0] = head[model.config.text_config.eos_token_id, 1] = 1000


def write_vlm(folder: Path, answer: str | None = None, seed: int = 0) -> Path:
    """Write a LLaVA (CLIP and Llama) of 0.2 MB with a chat template.

    Its weights are random, so its answers are nonsense; with an `answer` it gives this answer to
    every question.
    """
    tokenizer = _tokenizer("<image>", answer=answer)
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16, **_VISION_CONFIG},
        text_config={"model_type": "llama", **_text_config(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=16,
    )
    model = LlavaForConditionalGeneration(config)
    _randomise_weights(model, seed)
    if answer is not None:
        # In the vocabulary, the answer follows the 256 bytes.
        _always_answer(model, 256, tokenizer.convert_tokens_to_ids(END_OF_QUESTION))
    side = {"height": 4 * PATCH, "width": 4 * PATCH}
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 4 * PATCH}, crop_size=side),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("%IMAGE%", "<image>"),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_qwen(folder: Path, seed: int = 0) -> Path:
    """Write a Qwen2.5-VL, which keeps the size of pictures and has positions with three axes."""
    named_tokens = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
    tokenizer = _tokenizer("<|vision_start|>", "<|vision_end|>", **named_tokens)
    ids = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "patch_size": PATCH,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config=_text_config(tokenizer)
        | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}},
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    _randomise_weights(model, seed)
    size = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size, patch_size=PATCH),
        tokenizer,
        Qwen2VLVideoProcessor(size=size, patch_size=PATCH),
        chat_template=TEMPLATE.replace("%IMAGE%", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_paligemma(folder: Path, seed: int = 0) -> Path:
    """Write a PaliGemma (SigLIP and Gemma), which has no chat template."""
    tokenizer = _tokenizer(adds_bos=False, image="<image>")
    processor = PaliGemmaProcessor(
        SiglipImageProcessor(size={"height": 4 * PATCH, "width": 4 * PATCH}, image_seq_length=16),
        tokenizer,
    )
    config = PaliGemmaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "vision_use_head": False,
            **_VISION_CONFIG,
        },
        text_config={"model_type": "gemma", "head_dim": 8, **_text_config(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )
    model = PaliGemmaForConditionalGeneration(config)
    _randomise_weights(model, seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def edit_json(file: Path, **changes: object) -> None:
    """Set entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")
