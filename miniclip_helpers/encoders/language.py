"""BERT and GPT-2 (transformers): published weights where they are on this machine, else small random configurations."""

import json

from ..errors import UsageError
from .base import LibraryTower
from .ids import HubIds, ReadsIds, WordPieceIds, caption_ids, trim
from .pooling import check_pooling, pool
from .weights import hub_at_hand, hub_load, resolve

NOT_OURS = ("transformers_version", "model_type", "architectures", "dtype", "torch_dtype", "_name_or_path")


def architecture(config):
    """A transformers config as plain JSON: with it a run that brings its own weights rebuilds the network."""
    return {key: value for key, value in json.loads(config.to_json_string(use_diff=False)).items() if key not in NOT_OURS}


def own_options(tower):
    """The options that rebuild a tower around a transformers network from zero."""
    if not tower.pretrained:
        return {"pretrained": False}
    config = tower.net.config
    sizes = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads, "hidden": config.hidden_size}
    return {"pretrained": False, "config": architecture(config)} | sizes


def unpublished(config):
    """What a tower says of itself that does not hold the published weights."""
    return f"{'a config of its own' if config else 'a small random start'}, not the published weights"


class LanguageTower(ReadsIds, LibraryTower):
    """What BERT and GPT-2 share. (B, L) ids, 0 is padding, to (B, width).

    pretrained: True for the published weights (12 layers, 768 wide, locked until `unlock`), False for a small random configuration of
    `layers`, `heads` and `hidden`, None for whatever is on this machine. weights: a name of the hub, or a folder in its format.
    pooling: how one vector comes of all the tokens. vocabulary: from zero only, words or merges. length: ids at most.
    config: more settings of the library's own config.
    """

    poolings, published, published_tokens, extra = (), "", "", {}

    def __init__(self, pretrained=None, weights=None, pooling=None, vocabulary=None, layers=2, heads=4, hidden=128, length=32, config=None, tokens=None):
        pooling = check_pooling(self.name, pooling or self.poolings[0], self.poolings)
        super().__init__(weights=weights, pooling=pooling, vocabulary=vocabulary and list(vocabulary), layers=layers, heads=heads, hidden=hidden,
                         length=length, config=config, tokens=tokens)
        self.pooling, source = pooling, weights or self.published
        chosen = pretrained is False or vocabulary or config  # a vocabulary or a config of one's own leaves only the start from zero
        if pretrained and (vocabulary or config):
            raise UsageError(f"a pretrained {self.name} brings its own tokens and sizes: leave vocabulary and config out, or take pretrained=False")
        if resolve(False if chosen else pretrained, lambda: hub_at_hand(source)):
            net = hub_load(self.model_class(), source, self.name, use_safetensors=True, **self.extra)
            self.options["tokens"] = tokens = self.published_tokens if weights is None else "hub"
            self.ids = self.make_ids(tokens, source)
            self.place(net, True, f"published weights ({source})")
        else:
            self.ids = self.make_ids(tokens, source)
            self.place(self.random_net(), False, unpublished(config))
        self.width = self.net.config.hidden_size

    @classmethod
    def at_hand(cls):
        """Whether the published weights are on this machine."""
        return hub_at_hand(cls.published)

    def make_ids(self, tokens, source):
        """What turns captions into ids: "hub", what stands beside the weights; "wordpiece", BERT's own; None, from the vocabulary."""
        length = self.options["length"]
        if tokens == "hub":
            from transformers import AutoTokenizer

            return HubIds(hub_load(AutoTokenizer, source, f"the tokenizer of {self.name}", ("tokenizer.json",)), length)
        return WordPieceIds(length) if tokens == "wordpiece" else self.own_ids(length)

    def own_ids(self, length):
        """The ids of a start from zero."""
        raise NotImplementedError

    def random_net(self):
        """The small network, its weights random."""
        o = self.options
        sizes = {"hidden_size": o["hidden"], "num_hidden_layers": o["layers"], "num_attention_heads": o["heads"]}
        config = self.config_class()(vocab_size=self.rows(), max_position_embeddings=max(64, o["length"]), **self.sizes(), **sizes)
        config.update(o["config"] or {})
        return self.model_class()(config, **self.extra)

    def sizes(self):
        """Settings of this architecture's own."""
        return {}

    def rows(self):
        """Rows of the embedding table. Published tokenizers count their padding elsewhere: see `library_ids`."""
        return self.ids.size

    def own_options(self):
        return own_options(self)

    def prepare(self, texts):
        return self.ids(texts)

    def library_ids(self, batch):
        """Our ids, 0 for padding, as the network counts them."""
        return (batch - 1).clamp_min(0) if isinstance(self.ids, HubIds) else batch

    def forward(self, batch):
        batch = trim(batch)
        mask = batch != 0
        mask[:, 0] = True  # an empty text keeps one position
        states = self.net(input_ids=self.library_ids(batch), attention_mask=mask.long()).last_hidden_state  # (B, L, width)
        return pool(states, mask, self.pooling)


class BERT(LanguageTower):
    """Devlin et al. 2019: reads both ways, [CLS] first. pooling: "cls" (the default, the same as "first"), "mean", "last-token", "last-position".

    Its WordPiece vocabulary comes out of a wheel, so the tokens are BERT's own offline, too.
    """

    name, published, published_tokens = "bert", "google-bert/bert-base-uncased", "wordpiece"
    poolings, extra = ("cls", "first", "mean", "last-token", "last-position"), {"add_pooling_layer": False}

    def model_class(self):
        from transformers.models.bert.modeling_bert import BertModel

        return BertModel

    def config_class(self):
        from transformers.models.bert.configuration_bert import BertConfig

        return BertConfig

    def own_ids(self, length):
        words = self.options["vocabulary"]
        return caption_ids(words, length, start=True) if words else WordPieceIds(length)

    def sizes(self):
        return {"intermediate_size": 4 * self.options["hidden"]}


class GPT2(LanguageTower):
    """Radford et al. 2019: causal, each position sees itself and what stands before it. pooling: "last-token" (the default), "mean", and two traps:
    "first", which has seen one token only, and "last-position", which is padding in all but the longest caption of a batch.

    From zero its tokens are words or merges of `vocabulary`, else CLIP's own pieces, where each text begins with the same mark.
    """

    name, published, published_tokens = "gpt2", "openai-community/gpt2", "hub"
    poolings = ("last-token", "mean", "first", "last-position")

    def model_class(self):
        from transformers.models.gpt2.modeling_gpt2 import GPT2Model

        return GPT2Model

    def config_class(self):
        from transformers.models.gpt2.configuration_gpt2 import GPT2Config

        return GPT2Config

    def own_ids(self, length):
        return caption_ids(self.options["vocabulary"], length)

    def rows(self):
        return self.ids.size - isinstance(self.ids, HubIds)

    def sizes(self):
        return {"bos_token_id": None, "eos_token_id": None, "use_cache": False}
