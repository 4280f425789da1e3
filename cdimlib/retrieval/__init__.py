"""Search, metrics and what is done to a similarity matrix before it is judged."""

from .metrics import RankMetrics, average_precision, rank_metrics
from .reranking import k_reciprocal
from .search import Ranking, VectorIndex, encode, evaluate, rank_folders, similarity
from .shards import Gallery, recall, two_stage, write_gallery
from .tlift import temporal_lift

__all__ = [
    "Gallery", "RankMetrics", "Ranking", "VectorIndex", "average_precision", "encode", "evaluate", "k_reciprocal",
    "rank_folders", "rank_metrics", "recall", "similarity", "temporal_lift", "two_stage", "write_gallery",
]
