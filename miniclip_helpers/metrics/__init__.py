"""Retrieval metrics, pure functions of arrays. Rows are images, columns are captions; `owner[c]` is the image that caption c describes.

Two images, four captions, owner [0, 0, 1, 1]:

>>> similarity = [[0.9, 0.1, 0.5, 0.2],
...               [0.3, 0.4, 0.6, 0.1]]
>>> ranks(similarity, [0, 0, 1, 1])["image_to_text"].tolist()     # image 0: its best caption is first; image 1 too
[1, 1]
>>> ranks(similarity, [0, 0, 1, 1])["text_to_image"].tolist()     # captions 1 and 3 prefer the wrong image
[1, 2, 1, 2]

The protocol of Karpathy and Fei-Fei 2015 that everyone reports: text to image asks each caption for its one image; image to
text asks each image, and the best ranked of its captions counts. Where the matrix would be too large, hand in `Cosines` of the embeddings.
"""

from .baselines import bag_of_words_similarity, caption_baseline, chance
from .blocks import Cosines, as_scores
from .calibration import calibration_table, expected_calibration_error
from .comparing import mcnemar_test, paired_interval, sign_flip_test
from .intervals import bootstrap_interval, proportion_interval, rank_intervals, retrieval_intervals
from .ranking import DIRECTIONS, TIES, ranks, retrieval_metrics, summarise, target_ranks, top_k_accuracy
from .space import hubness, inverted_softmax, k_occurrence, modality_gap, querybank_normalised

__all__ = ["Cosines", "DIRECTIONS", "TIES", "as_scores", "bag_of_words_similarity", "bootstrap_interval", "calibration_table", "caption_baseline", "chance",
           "expected_calibration_error", "hubness", "inverted_softmax", "k_occurrence", "mcnemar_test", "modality_gap", "paired_interval",
           "proportion_interval", "querybank_normalised", "rank_intervals", "ranks", "retrieval_intervals", "retrieval_metrics", "sign_flip_test", "summarise",
           "target_ranks", "top_k_accuracy"]
