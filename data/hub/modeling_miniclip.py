"""A MiniCLIP model for transformers: EfficientNet-Lite sees the pictures, MiniLM reads the texts, two heads bring both into one space.

AutoModel.from_pretrained(FOLDER, trust_remote_code=True). Needs torch, transformers and timm.
"""

import timm
import torch
from torch import nn
from transformers import BertConfig, BertModel, PretrainedConfig, PreTrainedModel
from transformers.models.clip.modeling_clip import CLIPOutput

from .parts_miniclip import build_head, features


class MiniCLIPConfig(PretrainedConfig):
    """image_networks: [{"name" in timm, "views": how many pictures it looks at}]. apart: the first view and the mean of all, side by side. text_network: BERT's sizes."""

    model_type = "miniclip"

    def __init__(self, image_networks=(), apart=False, text_network=None, image_head=None, text_head=None, **rest):
        super().__init__(**rest)
        self.image_networks, self.apart, self.text_network = list(image_networks), apart, text_network
        self.image_head, self.text_head = image_head, text_head


class MiniCLIPModel(PreTrainedModel):
    config_class = MiniCLIPConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.image_networks = nn.ModuleList(timm.create_model(network["name"]) for network in config.image_networks)
        self.text_network = BertModel(BertConfig(**config.text_network), add_pooling_layer=False)
        self.image_head, self.text_head = (build_head(head["kind"], head["options"]) for head in (config.image_head, config.text_head))
        self.logit_scale = nn.Parameter(torch.zeros(()))  # the logarithm, as CLIP keeps it
        self.post_init()

    def get_image_features(self, pixel_values, **more):
        """What the image processor gives to (B, D), unit rows."""
        views = iter([pixel_values, *(more[f"pixel_values_{number}"] for number in range(1, sum(network["views"] for network in self.config.image_networks)))])
        parts = []
        for network, net in zip(self.config.image_networks, self.image_networks, strict=True):
            seen = [features(net, next(views)) for _ in range(network["views"])]
            parts += [seen[0]] * self.config.apart + [sum(seen) / len(seen)]
        return nn.functional.normalize(self.image_head(torch.cat(parts, 1)), dim=-1)

    def get_text_features(self, input_ids, attention_mask=None, token_type_ids=None):
        """What the tokenizer gives to (B, D), unit rows."""
        attention_mask = (input_ids != 0).long() if attention_mask is None else attention_mask
        states = self.text_network(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        keep = attention_mask[..., None].to(states.dtype)
        return nn.functional.normalize(self.text_head((states * keep).sum(1) / keep.sum(1).clamp_min(1)), dim=-1)

    def forward(self, input_ids, pixel_values, attention_mask=None, token_type_ids=None, **more):
        """Texts and pictures to their embeddings, and to the logits of each picture with each text."""
        images, texts = self.get_image_features(pixel_values, **more), self.get_text_features(input_ids, attention_mask)
        logits = self.logit_scale.exp().clamp(max=100) * images @ texts.T
        return CLIPOutput(logits_per_image=logits, logits_per_text=logits.T, image_embeds=images, text_embeds=texts)
