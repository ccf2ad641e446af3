"""A stand-in for a CLIP on the hub: CLIP's architecture, small and randomly initialised, in the hub's format, with CLIP's real tokenizer."""

import gzip
import json
import pathlib
import warnings


def clip_vocabulary():
    """CLIP's merges and ids, as openai-clip ships and builds them."""
    with warnings.catch_warnings():  # clip speaks of pkg_resources on import
        warnings.simplefilter("ignore")
        import clip
    from clip.simple_tokenizer import SimpleTokenizer

    file = pathlib.Path(clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(file).read().decode("utf8").split("\n")[1 : 49152 - 256 - 2 + 1]
    return merges, SimpleTokenizer().encoder


def save_hub_clip(folder, seed=0, width=64, image_size=64, real_shape=False):
    """Write a small random CLIP into `folder` as transformers would: config, safetensors, tokenizer, preprocessing.

    real_shape: all of ViT-B/32 instead, 151 million random weights.
    """
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    text = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32,
            "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": image_size,
              "patch_size": 16, "projection_dim": 32}
    config, image_size = (CLIPConfig(), 224) if real_shape else (CLIPConfig(text_config=text, vision_config=vision, projection_dim=32), image_size)
    config.text_config.eos_token_id, config.text_config.bos_token_id = 49407, 49406
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}).save_pretrained(folder)
    merges, vocabulary = clip_vocabulary()
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf8")
    special = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder


def openai_layout(state):
    """A CLIP state dict of transformers (names to tensors) in the layout of OpenAI's clip, which open_clip shares: ViT only."""
    import torch

    block = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj", "self_attn.out_proj": "attn.out_proj"}
    alone = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight", "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight", "text_model.final_layer_norm.bias": "ln_final.bias", "logit_scale": "logit_scale",
        "vision_model.embeddings.class_embedding": "visual.class_embedding", "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight", "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight", "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    }
    out = {theirs: state[ours] for ours, theirs in alone.items()}
    out |= {"text_projection": state["text_projection.weight"].T.contiguous(), "visual.proj": state["visual_projection.weight"].T.contiguous()}
    for side, prefix in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        depth = 1 + max(int(key.split(".")[3]) for key in state if key.startswith(f"{side}.encoder.layers."))
        for number in range(depth):
            layer, into = f"{side}.encoder.layers.{number}.", f"{prefix}.resblocks.{number}."
            for kind in ("weight", "bias"):
                out[f"{into}attn.in_proj_{kind}"] = torch.cat([state[f"{layer}self_attn.{part}_proj.{kind}"] for part in "qkv"])
                out |= {f"{into}{theirs}.{kind}": state[f"{layer}{ours}.{kind}"] for ours, theirs in block.items()}
    return out
