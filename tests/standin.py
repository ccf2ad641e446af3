"""A stand-in for a CLIP on the hub: CLIP's architecture, small and randomly initialised, in the hub's format, with CLIP's real tokenizer."""

import gzip
import json
import pathlib


def clip_vocabulary():
    """CLIP's merges and ids, as openai-clip ships and builds them."""
    import clip
    from clip.simple_tokenizer import SimpleTokenizer

    file = pathlib.Path(clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.open(file).read().decode("utf8").split("\n")[1 : 49152 - 256 - 2 + 1]
    return merges, SimpleTokenizer().encoder


def save_hub_clip(folder, seed=0, width=64, image_size=64):
    """Write a small random CLIP into `folder` as transformers would: config, safetensors, tokenizer, preprocessing."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    text = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32,
            "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, "bos_token_id": 49406}
    vision = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": image_size,
              "patch_size": 16, "projection_dim": 32}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": image_size}, crop_size={"height": image_size, "width": image_size}).save_pretrained(folder)
    merges, vocabulary = clip_vocabulary()
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf8")
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf8")
    special = {"unk_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}))
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    return folder
