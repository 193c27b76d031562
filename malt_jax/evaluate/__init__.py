"""Systems side by side on held-out questions: passes, scores, statistics, audit."""
