"""Search, metrics and what is done to a similarity matrix before it is judged."""

from .metrics import RankMetrics, average_precision, rank_metrics
from .search import Ranking, encode, evaluate, rank_folders, similarity

__all__ = [
    "RankMetrics", "Ranking", "average_precision", "encode", "evaluate", "rank_folders", "rank_metrics", "similarity",
]
