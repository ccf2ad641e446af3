"""Encoding in batches, with a progress bar: features through a cache on disk, and whole corpora into parquet shards of vectors."""

from .cache import CacheWarning, FeatureCache
from .corpus import about_model, encode_corpus, heads_fingerprint, model_and_name
from .features import TEXT_BATCH, image_embeddings, image_features, text_embeddings, text_features
from .running import IMAGE_BATCH, CompileWarning, as_encoding
from .shards import read_all, read_vectors, shard_files

__all__ = ["IMAGE_BATCH", "TEXT_BATCH", "CacheWarning", "CompileWarning", "FeatureCache", "about_model", "as_encoding", "encode_corpus", "heads_fingerprint", "image_embeddings",
           "image_features", "model_and_name", "read_all", "read_vectors", "shard_files", "text_embeddings", "text_features"]
